"""What becomes of each page: an article cut into passages, a redirect, or left out and why.

Runs in the worker processes; everything here depends on the page and the options alone, so that
the number of processes cannot change the corpus.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rag_frozen.corpus.chunking import chunk_text
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.pages import BrokenPage, WikiPage, link_names, parse_pages
from rag_frozen.corpus.mediawiki.stream import PageBlock
from rag_frozen.corpus.mediawiki.wikitext import LinkNames, article_text
from rag_frozen.errors import InputError

__all__ = ["Article", "Cutting", "Judged", "LeftOut", "Redirect", "judge_block", "judge_page"]


@dataclass(frozen=True, slots=True)
class Cutting:
    """How articles are cut into passages, see ``chunking.chunk_text``."""

    n_words: int = 100
    at_sentences: bool = False
    wrap: bool = False


@dataclass(frozen=True, slots=True)
class Article:
    """A page that is kept: its passages' texts in order, its words, the titles it links to."""

    page_id: int
    title: str
    passages: tuple[str, ...]
    n_words: int
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Redirect:
    """A page that only leads to another."""

    page_id: int
    title: str
    target: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A page that is neither, with one of few reasons to count by."""

    page_id: int
    title: str
    reason: str


Judged = Article | Redirect | LeftOut | BrokenPage


def judge_block(block: PageBlock, options: WikiOptions, cutting: Cutting) -> list[Judged]:
    """Return what becomes of each page of a block, in order.

    Raises:
        DataFormatError: when the dump's header is broken.
        InputError: when a pattern of ``skip_titles`` is none.
    """
    names = link_names(block.header)
    return [
        page if isinstance(page, BrokenPage) else judge_page(page, options, cutting, names=names)
        for page in parse_pages(block.header, block.pages)
    ]


def judge_page(
    page: WikiPage, options: WikiOptions, cutting: Cutting, *, names: LinkNames
) -> Article | Redirect | LeftOut:
    """Return what becomes of one page.

    Reasons to leave one out: ``namespace``, ``not wikitext``, ``title``, ``disambiguation``,
    ``empty`` and ``stub``.
    """

    def left_out(reason: str) -> LeftOut:
        return LeftOut(page.id, page.title, reason)

    if page.namespace not in options.namespaces:
        return left_out("namespace")
    if page.redirect is not None:
        return Redirect(page.id, page.title, page.redirect)
    if page.model != "wikitext":
        return left_out("not wikitext")
    if any(_matches(pattern, page.title) for pattern in options.skip_titles):
        return left_out("title")
    article = article_text(page.text, options, names=names, title=page.title)
    if not options.disambiguation and (
        article.disambiguation or page.title.lower().endswith("(disambiguation)")
    ):
        return left_out("disambiguation")
    words = len(article.text.split())
    if words == 0:
        return left_out("empty")
    if words < options.min_words:
        return left_out("stub")
    texts = chunk_text(
        article.text,
        n_words=cutting.n_words,
        at_sentences=cutting.at_sentences,
        wrap=cutting.wrap,
    )
    return Article(page.id, page.title, tuple(texts), words, article.links)


def _matches(pattern: str, title: str) -> bool:
    try:
        return re.match(pattern, title) is not None
    except re.error as error:
        raise InputError(
            f"skip_titles: {pattern!r} is no regular expression: {error}. Correct it in the recipe."
        ) from error
