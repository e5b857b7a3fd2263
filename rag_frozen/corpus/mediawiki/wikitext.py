"""The prose of an article from its wikitext.

mwparserfromhell reads the markup; what is walked here is its tree, and what comes out are
paragraphs of plain text, the targets of the links, and the names of the templates. References,
tables, files, categories and most templates show nothing; lists, infoboxes and headings as the
options say. Knows nothing about dumps, pages or passages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_frozen.corpus.mediawiki.cleaning import (
    HIDDEN_MARK,
    balance_quotes,
    clean_paragraph,
    without_hidden,
    without_tables,
)
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.templates import (
    expand_template,
    template_key,
    template_shows,
    without_templates,
)
from rag_frozen.errors import MissingPackageError

if TYPE_CHECKING:
    from mwparserfromhell.wikicode import Wikicode

__all__ = ["ArticleText", "LinkNames", "article_text", "link_target"]

_ITEM = "\x01"  # begins a line that is a list item; XML allows no such character in a dump
_HEADING = "\x02"  # begins a heading: this, its level as a digit, its words
_PRIVATE = re.compile(f"[{_ITEM}{_HEADING}{HIDDEN_MARK}]")
_TABLE_START = re.compile(r"^[ :\x01]*\{\|", re.MULTILINE)
_LOOSE_TAG = re.compile(  # of HTML that the parser found no end for
    r"</?(?:b|big|br|center|dd|div|dl|dt|font|i|includeonly|li|noinclude|ol|onlyinclude|p|ref|small"
    r"|span|sub|sup|table|tbody|td|th|tr|u|ul)\b[^<>]*>",
    re.IGNORECASE,
)
_SILENT_TAGS = frozenset(
    (
        "caption", "categorytree", "ce", "charinsert", "chem", "gallery", "graph", "hiero",
        "imagemap", "includeonly", "indicator", "inputbox", "mapframe", "maplink", "math", "page",
        "pagelist", "phonos", "ref", "references", "score", "script", "section", "source", "style",
        "syntaxhighlight", "table", "td", "templatedata", "templatestyles", "th", "timeline", "tr",
    )
)  # fmt: skip
_BLOCK_TAGS = frozenset(("blockquote", "center", "div", "dl", "ol", "p", "poem", "pre", "ul"))
_PAGE_NAMES = frozenset(("fullpagename", "pagename", "subpagename"))
_ITEM_TAGS = frozenset(("dd", "dt", "li"))
_INTERLANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]{2,10})*|simple|be-x-old|zh-min-nan")
_IMAGE_FACTS = re.compile(
    r"image|img|photo|picture|logo|map|caption|alt|size|width|colou?r|style|flag|coat|seal|footnote"
    r"|website|url|file|coordinates|latd|longd|latns|longew|pushpin|module|embed|child|signature"
    r"|ref"
)


_DEFAULT = WikiOptions()


@dataclass(frozen=True, slots=True)
class LinkNames:
    """The names of a wiki's namespaces, in lower case: all but the articles', and of those the ones
    whose links stand for a file or a category and show no text."""

    all: frozenset[str] = frozenset({"category", "file", "image", "media"})
    silent: frozenset[str] = frozenset({"category", "file", "image", "media"})


_ENGLISH = LinkNames()


@dataclass(frozen=True, slots=True)
class ArticleText:
    """What a page says: paragraphs parted by line ends, the articles that it links to (each once,
    in order), and whether a template marks it as a disambiguation page."""

    text: str
    links: tuple[str, ...] = ()
    disambiguation: bool = False


def article_text(
    wikitext: str,
    options: WikiOptions = _DEFAULT,
    *,
    names: LinkNames = _ENGLISH,
    title: str = "",
) -> ArticleText:
    """Return the prose of an article.

    >>> article_text("'''Ada''' was a [[mathematician|mathematical]] writer.<ref>A book</ref>").text
    'Ada was a mathematical writer.'

    Raises:
        MissingPackageError: when mwparserfromhell is not installed.
    """
    try:
        import mwparserfromhell
    except ImportError as error:
        raise MissingPackageError(
            "Reading wikitext needs the package mwparserfromhell. Install it with: "
            "pip install 'rag-frozen[wiki]'"
        ) from error

    source = balance_quotes(without_tables(without_hidden(_PRIVATE.sub("", wikitext))))
    source = without_templates(source, partial(_matters, options))
    walk = _Walk(options, names, title)
    walk.code(mwparserfromhell.parse(source, skip_style_tags=True))
    if _TABLE_START.search("".join(walk.pieces)):  # the parser could not find its end
        walk = _Walk(options, names, title)
        walk.code(
            mwparserfromhell.parse(without_tables(source, unclosed=True), skip_style_tags=True)
        )
    return ArticleText(
        "\n".join(_paragraphs("".join(walk.pieces).replace(HIDDEN_MARK, ""), options)),
        tuple(dict.fromkeys(walk.links)),
        walk.disambiguation,
    )


def link_target(target: str) -> str:
    """Return the title that a link leads to: no section, no underscores, a capital first.

    >>> link_target(" ada_Lovelace#Life ")
    'Ada Lovelace'
    """
    title = " ".join(target.partition("#")[0].replace("_", " ").split()).lstrip(":").strip()
    return title[:1].upper() + title[1:]


@dataclass(slots=True)
class _Walk:
    """Goes over the parser's nodes and gathers what they show."""

    options: WikiOptions
    names: LinkNames
    title: str
    pieces: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    disambiguation: bool = False

    def code(self, code: Wikicode | None) -> None:
        """Walk all nodes of a piece of wikitext."""
        for node in code.nodes if code is not None else ():
            self._node(node)

    def _node(self, node: Any) -> None:  # Any: the parser's node classes carry no types
        match type(node).__name__:
            case "Text":
                text = node.value
                self.pieces.append(_LOOSE_TAG.sub(" ", text) if "<" in text else text)
            case "Wikilink":
                self._link(node)
            case "Template":
                self._template(node)
            case "Tag":
                self._tag(node)
            case "ExternalLink":
                if node.title is not None:
                    self.code(node.title)
                elif not node.brackets:
                    self.pieces.append(str(node.url))
            case "HTMLEntity":
                self.pieces.append(_entity(node))
            case "Heading":
                self._heading(node)
            case "Argument" if node.default is not None:
                self.code(node.default)

    def _heading(self, node: Any) -> None:  # Any: see _node
        words = " ".join(self._shown(node.title).split())
        self.pieces.append(f"\n\n{_HEADING}{node.level}{words}\n\n")

    def _link(self, node: Any) -> None:  # Any: see _node
        target = str(node.title).strip()
        plain = target.lstrip(":").strip()
        prefix, colon, _ = plain.partition(":")
        prefix = prefix.strip().replace("_", " ")
        outside = bool(colon) and prefix.lower() in self.names.all
        foreign = bool(colon) and _INTERLANGUAGE.fullmatch(prefix) is not None
        if not target.startswith(":"):
            if outside and prefix.lower() in self.names.silent:
                return
            if foreign and node.text is None:
                return
            if colon and "|" in str(node.text):  # only files have several: one of unknown prefix
                return
        if not outside and not foreign and (leads_to := link_target(target)):
            self.links.append(leads_to)
        if node.text is not None and str(node.text).strip():
            self.code(node.text)
        else:
            self.pieces.append(self._shown(node.title).strip().lstrip(":").replace("_", " "))

    def _template(self, node: Any) -> None:  # Any: see _node
        key = template_key(str(node.name))
        if _disambiguates(self.options, key):
            self.disambiguation = True
        if key in _PAGE_NAMES:
            self.pieces.append(self.title)
        elif key.startswith(self.options.infobox_prefixes):
            if self.options.infoboxes:
                self._infobox(node)
        elif template_shows(key):
            arguments = {
                template_key(str(param.name)): self._shown(param.value).strip()
                for param in node.params
                if not str(param.name).startswith("_")
            }
            if (shown := expand_template(key, arguments)) is not None:
                self.pieces.append(shown)

    def _infobox(self, node: Any) -> None:  # Any: see _node
        for param in node.params:
            name = template_key(str(param.name))
            if not param.showkey or _IMAGE_FACTS.search(name):
                continue
            value = " ".join(_PRIVATE.sub(" ", self._shown(param.value)).split())
            if value:
                end = "" if value.endswith(".") else "."
                self.pieces.append(f"\n\n{name}: {value}{end}\n\n")

    def _tag(self, node: Any) -> None:  # Any: see _node
        name = str(node.tag).strip().lower()
        if name in _SILENT_TAGS:
            return
        if name in _ITEM_TAGS:
            if node.wiki_markup:
                self.pieces.append(_ITEM)
            else:
                self.pieces.append(f"\n{_ITEM}")
                self.code(node.contents)
                self.pieces.append("\n")
        elif name == "nowiki":
            self.pieces.append(str(node.contents))
        elif name == "br":
            self.pieces.append(" ")
        elif name == "hr":
            self.pieces.append("\n\n")
        elif name in _BLOCK_TAGS:
            self.pieces.append("\n\n")
            self.code(node.contents)
            self.pieces.append("\n\n")
        else:
            self.code(node.contents)

    def _shown(self, code: Wikicode | None) -> str:
        """What a piece of wikitext inside another shows; its links count."""
        outer, self.pieces = self.pieces, []
        self.code(code)
        shown, self.pieces = "".join(self.pieces), outer
        return shown


