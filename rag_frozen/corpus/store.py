"""The passage store: memory-mapped Arrow files, and a memory-mapped table from id to row.

Opening reads headers only; a lookup touches the pages that hold the answer, and every few
lookups all pages are handed back to the system's cache. So neither the time to open nor the
resident memory grows with the corpus.

A large corpus stands in several files that are read as one. A corpus that was changed shares the
files of the one before it: added passages stand in a file of their own after them, and the rows of
deleted ones are listed and left out of the table.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rag_frozen.corpus.ids import hash_ids
from rag_frozen.corpus.store_files import (
    BATCH,
    DELETED,
    HASHES,
    ROWS,
    ArrowRows,
    RowColumns,
    map_file,
    store_files,
)
from rag_frozen.errors import ArtifactDamagedError, UnknownPassageError
from rag_frozen.types import Passage

__all__ = ["ArrowPassageStore"]

_BUILD = "rag-frozen corpus build FILE, or rag-frozen index build RECIPE"
_NAMED_AT_MOST = 5
_RELEASE_EVERY = 32
"""Passages looked up before pages are handed back. Linux maps up to 1 MiB around a touched page, so
this bounds what stays resident to some tens of MiB; it costs about 10 µs a lookup."""


class ArrowPassageStore:
    """Passages by id or by row. Implements ``protocols.PassageStore``."""

    def __init__(self, folder: str | Path) -> None:
        """Open what ``corpus.store_writing`` wrote.

        Raises:
            ArtifactDamagedError: when a file is missing, truncated, or the counts differ.
        """
        folder = Path(folder)
        try:
            self._mapped = [map_file(path) for path in store_files(folder)]
            self._table = ArrowRows(self._mapped)
            self._hashes = np.load(folder / HASHES, mmap_mode="r", allow_pickle=False)
            self._rows = np.load(folder / ROWS, mmap_mode="r", allow_pickle=False)
            self._deleted = np.empty(0, dtype=np.int64)
            if (folder / DELETED).exists():
                self._deleted = np.load(folder / DELETED, allow_pickle=False)
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise ArtifactDamagedError(
                f"The corpus in {folder} cannot be opened: {error}. Remove it and build it again "
                f"with: {_BUILD}"
            ) from error
        self._touched = 0
        live = self.n_rows - len(self._deleted)
        if not len(self._hashes) == len(self._rows) == live:
            raise ArtifactDamagedError(
                f"The corpus in {folder} holds {live:,} passages and {len(self._hashes):,} "
                f"ids. Remove it and build it again with: {_BUILD}"
            )

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def n_rows(self) -> int:
        """Rows that were ever written, those of deleted passages included."""
        return self._table.n_rows

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows as they are stored: ids, titles and texts, not compressed."""
        return sum(len(mapped) for mapped in self._mapped)

    @property
    def deleted_rows(self) -> npt.NDArray[np.int64]:
        """Rows whose passages were deleted, ascending."""
        return self._deleted

    def get(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Return passages in the order asked.

        Raises:
            UnknownPassageError: naming some of the ids that the corpus does not hold.
        """
        columns = RowColumns(self._table)
        found: list[Passage] = []
        missing: list[str] = []
        for start in range(0, len(passage_ids), _RELEASE_EVERY):
            wanted = passage_ids[start : start + _RELEASE_EVERY]
            rows = self._find(wanted, columns)
            found += [columns.passage(row) for row in rows if row >= 0]
            missing += [one for one, row in zip(wanted, rows, strict=True) if row < 0]
            self._release(len(wanted))
        self._refuse_missing(missing)
        return found

    def holds(self, passage_ids: Sequence[str]) -> list[bool]:
        """Tell of each id whether it is there."""
        return [row >= 0 for row in self._find(passage_ids, RowColumns(self._table))]

    def rows_of(self, passage_ids: Sequence[str]) -> list[int]:
        """Return the rows of passages, in the order asked.

        Raises:
            UnknownPassageError: naming some of the ids that the corpus does not hold.
        """
        rows = self._find(passage_ids, RowColumns(self._table))
        pairs = zip(passage_ids, rows, strict=True)
        self._refuse_missing([one for one, row in pairs if row < 0])
        return rows

    def row(self, row: int) -> Passage:
        """Return the passage of a row, from 0; a deleted one too.

        Raises:
            IndexError: when there is no such row.
        """
        if not 0 <= row < self.n_rows:
            raise IndexError(f"row {row} of {self.n_rows}")
        found = RowColumns(self._table).passage(row)
        self._release(1)
        return found

    def iter_passages(self, batch_size: int = BATCH) -> Iterator[list[Passage]]:
        """Yield all passages in order, in lists of ``batch_size``."""
        pending: list[Passage] = []
        for start, batch in self._table.batches():
            columns = [column.to_pylist() for column in batch.columns]
            alive = self._alive(start, batch.num_rows)
            rows = zip(*columns, strict=True)
            pending += [Passage(*row) for row, there in zip(rows, alive, strict=True) if there]
            self._release(BATCH)
            while len(pending) >= batch_size:
                yield pending[:batch_size]
                pending = pending[batch_size:]
        if pending:
            yield pending

    def iter_ids(self) -> Iterator[list[str]]:
        """Yield the ids of all passages in order, in lists."""
        for start, batch in self._table.batches():
            ids = batch.column(0).to_pylist()
            alive = self._alive(start, batch.num_rows)
            yield [one for one, there in zip(ids, alive, strict=True) if there]
            self._release(BATCH)

    def _alive(self, start: int, n: int) -> npt.NDArray[np.bool_]:
        alive = np.ones(n, dtype=bool)
        first, last = np.searchsorted(self._deleted, [start, start + n])
        alive[self._deleted[first:last] - start] = False
        return alive

    def _refuse_missing(self, missing: Sequence[str]) -> None:
        if not missing:
            return
        named = ", ".join(repr(one) for one in missing[:_NAMED_AT_MOST])
        unnamed = len(missing) - _NAMED_AT_MOST
        more = f" and {unnamed} more" if unnamed > 0 else ""
        raise UnknownPassageError(
            f"The corpus of {len(self):,} passages holds no {named}{more}. The ids come from "
            "another corpus: use the one that the run or the index was made over."
        )

    def _find(self, passage_ids: Sequence[str], columns: RowColumns) -> list[int]:
        """Row of each id, -1 where there is none."""
        if not passage_ids or not len(self):
            return [-1] * len(passage_ids)
        wanted = hash_ids(passage_ids)
        places = np.searchsorted(self._hashes, wanted)
        return [
            self._match(one, int(place), int(mark), columns)
            for one, place, mark in zip(passage_ids, places, wanted, strict=True)
        ]

    def _match(self, passage_id: str, place: int, mark: int, columns: RowColumns) -> int:
        """Go over the rows of one hash; the id itself decides."""
        while place < len(self) and int(self._hashes[place]) == mark:
            row = int(self._rows[place])
            if columns.id(row) == passage_id:
                return row
            place += 1
        return -1

    def _release(self, touched: int) -> None:
        """Hand the mapped pages back now and then; the system's cache keeps them."""
        self._touched += touched
        if self._touched < _RELEASE_EVERY or not hasattr(mmap, "MADV_DONTNEED"):
            return
        self._touched = 0
        for mapped in (*self._mapped, self._hashes.base, self._rows.base):
            if isinstance(mapped, mmap.mmap):
                mapped.madvise(mmap.MADV_DONTNEED)
