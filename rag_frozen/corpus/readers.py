"""Passages from files: JSON lines and DPR's TSV, plain or gzipped, with a report of bad rows.

A bad row is counted and reported with file and line, never silently dropped; ``strict`` makes it
an error.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_frozen.corpus.files import PassageFormat, Sources, expand_sources, file_rows
from rag_frozen.corpus.ids import SeenIds
from rag_frozen.corpus.rows import RowFault
from rag_frozen.errors import DataFormatError
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

_BLOCK = 1024  # rows looked at together for repeated ids

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadProblem:
    """A row that is no passage. ``line`` counts from 1, in the decompressed file, lines or what
    ``unit`` says, such as the pages of a dump."""

    file: str
    line: int
    reason: str
    detail: str
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.line}: {self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What came of reading: passages kept, rows left out, the first problems.

    ``reasons`` holds (reason, count) pairs, most frequent first; they sum to ``malformed``.
    ``files`` are the files begun, in the order read; ``unit`` is what is counted as left out.
    """

    kept: int = 0
    malformed: int = 0
    reasons: tuple[tuple[str, int], ...] = ()
    problems: tuple[ReadProblem, ...] = ()
    files: tuple[str, ...] = ()
    unit: str = "rows"

    def summary(self) -> str:
        """Return one line for people.

        >>> ReadReport(kept=5, malformed=2, reasons=(("bad JSON", 2),)).summary()
        '5 passages kept, 2 rows left out (2 bad JSON)'
        """
        if not self.malformed:
            return f"{self.kept:,} passages kept"
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons)
        return f"{self.kept:,} passages kept, {self.malformed:,} {self.unit} left out ({reasons})"


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
            for entry in file_rows(path, self._format):
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
