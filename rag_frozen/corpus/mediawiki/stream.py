"""The bytes of a dump, cut into blocks of whole pages, with where each page stands.

A dump is one XML document of any length. It is cut at ``<page>`` and ``</page>`` before any XML is
parsed: MediaWiki escapes every ``<`` inside a page, so neither can stand within one. So memory
stays at one block, blocks can be parsed by several processes, and damage has a place. Knows files,
compression and these two tags; what a page holds is read by ``pages``.
"""

from __future__ import annotations

import bz2
import gzip
import re
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader
from pathlib import Path

from rag_frozen.corpus.remote import open_bytes, source_path
from rag_frozen.errors import DataFormatError, InputError

__all__ = ["DumpDamage", "PageBlock", "RawPage", "expand_dumps", "page_blocks"]

_CHUNK = 2**18  # bytes read at once
_BLOCK_BYTES = 2**19  # of one block
_BLOCK_PAGES = 64
_LONGEST_HEADER = 2**20  # bytes before the first page
_LONGEST_PAGE = 2**26  # bytes; an article has 4 MiB at most
_START, _END, _CLOSE = b"<page>", b"</page>", b"</mediawiki>"
_DUMP_NAME = re.compile(r"\.xml(-p\d+p\d+)?(\.bz2|\.gz)?$", re.IGNORECASE)
_MAGIC = {b"BZh": "bz2", b"\x1f\x8b": "gzip"}
_NUMBERS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class RawPage:
    """One ``<page>`` element: its number in the file from 1, the offset of its first byte in the
    decompressed file, and its bytes."""

    number: int
    offset: int
    xml: bytes


@dataclass(frozen=True, slots=True)
class PageBlock:
    """Pages that stand together in a file, the file's beginning with the names of its namespaces,
    and about how many bytes of the file itself they and what precedes them take."""

    file: str
    header: bytes
    pages: tuple[RawPage, ...]
    file_offset: int


@dataclass(frozen=True, slots=True)
class DumpDamage:
    """Where a dump breaks off: after how many whole pages, at which byte of the decompressed file,
    at about which of the file itself, and how."""

    file: str
    pages: int
    offset: int
    file_offset: int
    detail: str

    def __str__(self) -> str:
        return (
            f"{self.file} breaks off after page {self.pages:,}, at byte {self.offset:,} "
            f"(decompressed; about byte {self.file_offset:,} of the file): {self.detail}"
        )


def expand_dumps(source: str | Path) -> tuple[Path, ...]:
    """Return the dump files that a path stands for: itself, or those of a folder by their numbers.

    Raises:
        InputError: when there is nothing.
    """
    path = source_path(source)
    if not path.exists():
        raise InputError(f"There is no file or folder {path}. Check the path.")
    if not path.is_dir():
        return (path,)
    found = [file for file in path.iterdir() if _DUMP_NAME.search(file.name) and file.is_file()]
    if not found:
        raise InputError(f"{path} holds no dumps (.xml, .xml.bz2, .xml.gz, also -p1p41242.bz2).")
    return tuple(sorted(found, key=_by_numbers))


def page_blocks(path: Path) -> Iterator[PageBlock | DumpDamage]:
    """Yield the pages of one dump in order; last, where it breaks off, if it does.

    Raises:
        DataFormatError: when the file is no MediaWiki export.
        InputError: when it cannot be read.
    """
    reader = _Reader(path)
    with closing(reader.chunks()) as chunks:
        header = _header(path, reader, chunks)
        pages: list[RawPage] = []
        size = 0
        for page in _pages(reader, chunks):
            pages.append(page)
            size += len(page.xml)
            if len(pages) == _BLOCK_PAGES or size >= _BLOCK_BYTES:
                yield PageBlock(str(path), header, tuple(pages), reader.file_offset)
                pages, size = [], 0
        if pages:
            yield PageBlock(str(path), header, tuple(pages), reader.file_offset)
        if reader.broken is not None:
            yield DumpDamage(
                str(path), reader.n_pages, reader.offset, reader.file_offset, reader.broken
            )


