"""Files of passages: which they are, their format, and their rows with line numbers.

Knows endings, gzip and lines; what a row holds is told by ``rows``, what is kept by ``readers``.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import IO, Literal, cast

from rag_frozen.corpus.collections import beir_corpus
from rag_frozen.corpus.remote import open_bytes, source_path
from rag_frozen.corpus.rows import (
    DPR_COLUMNS,
    Row,
    RowFault,
    json_row,
    split_tsv,
    tsv_header,
    tsv_row,
)
from rag_frozen.errors import DataFormatError, InputError

__all__ = ["PassageFormat", "Sources", "expand_sources", "file_rows"]

PassageFormat = Literal["jsonl", "tsv"]
Sources = str | Path | Sequence[str | Path]

_ENDINGS: dict[str, PassageFormat] = {
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".tsv": "tsv",
}
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST_LINE = 64 * 2**20  # bytes
_MOST_LINES = 100  # of one quoted TSV row

Line = tuple[int, str | RowFault]


def expand_sources(sources: Sources) -> tuple[Path, ...]:
    """Return the files of ``sources`` in order; a folder stands for its passage files, sorted.

    In a folder and those below it, files with the endings of passage files count (``.jsonl``,
    ``.json``, ``.ndjson``, ``.tsv``, each also with ``.gz``), hidden ones do not; of a folder as
    BEIR lays it out, only the passages do, not the queries and judgements. Raises ``InputError``
    when a source does not exist or a folder holds none.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    files: list[Path] = []
    for source in map(source_path, given):
        if source.is_dir():
            files += _files_in(source)
        elif source.exists():
            files.append(source)
        else:
            raise InputError(f"There is no file or folder {source}. Check the path.")
    if not files:
        raise InputError("No passage files were given. Name at least one file or folder.")
    return tuple(files)


def file_rows(path: Path, format: PassageFormat | None = None, *, after: int = 0) -> Iterator[Row]:
    """Yield (line, passage or fault) of one file; lines count from 1, decompressed.

    Rows that begin in the first ``after`` lines are left out; they are not parsed, only split.

    Raises ``InputError`` when the file cannot be read, ``DataFormatError`` when its format is not
    given and cannot be told.
    """
    lines = _lines(path)
    with closing(lines):
        start: deque[Line] = deque()
        for entry in lines:
            start.append(entry)
            if isinstance(entry[1], str) and entry[1].strip():
                break
        first = start[-1][1] if start and isinstance(start[-1][1], str) else ""
        chosen = format or _detect(path, first.lstrip())
        if chosen == "tsv":
            yield from _tsv_rows(start, lines, after)
            return
        for entry in chain(start, lines):
            if entry[0] > after:
                yield from _json_rows(entry)


def _files_in(folder: Path) -> list[Path]:
    if (corpus := beir_corpus(folder)) is not None:
        return [corpus]
    found = [
        path
        for path in folder.rglob("*")
        if _format_by_name(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not found:
        endings = ", ".join(_ENDINGS)
        raise InputError(f"{folder} holds no passage files ({endings}, each also with .gz).")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _format_by_name(path: Path) -> PassageFormat | None:
    name = path.name.lower().removesuffix(".gz")
    return _ENDINGS.get(os.path.splitext(name)[1])


def _detect(path: Path, first: str) -> PassageFormat:
    named = _format_by_name(path)
    if not first and named:
        return named
    if first.startswith("["):
        raise DataFormatError(
            f"{path}, line 1: a JSON array begins here. One JSON object a line is expected; "
            "convert it, for instance with: jq -c '.[]'"
        )
    if first.startswith(("<mediawiki", "BZh")):
        raise DataFormatError(
            f"{path} looks like a MediaWiki dump, not a file of passages. Build it with: "
            f"rag-frozen index build wiki-dump --set corpus.path={path}"
        )
    if named:
        return named
    if first.startswith("{"):
        return "jsonl"
    if "\t" in first:
        return "tsv"
    raise DataFormatError(
        f"{path}, line 1: neither a JSON object nor tab-separated columns: {first[:60]!r}. "
        "Passages are read from JSON lines (id, title, text) and DPR's TSV (id, text, title); "
        "name the format when the file is one of them."
    )


def _json_rows(entry: Line) -> Iterator[Row]:
    line, text = entry
    if isinstance(text, RowFault):
        yield line, text
    elif text.strip():
        yield line, json_row(text)


def _tsv_rows(waiting: deque[Line], lines: Iterator[Line], after: int) -> Iterator[Row]:
    """A quoted field may go over several lines. When it never closes, only its first line is a
    bad row: the lines looked at are read again, so that one stray quote does not swallow others."""
    columns: tuple[str, ...] | None = None
    while (entry := waiting.popleft() if waiting else next(lines, None)) is not None:
        line, text = entry
        if isinstance(text, RowFault):
            if line > after:
                yield line, text
            continue
        if not text.strip():
            continue
        fields = split_tsv(text)
        if fields is None:
            fields = _join(text, waiting, lines)
        if isinstance(fields, RowFault):
            if line > after:
                yield line, fields
            continue
        if columns is None:
            columns = tsv_header(fields)
            if columns is not None:
                continue
            columns = DPR_COLUMNS
        if line > after:
            yield line, tsv_row(fields, columns)


def _join(
    text: str,
    waiting: deque[Line],
    lines: Iterator[Line],
) -> list[str] | RowFault:
    """Complete a row with the lines that follow; take from ``waiting`` only what belongs to it."""
    for taken in range(1, _MOST_LINES):
        while len(waiting) < taken and (entry := next(lines, None)) is not None:
            waiting.append(entry)
        if len(waiting) < taken or isinstance(following := waiting[taken - 1][1], RowFault):
            break
        text = f"{text}\n{following}"
        fields = split_tsv(text)
        if isinstance(fields, RowFault):
            break
        if fields is not None:
            for _ in range(taken):
                waiting.popleft()
            return fields
    return RowFault("bad quoting", f"a quoted field never closes: {text[:60]!r}")


def _lines(path: Path) -> Generator[Line, None, None]:
    """Yield (number, line without its end), or a fault where the file cannot be read on.

    Bytes that are no UTF-8 become lone surrogates, which the row readers refuse.
    """
    number = 0
    try:
        with _open(path) as handle:
            while line := handle.readline(_LONGEST_LINE):
                number += 1
                if number == 1:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
                    while (rest := handle.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                        pass
                    yield number, RowFault("line too long", f"over {_LONGEST_LINE:,} bytes")
                    continue
                yield number, line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        detail = f"the compressed data breaks off here: {error}"
        yield number + 1, RowFault("truncated file", detail)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _open(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, decompressed when it begins as gzip does."""
    handle = open_bytes(path)
    if handle.peek(2)[:2] == _GZIP_MAGIC:
        return cast(IO[bytes], _Gzip(handle))
    return handle


class _Gzip(gzip.GzipFile):
    """Closes the file that it reads."""

    def __init__(self, handle: BufferedReader) -> None:
        super().__init__(fileobj=handle, mode="rb")
        self._handle = handle

    def close(self) -> None:
        super().close()
        self._handle.close()
