"""Passages from files: JSON lines and DPR's TSV, plain or gzipped, with a report of bad rows.

A bad row is counted and reported with file and line, never silently dropped; ``strict`` makes it
an error.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rag_frozen.corpus.files import PassageFormat, Sources, expand_sources, file_rows
from rag_frozen.corpus.ids import SeenIds
from rag_frozen.corpus.rows import Row, RowFault
from rag_frozen.corpus.unfinished import file_marks
from rag_frozen.errors import DataFormatError
from rag_frozen.types import Passage

__all__ = [
    "PassageFormat",
    "PassageReader",
    "ReadProblem",
    "ReadReport",
    "RowOpener",
    "SavedReading",
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


@dataclass(frozen=True, slots=True)
class SavedReading:
    """Where reading stood: ``state`` in JSON values, and ``files`` of what was gathered since it
    was saved before. All that were saved, in order, are needed to go on."""

    state: Mapping[str, Any]  # Any: JSON values
    files: tuple[Path, ...] = ()


class RowOpener(Protocol):
    """Opens a source of rows."""

    def __call__(self, *, after: int = 0) -> Iterable[Row]:
        """Rows whose numbers are greater than ``after``; the others are passed over cheaply."""


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
    files = expand_sources(sources)
    return PassageReader(
        [(str(path), partial(file_rows, path, format)) for path in files],
        strict=strict,
        max_problems=max_problems,
        identity=lambda: {"files": file_marks(files), "format": format},
    )


class PassageReader(Iterator[Passage]):
    """Iterates over the passages of files or other sources of rows; ``report`` tells what has been
    read so far."""

    def __init__(
        self,
        sources: Sequence[tuple[str, RowOpener]],
        *,
        strict: bool = False,
        max_problems: int = 20,
        unit: str = "rows",
        place: str = "line",
        identity: Callable[[], Mapping[str, Any] | None] = lambda: None,  # Any: JSON values
    ) -> None:
        """Name the sources and how each is opened; ``unit`` is what a source has many of, ``place``
        what their numbers count, ``identity`` tells what is read, see ``CorpusSource``."""
        self._sources = tuple(sources)
        self._strict = strict
        self._max_problems = max_problems
        self._unit = unit
        self._place = place
        self._kept = 0
        self._reasons: Counter[str] = Counter()
        self._problems: list[ReadProblem] = []
        self._begun: list[str] = []
        self._identity = identity
        self._seen = SeenIds()
        self._place_reached = (0, 0)  # source, and number of the last row read of it
        self._n_saved = 0
        self._passages = chain.from_iterable(self.blocks())

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
    def identity(self) -> dict[str, Any] | None:  # Any: JSON values
        """What is read and how; None where that cannot be told."""
        found = self._identity()
        if found is None:
            return None
        return {**found, "strict": self._strict, "problems": self._max_problems}

    @property
    def share(self) -> float | None:
        """How many of the sources have been read, as a share of all; None where there is one."""
        if len(self._sources) < 2:
            return None
        return max(len(self._begun) - 0.5, 0.0) / len(self._sources)

    def blocks(self, saved: Sequence[SavedReading] = ()) -> Iterator[Iterator[Passage]]:
        """Yield the passages of about a thousand rows each, to be read to the end one after
        another; with ``saved``, those after the last of them."""
        if saved:
            self._restore(saved)
        first, after = self._place_reached
        for number in range(first, len(self._sources)):
            name, rows = self._sources[number]
            self._begun.append(name)
            block: list[Row] = []
            for entry in rows(after=after):
                block.append(entry)
                if len(block) == _BLOCK:
                    yield self._keep(name, block, (number, entry[0]))
                    block = []
            yield self._keep(name, block, (number + 1, 0))
            after = 0
        if self._reasons:
            _log.warning("%s. First: %s", self.report.summary(), self._problems[:1] or "not kept")

    def save(self, work: Path) -> SavedReading:
        """Tell how to go on after the blocks read so far; ids go to a hidden file of ``work``."""
        path = work / f".seen-{self._n_saved:05d}.npy"
        np.save(path, self._seen.take_recent(), allow_pickle=False)
        self._n_saved += 1
        state = {
            "reached": self._place_reached,
            "kept": self._kept,
            "reasons": list(self._reasons.items()),
            "problems": [asdict(problem) for problem in self._problems],
        }
        return SavedReading(state, (path,))

    def _restore(self, saved: Sequence[SavedReading]) -> None:
        for reading in saved:
            for path in reading.files:
                self._seen.restore(np.load(path, allow_pickle=False))
        state = saved[-1].state
        first, after = state["reached"]
        self._place_reached = (int(first), int(after))
        self._begun = [name for name, _ in self._sources[:first]]
        self._kept = int(state["kept"])
        self._reasons = Counter(dict(state["reasons"]))
        self._problems = [ReadProblem(**problem) for problem in state["problems"]]
        self._n_saved = len(saved)

    def _keep(self, name: str, block: list[Row], reached: tuple[int, int]) -> Iterator[Passage]:
        new = iter(self._seen.add([row.id for _, row in block if isinstance(row, Passage)]))
        for line, row in block:
            if isinstance(row, RowFault):
                self._note(name, line, row)
            elif not next(new):
                fault = RowFault("duplicate id", f"the id {row.id!r} was met before")
                self._note(name, line, fault)
            else:
                self._kept += 1
                yield row
        self._place_reached = reached

    def _note(self, name: str, line: int, fault: RowFault) -> None:
        problem = ReadProblem(name, line, fault.reason, fault.detail, self._place)
        if self._strict:
            raise DataFormatError(f"{problem}. Correct or remove that row.")
        self._reasons[fault.reason] += 1
        if len(self._problems) < self._max_problems:
            self._problems.append(problem)
