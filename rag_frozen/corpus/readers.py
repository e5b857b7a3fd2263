"""Passages from files: JSON lines and DPR's TSV, plain or gzipped, with a report of bad rows.

A bad row is counted and reported with file and line, never silently dropped; ``strict`` makes it
an error.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rag_frozen.corpus.files import PassageFormat, Sources, expand_sources, file_rows
from rag_frozen.corpus.ids import SeenIds
from rag_frozen.corpus.rows import Row, RowFault
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
        [(str(path), partial(file_rows, path, format)) for path in expand_sources(sources)],
        strict=strict,
        max_problems=max_problems,
    )


class PassageReader(Iterator[Passage]):
    """Iterates over the passages of files or other sources of rows; ``report`` tells what has been
    read so far."""

    def __init__(
        self,
        sources: Sequence[tuple[str, Callable[[], Iterable[Row]]]],
        *,
        strict: bool = False,
        max_problems: int = 20,
        unit: str = "rows",
        place: str = "line",
    ) -> None:
        """Name the sources and how each is opened; ``unit`` is what a source has many of, ``place``
        what their numbers count."""
        self._sources = tuple(sources)
        self._strict = strict
        self._max_problems = max_problems
        self._unit = unit
        self._place = place
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
            unit=self._unit,
        )

    @property
    def share(self) -> float | None:
        """How many of the sources have been read, as a share of all; None where there is one."""
        if len(self._sources) < 2:
            return None
        return max(len(self._begun) - 0.5, 0.0) / len(self._sources)

    def _read(self) -> Iterator[Passage]:
        seen = SeenIds()
        for name, rows in self._sources:
            self._begun.append(name)
            block: list[Row] = []
            for entry in rows():
                block.append(entry)
                if len(block) == _BLOCK:
                    yield from self._keep(name, block, seen)
                    block = []
            yield from self._keep(name, block, seen)
        if self._reasons:
            _log.warning("%s. First: %s", self.report.summary(), self._problems[:1] or "not kept")

    def _keep(self, name: str, block: list[Row], seen: SeenIds) -> Iterator[Passage]:
        new = iter(seen.add([row.id for _, row in block if isinstance(row, Passage)]))
        for line, row in block:
            if isinstance(row, RowFault):
                self._note(name, line, row)
            elif not next(new):
                fault = RowFault("duplicate id", f"the id {row.id!r} was met before")
                self._note(name, line, fault)
            else:
                self._kept += 1
                yield row

    def _note(self, name: str, line: int, fault: RowFault) -> None:
        problem = ReadProblem(name, line, fault.reason, fault.detail, self._place)
        if self._strict:
            raise DataFormatError(f"{problem}. Correct the row, or read without strict.")
        self._reasons[fault.reason] += 1
        if len(self._problems) < self._max_problems:
            self._problems.append(problem)