def _matters(options: WikiOptions, key: str) -> bool:
    """Whether a template shows something or tells something of its page."""
    return (
        template_shows(key)
        or key in _PAGE_NAMES
        or _disambiguates(options, key)
        or (options.infoboxes and key.startswith(options.infobox_prefixes))
    )


def _disambiguates(options: WikiOptions, key: str) -> bool:
    return key in options.disambiguation_templates or key.endswith(" disambiguation")


def _entity(node: Any) -> str:  # Any: see _Walk._node
    """The character of ``&amp;``; an entity that is none stays as it is written."""
    try:
        return str(node.normalize())
    except (ValueError, KeyError, OverflowError):
        return str(node)


def _paragraphs(shown: str, options: WikiOptions) -> Iterator[str]:
    """Join the lines of each paragraph, leave out what the options say, and clean the rest."""
    dropped = frozenset(heading.casefold() for heading in options.drop_sections)
    skipped_level = 0  # of the heading whose section is being left out
    lines: list[str] = []
    for line in (*shown.split("\n"), ""):
        stripped = line.strip()
        is_item, is_heading = stripped.startswith(_ITEM), stripped.startswith(_HEADING)
        if is_heading:
            level, heading = int(stripped[1]), _plain(stripped[2:])
            if skipped_level and level > skipped_level:
                continue
            skipped_level = level if heading.casefold() in dropped else 0
            stripped = heading if options.headings else ""
        if skipped_level or (is_item and not options.lists):
            stripped = ""
        if lines and (not stripped or is_item or is_heading):
            yield from _cleaned(lines)
            lines = []
        if stripped:
            lines.append(_PRIVATE.sub(" ", stripped))
            if is_item or is_heading:
                yield from _cleaned(lines)
                lines = []


def _cleaned(lines: Iterable[str]) -> Iterator[str]:
    if paragraph := clean_paragraph(" ".join(lines)):
        yield paragraph


def _plain(heading: str) -> str:
    return clean_paragraph(_PRIVATE.sub(" ", heading))
