"""The passage store: one memory-mapped Arrow file, and a memory-mapped table from id to row.

Opening reads headers only; a lookup touches the pages that hold the answer, and every few
lookups all pages are handed back to the system's cache. So neither the time to open nor the
resident memory grows with the corpus.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rag_frozen.corpus.ids import hash_ids, update_ids_digest
from rag_frozen.errors import ArtifactDamagedError, InputError, UnknownPassageError
from rag_frozen.types import Passage

__all__ = ["ArrowPassageStore", "StoreSummary", "write_store"]

_PASSAGES = "passages.arrow"
_HASHES = "id-hashes.npy"
_ROWS = "id-rows.npy"
_SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
_BATCH = 4_096
_NAMED_AT_MOST = 5
_RELEASE_EVERY = 32
"""Passages looked up before pages are handed back. Linux maps up to 1 MiB around a touched page, so
this bounds what stays resident to some tens of MiB; it costs about 10 µs a lookup."""


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """What was written: number of passages, SHA-256 over ids in order, and over all contents."""

    n_passages: int
    ids_digest: str
    content_digest: str


def write_store(folder: Path, passages: Iterable[Passage]) -> StoreSummary:
    """Write passages into an existing folder, in order; their ids must be unique.

    Memory is bounded: beside one batch, some 32 bytes a passage are held at most.

    Raises:
        InputError: when two passages have one id.
    """
    ids_digest, content = hashlib.sha256(), hashlib.sha256()
    hashes: list[np.ndarray] = []
    count = 0
    with (
        pa.OSFile(str(folder / _PASSAGES), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
    ):
        for batch in _batches(passages):
            ids = [passage.id for passage in batch]
            columns = [ids, [p.title for p in batch], [p.text for p in batch]]
            arrays = [pa.array(column, pa.string()) for column in columns]
            writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
            hashes.append(hash_ids(ids))
            update_ids_digest(ids_digest, ids)
            for passage in batch:
                row = f"{passage.id}\0{passage.title}\0{passage.text}\0"
                content.update(row.encode("utf-8", "surrogatepass"))
            count += len(batch)
    whole = np.concatenate(hashes) if hashes else np.empty(0, dtype=np.uint64)
    order = np.argsort(whole, kind="stable")
    ordered = whole[order]
    _refuse_repeated(folder, ordered, order)
    np.save(folder / _HASHES, ordered, allow_pickle=False)
    np.save(folder / _ROWS, order.astype(np.uint32 if count < 2**32 else np.uint64))
    return StoreSummary(count, ids_digest.hexdigest(), content.hexdigest())


class ArrowPassageStore:
    """Passages by id or by row. Implements ``protocols.PassageStore``."""

    def __init__(self, folder: str | Path) -> None:
        """Open what :func:`write_store` wrote.

        Raises:
            ArtifactDamagedError: when a file is missing, truncated, or the counts differ.
        """
        folder = Path(folder)
        try:
            self._mapped = _map(folder / _PASSAGES)
            self._reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._mapped)))
            self._hashes = np.load(folder / _HASHES, mmap_mode="r", allow_pickle=False)
            self._rows = np.load(folder / _ROWS, mmap_mode="r", allow_pickle=False)
            n_batches = self._reader.num_record_batches
            last = self._reader.get_batch(n_batches - 1).num_rows if n_batches else 0
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise ArtifactDamagedError(
                f"The corpus in {folder} cannot be opened: {error}. Remove it and build it again "
                "with: rag-frozen corpus build FILE"
            ) from error
        self._n = max(n_batches - 1, 0) * _BATCH + last
        self._touched = 0
        if not len(self._hashes) == len(self._rows) == self._n:
            raise ArtifactDamagedError(
                f"The corpus in {folder} holds {self._n:,} passages and {len(self._hashes):,} "
                "ids. Remove it and build it again with: rag-frozen corpus build FILE"
            )

    def __len__(self) -> int:
        return int(self._n)

    def get(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Return passages in the order asked.

        Raises:
            UnknownPassageError: naming some of the ids that the corpus does not hold.
        """
        columns = _Columns(self._reader)
        found: list[Passage] = []
        missing: list[str] = []
        for start in range(0, len(passage_ids), _RELEASE_EVERY):
            wanted = passage_ids[start : start + _RELEASE_EVERY]
            rows = self._find(wanted, columns)
            found += [columns.passage(row) for row in rows if row >= 0]
            missing += [one for one, row in zip(wanted, rows, strict=True) if row < 0]
            self._release(len(wanted))
        if missing:
            named = ", ".join(repr(one) for one in missing[:_NAMED_AT_MOST])
            unnamed = len(missing) - _NAMED_AT_MOST
            more = f" and {unnamed} more" if unnamed > 0 else ""
            raise UnknownPassageError(
                f"The corpus of {len(self):,} passages holds no {named}{more}. The ids come from "
                "another corpus: use the one that the run or the index was made over."
            )
        return found

    def row(self, row: int) -> Passage:
        """Return the passage of a row, from 0.

        Raises:
            IndexError: when there is no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        found = _Columns(self._reader).passage(row)
        self._release(1)
        return found

    def iter_passages(self, batch_size: int = _BATCH) -> Iterator[list[Passage]]:
        """Yield all passages in order, in lists of ``batch_size``."""
        pending: list[Passage] = []
        for number in range(self._reader.num_record_batches):
            columns = [column.to_pylist() for column in self._reader.get_batch(number).columns]
            pending += [Passage(*row) for row in zip(*columns, strict=True)]
            self._release(_BATCH)
            while len(pending) >= batch_size:
                yield pending[:batch_size]
                pending = pending[batch_size:]
        if pending:
            yield pending

    def _find(self, passage_ids: Sequence[str], columns: _Columns) -> list[int]:
        """Row of each id, -1 where there is none."""
        if not passage_ids or not len(self):
            return [-1] * len(passage_ids)
        wanted = hash_ids(passage_ids)
        places = np.searchsorted(self._hashes, wanted)
        return [
            self._match(one, int(place), int(mark), columns)
            for one, place, mark in zip(passage_ids, places, wanted, strict=True)
        ]

    def _match(self, passage_id: str, place: int, mark: int, columns: _Columns) -> int:
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
        for mapped in (self._mapped, self._hashes.base, self._rows.base):
            if isinstance(mapped, mmap.mmap):
                mapped.madvise(mmap.MADV_DONTNEED)


class _Columns(dict[int, tuple[pa.Array, ...]]):
    """The columns of the batches that one call touches, each looked up once."""

    def __init__(self, reader: pa.RecordBatchFileReader) -> None:
        super().__init__()
        self._reader = reader

    def __missing__(self, batch: int) -> tuple[pa.Array, ...]:
        self[batch] = tuple(self._reader.get_batch(batch).columns)
        return self[batch]

    def id(self, row: int) -> str:
        """The id of a row."""
        batch, place = divmod(row, _BATCH)
        return str(self[batch][0][place].as_py())

    def passage(self, row: int) -> Passage:
        """The passage of a row."""
        batch, place = divmod(row, _BATCH)
        return Passage(*(column[place].as_py() for column in self[batch]))


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as handle:
        return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)


def _refuse_repeated(folder: Path, hashes: npt.NDArray[np.uint64], rows: npt.NDArray[Any]) -> None:
    """Rows of one hash stand side by side in ``hashes``; compare their ids."""
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    if not len(same):
        return
    with pa.memory_map(str(folder / _PASSAGES)) as source:
        columns = _Columns(pa.ipc.open_file(source))
        seen: dict[str, int] = {}
        for row in sorted({int(rows[at]) for at in (*same, *(same + 1))}):
            passage_id = columns.id(row)
            if passage_id in seen:
                raise InputError(
                    f"The passages {seen[passage_id]:,} and {row:,} (from 0) have one id: "
                    f"{passage_id!r}. Give each its own."
                )
            seen[passage_id] = row


def _batches(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    batch: list[Passage] = []
    for passage in passages:
        batch.append(passage)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
