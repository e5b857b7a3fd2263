"""Passages from files: JSON lines and DPR's TSV, plain or gzipped, with a report of bad rows.

A bad row is counted and reported with file and line, never silently dropped; ``strict`` makes it
an error.
"""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from rag_frozen.corpus.ids import SeenIds
from rag_frozen.corpus.rows import (
    DPR_COLUMNS,
    RowFault,
    json_row,
    split_tsv,
    tsv_header,
    tsv_row,
)
from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.types import Passage

__all__ = [
    "PassageFormat",
    "PassageReader",
    "ReadProblem",
    "ReadReport",
    "Sources",
    "expand_sources",
    "read_passages",
]

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
_BLOCK = 1024  # rows looked at together for repeated ids
_LONGEST_LINE = 64 * 2**20  # bytes
_MOST_LINES = 100  # of one quoted TSV row

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadProblem:
    """A row that is no passage. ``line`` counts from 1, in the decompressed file."""

    file: str
    line: int
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What came of reading: passages kept, rows left out, the first problems.

    ``reasons`` holds (reason, count) pairs, most frequent first; they sum to ``malformed``.
    ``files`` are the files begun, in the order read.
    """

    kept: int = 0
    malformed: int = 0
    reasons: tuple[tuple[str, int], ...] = ()
    problems: tuple[ReadProblem, ...] = ()
    files: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return one line for people.

        >>> ReadReport(kept=5, malformed=2, reasons=(("bad JSON", 2),)).summary()
        '5 passages kept, 2 rows left out (2 bad JSON)'
        """
        if not self.malformed:
            return f"{self.kept:,} passages kept"
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons)
        return f"{self.kept:,} passages kept, {self.malformed:,} rows left out ({reasons})"


def read_passages(
    sources: Sources,
    *,
    format: PassageFormat | None = None,
    strict: bool = False,
    max_problems: int = 20,
) -> PassageReader:
    """Return an iterator over the passages of one file, of several, or of a folder's files.

    Ids must be unique over all of them. ``format`` holds for all; without it each file's is told
    by its name's ending, else by its first row. ``max_problems`` bounds the problems that the
    report keeps (all are counted). Raises ``InputError`` when a source is missing; while iterating
    ``DataFormatError`` for a file of no known format, and with ``strict`` for the first bad row.
    """
    return PassageReader(
        expand_sources(sources), format=format, strict=strict, max_problems=max_problems
    )