class _Reader:
    """The decompressed bytes not yet cut, and where they stand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = bytearray()
        self.offset = 0  # of the first waiting byte
        self.file_offset = 0
        self.n_pages = 0
        self.broken: str | None = None

    def chunks(self) -> Generator[None, None, None]:
        """Add a chunk to ``waiting`` at each step; damage ends them and is noted."""
        try:
            with open_bytes(self.path) as raw:
                handle = _decompressing(raw)
                while chunk := handle.read1(_CHUNK):
                    self.waiting += chunk
                    self.file_offset = raw.tell()
                    yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.broken = f"the compressed data ends or is damaged ({error})"
        except OSError as error:
            if error.errno is not None:
                reason = error.strerror or error
                raise InputError(f"{self.path} cannot be read: {reason}") from error
            self.broken = f"the compressed data is damaged ({error})"  # bz2 has no error of its own

    def drop(self, n_bytes: int) -> None:
        """Go on by so many bytes."""
        del self.waiting[:n_bytes]
        self.offset += n_bytes


def _decompressing(raw: BufferedReader) -> BufferedIOBase:
    start = raw.read(3)
    raw.seek(0)
    match next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "plain"):
        case "bz2":
            return bz2.BZ2File(raw)  # reads all streams of a multistream dump
        case "gzip":
            return gzip.GzipFile(fileobj=raw)
    return raw


def _header(path: Path, reader: _Reader, chunks: Generator[None, None, None]) -> bytes:
    """Read up to the first page, or to the end of a dump without pages."""
    while (at := reader.waiting.find(_START)) < 0:
        if b"<mediawiki" not in reader.waiting[:_CHUNK] and len(reader.waiting) >= _CHUNK:
            break
        if len(reader.waiting) > _LONGEST_HEADER or next(chunks, _END) is _END:
            break
    header = bytes(reader.waiting[: at if at >= 0 else len(reader.waiting)])
    if b"<mediawiki" not in header:
        if reader.broken is not None:
            raise DataFormatError(f"{path}: nothing of it can be read: {reader.broken}.")
        raise DataFormatError(
            f"{path} is no MediaWiki export: it begins with {header[:60]!r}. A file such as "
            "enwiki-latest-pages-articles.xml.bz2 or one of Special:Export is expected."
        )
    if at >= 0:
        reader.drop(at)
        return header
    if _CLOSE not in header and reader.broken is None:
        reader.broken = "the document ends, or goes on for long, before its first page"
    return header


def _pages(reader: _Reader, chunks: Generator[None, None, None]) -> Iterator[RawPage]:
    searched = 0  # bytes of ``waiting`` known to hold no end of a page
    while reader.broken is None or _END in reader.waiting:
        end = reader.waiting.find(_END, searched)
        if end >= 0:
            end += len(_END)
            start = reader.waiting.find(_START, 0, end)
            if start < 0:
                reader.broken = "a page ends that never began"
                return
            reader.n_pages += 1
            yield RawPage(reader.n_pages, reader.offset + start, bytes(reader.waiting[start:end]))
            reader.drop(end)
            searched = 0
            continue
        searched = max(0, len(reader.waiting) - len(_END))
        if len(reader.waiting) > _LONGEST_PAGE:
            reader.broken = (
                f"a page is longer than {_LONGEST_PAGE:,} bytes; dumps with all revisions "
                "(pages-meta-history) are not read, take pages-articles"
            )
            return
        if next(chunks, _END) is _END:
            break
    if reader.broken is None and _CLOSE not in reader.waiting:
        where = "inside a page" if _START in reader.waiting else "before </mediawiki>"
        reader.broken = f"the document ends {where}"


def _by_numbers(path: Path) -> tuple[tuple[int, str], ...]:
    """Sort ``part2`` before ``part10``."""
    parts = _NUMBERS.split(path.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
