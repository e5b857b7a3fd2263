"""Pages from their XML, by mwxml: a block at a time, so that nothing of a dump adds up in memory.

Knows the export format (0.3 to 0.11); nothing about files or wikitext.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

from rag_frozen.corpus.mediawiki.wikitext import LinkNames, link_target
from rag_frozen.errors import DataFormatError, MissingPackageError

if TYPE_CHECKING:
    from rag_frozen.corpus.mediawiki.stream import RawPage

__all__ = ["BrokenPage", "WikiPage", "link_names", "parse_pages"]

_CLOSE = b"</mediawiki>"
_CANONICAL = (
    "book", "category", "draft", "file", "gadget", "help", "image", "media", "mediawiki", "module",
    "portal", "project", "special", "talk", "template", "timedtext", "user", "wikipedia", "wp",
)  # fmt: skip
_SILENT = ("category", "file", "image", "media")
_SILENT_NUMBERS = (-2, 6, 14)  # Media, File, Category, whatever their names
_REDIRECT = re.compile(r"\s*#\s*redirect[a-z]*\s*:?\s*\[\[([^\]|]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WikiPage:
    """A page of a dump in its last revision. ``redirect`` is the title that it leads to, if it
    does; ``model`` of its content, ``wikitext`` for articles."""

    number: int
    id: int
    namespace: int
    title: str
    redirect: str | None
    model: str
    text: str


@dataclass(frozen=True, slots=True)
class BrokenPage:
    """A page whose XML cannot be read: its number, its byte, and why."""

    number: int
    offset: int
    detail: str


def parse_pages(header: bytes, pages: Sequence[RawPage]) -> list[WikiPage | BrokenPage]:
    """Parse pages that stand after ``header``; one that is broken takes no other with it.

    Raises:
        DataFormatError: when the header is broken.
        MissingPackageError: when mwxml is not installed.
    """
    try:
        whole = list(_parse(header, [page.xml for page in pages]))
    except _faults():
        whole = []
    if len(whole) == len(pages):
        return [_page(raw, *found) for raw, found in zip(pages, whole, strict=True)]
    return [_alone(header, page) for page in pages]


@lru_cache(maxsize=4)
def link_names(header: bytes) -> LinkNames:
    """Return the names of the namespaces in a dump's header, beside the English ones.

    Raises:
        DataFormatError: when the header cannot be read.
    """
    try:
        dump = _mwxml().Dump.from_file(BytesIO(_without_end(header) + _CLOSE))
        spaces = dump.site_info.namespaces or ()
        numbered = {str(space.name or "").lower(): int(space.id) for space in spaces}
    except _faults() as error:
        raise DataFormatError(
            f"The beginning of the dump, up to its first page, cannot be read: {error}"
        ) from error
    names = frozenset(name for name in numbered if name)
    silent = frozenset(name for name in names if numbered[name] in _SILENT_NUMBERS)
    return LinkNames(all=names | frozenset(_CANONICAL), silent=silent | frozenset(_SILENT))


def _alone(header: bytes, page: RawPage) -> WikiPage | BrokenPage:
    try:
        found = next(_parse(header, [page.xml]), None)
    except _faults() as error:
        return BrokenPage(page.number, page.offset, " ".join(str(error).split())[:200])
    if found is None:
        return BrokenPage(page.number, page.offset, "no page can be read here")
    return _page(page, *found)


def _parse(
    header: bytes, pages: Sequence[bytes]
) -> Iterator[tuple[Any, Any]]:  # Any: mwxml carries no types
    """Each page with its last revision. mwxml reads on demand: a page's revisions come before the
    next page."""
    source = BytesIO(b"".join((_without_end(header), *pages, _CLOSE)))
    for page in _mwxml().Dump.from_file(source):
        last = None
        for revision in page:
            last = revision
        yield page, last


def _page(raw: RawPage, page: Any, revision: Any) -> WikiPage | BrokenPage:  # Any: see _parse
    if page.id is None or not page.title:
        return BrokenPage(raw.number, raw.offset, "the page has no id or no title")
    text = (revision.text if revision is not None else None) or ""
    model = (revision.model if revision is not None else None) or "wikitext"
    redirect = page.redirect
    if redirect is None and (match := _REDIRECT.match(text)):
        redirect = match[1]
    return WikiPage(
        number=raw.number,
        id=int(page.id),
        namespace=int(page.namespace),
        title=str(page.title),
        redirect=None if redirect is None else link_target(str(redirect)),
        model=str(model),
        text=str(text),
    )


def _faults() -> tuple[type[Exception], ...]:
    """What mwxml raises for XML that is no page: an error of its own, and others by surprise."""
    malformed: type[Exception] = _mwxml().errors.MalformedXML
    return (malformed, ParseError, ValueError, TypeError, AttributeError, AssertionError)


def _without_end(header: bytes) -> bytes:
    return header.partition(_CLOSE)[0]


def _mwxml() -> Any:  # Any: mwxml carries no types
    try:
        import mwxml
    except ImportError as error:
        raise MissingPackageError(
            "Reading MediaWiki dumps needs the packages mwxml and mwparserfromhell. Install them "
            "with: pip install 'rag-frozen[wiki]'"
        ) from error
    return mwxml