def expand_sources(sources: Sources) -> tuple[Path, ...]:
    """Return the files of ``sources`` in order; a folder stands for its passage files, sorted.

    In a folder and those below it, files with the endings of passage files count (``.jsonl``,
    ``.json``, ``.ndjson``, ``.tsv``, each also with ``.gz``), hidden ones do not. Raises
    ``InputError`` when a source does not exist or a folder holds none.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    files: list[Path] = []
    for source in map(Path, given):
        if source.is_dir():
            files += _files_in(source)
        elif source.exists():
            files.append(source)
        else:
            raise InputError(f"There is no file or folder {source}. Check the path.")
    if not files:
        raise InputError("No passage files were given. Name at least one file or folder.")
    return tuple(files)


class PassageReader(Iterator[Passage]):
    """Iterates over the passages of files; ``report`` tells what has been read so far."""

    def __init__(
        self,
        files: Sequence[Path],
        *,
        format: PassageFormat | None = None,
        strict: bool = False,
        max_problems: int = 20,
    ) -> None:
        self._files = tuple(files)
        self._format = format
        self._strict = strict
        self._max_problems = max_problems
        self._kept = 0
        self._reasons: Counter[str] = Counter()
        self._problems: list[ReadProblem] = []
        self._begun: list[str] = []
        self._passages = self._read()

    def __iter__(self) -> PassageReader:
        return self

    def __next__(self) -> Passage:
        return next(self._passages)

    @property
    def report(self) -> ReadReport:
        """What has been read so far; after the last passage, all of it."""
        return ReadReport(
            kept=self._kept,
            malformed=self._reasons.total(),
            reasons=tuple(self._reasons.most_common()),
            problems=tuple(self._problems),
            files=tuple(self._begun),
        )

    def _read(self) -> Iterator[Passage]:
        seen = SeenIds()
        for path in self._files:
            self._begun.append(str(path))
            block: list[tuple[int, Passage | RowFault]] = []
            for entry in _rows(path, self._format):
                block.append(entry)
                if len(block) == _BLOCK:
                    yield from self._keep(path, block, seen)
                    block = []
            yield from self._keep(path, block, seen)
        if self._reasons:
            _log.warning("%s. First: %s", self.report.summary(), self._problems[:1] or "not kept")

    def _keep(
        self, path: Path, block: list[tuple[int, Passage | RowFault]], seen: SeenIds
    ) -> Iterator[Passage]:
        new = iter(seen.add([row.id for _, row in block if isinstance(row, Passage)]))
        for line, row in block:
            if isinstance(row, RowFault):
                self._note(path, line, row)
            elif not next(new):
                fault = RowFault("duplicate id", f"the id {row.id!r} was met before")
                self._note(path, line, fault)
            else:
                self._kept += 1
                yield row

    def _note(self, path: Path, line: int, fault: RowFault) -> None:
        problem = ReadProblem(str(path), line, fault.reason, fault.detail)
        if self._strict:
            raise DataFormatError(f"{problem}. Correct the row, or read without strict.")
        self._reasons[fault.reason] += 1
        if len(self._problems) < self._max_problems:
            self._problems.append(problem)


def _files_in(folder: Path) -> list[Path]:
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


def _rows(path: Path, format: PassageFormat | None) -> Iterator[tuple[int, Passage | RowFault]]:
    """Yield (line, passage or fault) of one file."""
    lines = _lines(path)
    with closing(lines):
        start: deque[tuple[int, str | RowFault]] = deque()
        for entry in lines:
            start.append(entry)
            if isinstance(entry[1], str) and entry[1].strip():
                break
        first = start[-1][1] if start and isinstance(start[-1][1], str) else ""
        chosen = format or _detect(path, first)
        if chosen == "tsv":
            yield from _tsv_rows(start, lines)
            return
        while start:
            yield from _json_rows(start.popleft())
        for entry in lines:
            yield from _json_rows(entry)


def _detect(path: Path, first: str) -> PassageFormat:
    named = _format_by_name(path)
    if not first and named:
        return named
    if first.startswith("["):
        raise DataFormatError(
            f"{path}, line 1: a JSON array begins here. One JSON object a line is expected; "
            "convert it, for instance with: jq -c '.[]'"
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


def _json_rows(entry: tuple[int, str | RowFault]) -> Iterator[tuple[int, Passage | RowFault]]:
    line, text = entry
    if isinstance(text, RowFault):
        yield line, text
    elif text.strip():
        yield line, json_row(text)


def _tsv_rows(
    waiting: deque[tuple[int, str | RowFault]], lines: Iterator[tuple[int, str | RowFault]]
) -> Iterator[tuple[int, Passage | RowFault]]:
    """A quoted field may go over several lines. When it never closes, only its first line is a
    bad row: the lines looked at are read again, so that one stray quote does not swallow others."""
    columns: tuple[str, ...] | None = None
    while (entry := waiting.popleft() if waiting else next(lines, None)) is not None:
        line, text = entry
        if isinstance(text, RowFault):
            yield line, text
            continue
        if not text.strip():
            continue
        fields = split_tsv(text)
        if fields is None:
            fields = _join(text, waiting, lines)
        if isinstance(fields, RowFault):
            yield line, fields
            continue
        if columns is None:
            columns = tsv_header(fields)
            if columns is not None:
                continue
            columns = DPR_COLUMNS
        yield line, tsv_row(fields, columns)


def _join(
    text: str,
    waiting: deque[tuple[int, str | RowFault]],
    lines: Iterator[tuple[int, str | RowFault]],
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


def _lines(path: Path) -> Generator[tuple[int, str | RowFault], None, None]:
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
    handle = path.open("rb")
    if handle.peek(2)[:2] == _GZIP_MAGIC:
        handle.close()
        return cast(IO[bytes], gzip.open(path, "rb"))
    return handle
