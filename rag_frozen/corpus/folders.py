"""Documents of a folder: text, Markdown and HTML files as plain text with a title.

Markdown is read by markdown-it-py, HTML by selectolax (lexbor). A file that cannot be read as text
is reported, not skipped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rag_frozen.corpus.readers import PassageReader
from rag_frozen.corpus.rows import Row, RowFault
from rag_frozen.corpus.unfinished import file_marks
from rag_frozen.errors import InputError, MissingPackageError
from rag_frozen.types import Passage

if TYPE_CHECKING:
    from markdown_it.token import Token

__all__ = [
    "DOCUMENT_ENDINGS",
    "Document",
    "html_document",
    "markdown_document",
    "read_folder",
    "text_document",
]

DOCUMENT_ENDINGS = (".htm", ".html", ".markdown", ".md", ".text", ".txt")
_LARGEST = 2**26  # bytes of one document
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n.*?\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_UNSHOWN = (
    "script", "style", "noscript", "template", "nav", "header", "footer", "aside", "form", "svg",
    "iframe", "button",
)  # fmt: skip
_BLOCKS = (
    "address", "article", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption", "figure", "h1",
    "h2", "h3", "h4", "h5", "h6", "hr", "li", "main", "ol", "p", "pre", "section", "table", "td",
    "th", "tr", "ul",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Document:
    """A document's title, empty where it names none, and its text, one paragraph a line."""

    title: str
    text: str


def read_folder(
    folder: str | Path,
    *,
    endings: Sequence[str] = DOCUMENT_ENDINGS,
    strict: bool = False,
) -> PassageReader:
    """Return an iterator over a folder's documents, in the order of their paths.

    Hidden files and folders are left out. The id of a document is its path in the folder with
    forward slashes.

    Raises:
        InputError: when the folder does not exist or holds no such file.
        DataFormatError: while iterating, with ``strict``, for a file that is no text.
    """
    folder = Path(folder)
    if folder.is_file():
        raise InputError(f"{folder} is a file; name the folder that holds the documents.")
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Check the path.")
    wanted = tuple(ending.lower() for ending in endings)
    found = [
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(wanted)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not found:
        raise InputError(f"{folder} holds no documents ({', '.join(wanted)}).")
    found.sort(key=lambda path: path.relative_to(folder).as_posix())
    return PassageReader(
        [(str(path), partial(_rows, path, folder)) for path in found],
        strict=strict,
        unit="documents",
        identity=lambda: {"documents": file_marks(found)},
    )


def text_document(text: str) -> Document:
    r"""Return a plain text; its paragraphs are parted by empty lines.

    >>> text_document("One\nline.\n\nTwo.")
    Document(title='', text='One line.\nTwo.')
    """
    blocks = re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n").replace("\f", "\n\n"))
    return Document("", _joined(blocks))


def markdown_document(text: str) -> Document:
    r"""Return what a Markdown text (CommonMark and tables) shows; its title is the front matter's,
    else its first heading, which stays in the text.

    >>> markdown_document("# Ada\n\nShe *wrote* [notes](x.html).\n\n- one\n- two\n")
    Document(title='Ada', text='Ada\nShe wrote notes.\none\ntwo')

    Raises:
        MissingPackageError: when markdown-it-py is not installed.
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise MissingPackageError(
            "Reading Markdown needs the package markdown-it-py. Install it with: "
            "pip install markdown-it-py"
        ) from error
    title = ""
    if front := _FRONT_MATTER.match(text):
        if named := _FRONT_TITLE.search(front[0]):
            title = named[1].strip("'\"")
        text = text[front.end() :]
    blocks: list[str] = []
    heading = False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        match token.type:
            case "heading_open":
                heading = True
            case "heading_close":
                heading = False
            case "fence" | "code_block":
                blocks.append(token.content)
            case "html_block":
                blocks += html_document(token.content.encode()).text.split("\n")
            case "inline":
                shown = _inline(token)
                blocks.append(shown)
                if heading and not title:
                    title = " ".join(shown.split())
    return Document(title, _joined(blocks))


def html_document(content: bytes) -> Document:
    r"""Return what a page shows in its main part: no scripts, menus, headers and footers.

    The encoding is the page's own, UTF-8 where it names none.

    >>> html_document(b"<title>Ada</title><nav>Menu</nav><p>She <b>wrote</b>.<p>Notes.")
    Document(title='Ada', text='She wrote.\nNotes.')

    Raises:
        MissingPackageError: when selectolax is not installed.
    """
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as error:
        raise MissingPackageError(
            "Reading HTML needs the package selectolax. Install it with: "
            "pip install 'rag-frozen[wiki]'"
        ) from error
    tree = LexborHTMLParser(_decoded_html(content))
    heading = tree.css_first("title") or tree.css_first("h1")
    title = " ".join(heading.text().split()) if heading is not None else ""
    root = tree.css_first("main") or tree.css_first("article") or tree.body
    if root is None:
        return Document(title, "")
    root.strip_tags(list(_UNSHOWN))
    for node in root.css(", ".join(_BLOCKS)):
        node.insert_before("\n\n")
        node.insert_after("\n\n")
    return Document(title, _joined(re.split(r"\n\n+", root.text())))


def _rows(path: Path, folder: Path, *, after: int = 0) -> Iterator[Row]:
    """The one row of a document: its passage, or what is wrong with it."""
    if after:
        return
    name = path.relative_to(folder).as_posix()
    try:
        with path.open("rb") as handle:
            content = handle.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > _LARGEST:
        yield 1, RowFault("document too long", f"over {_LARGEST:,} bytes; cut it into files")
        return
    try:
        document = _document(path.suffix.lower(), content)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        yield line, RowFault("bad UTF-8", f"byte {error.start:,} is no UTF-8: {error.reason}")
        return
    if not document.text:
        yield 1, RowFault("empty text", f"{name!r} shows no text")
        return
    yield 1, Passage(name, document.title or path.stem, document.text)


def _document(ending: str, content: bytes) -> Document:
    if ending in (".html", ".htm"):
        return html_document(content)
    text = content.decode("utf-8-sig")
    return markdown_document(text) if ending in (".md", ".markdown") else text_document(text)


def _inline(token: Token) -> str:
    """The text of a line: words, code, the descriptions of images; line ends as spaces."""
    shown: list[str] = []
    for child in token.children or ():
        if child.type in ("softbreak", "hardbreak"):
            shown.append(" ")
        elif child.type in ("code_inline", "image", "text", "text_special"):
            shown.append(child.content)
    return "".join(shown)


def _decoded_html(content: bytes) -> str:
    """By byte order mark, else by the page's ``meta``, else as UTF-8.

    Raises:
        UnicodeDecodeError: when a page that names no encoding, or an unknown one, is no UTF-8.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    named = _CHARSET.search(content[:4096])
    if named is not None and not content.startswith(b"\xef\xbb\xbf"):
        try:
            return content.decode(named[1].decode("ascii"), "replace")
        except LookupError:
            pass
    return content.decode("utf-8-sig")


def _joined(blocks: Sequence[str]) -> str:
    lines = (" ".join(block.split()) for block in blocks)
    return "\n".join(line for line in lines if line)
