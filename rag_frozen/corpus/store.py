"""The passage store: memory-mapped Arrow files, and a memory-mapped table from id to row.

Opening reads headers only; a lookup touches the pages that hold the answer, and every few
lookups all pages are handed back to the system's cache. So neither the time to open nor the
resident memory grows with the corpus.

A large corpus stands in several files that are read as one. A corpus that was changed shares the
files of the one before it: added passages stand in a file of their own after them, and the rows of
deleted ones are listed and left out of the table.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rag_frozen.artifacts import link_or_copy
from rag_frozen.corpus.ids import hash_ids, update_ids_digest
from rag_frozen.errors import ArtifactDamagedError, InputError, UnknownPassageError
from rag_frozen.types import Passage

__all__ = [
    "ArrowPassageStore",
    "StoreSummary",
    "StoreWriter",
    "write_changed_store",
    "write_store",
]

_PASSAGES = "passages.arrow"
_ADDED = "passages-{:05d}.arrow"
_DELETED = "deleted-rows.npy"
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
    with StoreWriter(folder) as writer:
        for passage in passages:
            writer.add(passage)
        return writer.finish()


class StoreWriter:
    """Writes the files of a store one after another, then the table from id to row.

    A file that is ended is never touched again, so that it can be kept for a build that goes on
    later and takes it in with :meth:`adopt`. Use it in a ``with`` block, which closes a file that
    was given up.
    """

    def __init__(self, folder: Path) -> None:
        """Name the folder, which must be there."""
        self._folder = folder
        self._ids, self._content = hashlib.sha256(), hashlib.sha256()
        self._hashes = [np.empty(0, dtype=np.uint64)]
        self._waiting: list[Passage] = []
        self._rows: _RowsFile | None = None
        self.n_files = 0
        self.n_passages = 0
        self.n_in_file = 0

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rows is not None:
            self._rows.give_up()

    def add(self, passage: Passage) -> None:
        """Write a passage after the others; memory holds one batch."""
        self._waiting.append(passage)
        self.n_passages += 1
        self.n_in_file += 1
        if len(self._waiting) == _BATCH:
            self._flush()

    def next_file(self) -> Path:
        """Return where the file that is being written lies, or will."""
        name = _ADDED.format(self.n_files) if self.n_files else _PASSAGES
        return self._folder / name

    def end_file(self) -> Path:
        """End a file and return it; the next passage begins another."""
        path = self.next_file()
        self._flush()
        (self._rows or _RowsFile(path)).close()
        self._rows = None
        self.n_files += 1
        self.n_in_file = 0
        return path

    def adopt(self) -> None:
        """Take in a file that stands at ``next_file()`` already.

        Raises:
            ArtifactDamagedError: when it cannot be read.
        """
        path = self.next_file()
        try:
            table = _Table([_map(path)])
            for _, batch in table.batches():
                columns = [column.to_pylist() for column in batch.columns]
                self._digest([Passage(*row) for row in zip(*columns, strict=True)])
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ArtifactDamagedError(f"{path} cannot be read: {error}. Remove it.") from error
        self.n_passages += table.n_rows
        self.n_files += 1

    def finish(self) -> StoreSummary:
        """End the last file and write the table.

        Raises:
            InputError: when two passages have one id.
        """
        if self.n_in_file or not self.n_files:
            self.end_file()
        hashes = np.concatenate(self._hashes)
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        _refuse_repeated(self._folder, ordered, order)
        _write_table(self._folder, ordered, order)
        return StoreSummary(len(order), self._ids.hexdigest(), self._content.hexdigest())

    def _flush(self) -> None:
        if not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        self._rows = self._rows or _RowsFile(self.next_file())
        self._rows.write(batch)
        self._digest(batch)

    def _digest(self, batch: Sequence[Passage]) -> None:
        ids = [passage.id for passage in batch]
        self._hashes.append(hash_ids(ids))
        update_ids_digest(self._ids, ids)
        _update_content(self._content, batch)


def write_changed_store(
    folder: Path, base: Path, *, added: Iterable[Passage], deleted: Sequence[str], base_content: str
) -> StoreSummary:
    """Write what a store is after a change into an existing folder, sharing the base's files.

    An id that is deleted and added is replaced. Passages keep their order; added ones come last.

    Args:
        folder: of the new store.
        base: of the store that is changed; it stays as it is.
        added: passages whose ids are new, or deleted here.
        deleted: ids of the base.
        base_content: the base's content digest.

    Raises:
        UnknownPassageError: when the base does not hold an id that is to be deleted.
        InputError: when an added id is there already.
    """
    store = ArrowPassageStore(base)
    gone = np.unique(np.array([*store.deleted_rows, *store.rows_of(deleted)], dtype=np.int64))
    files = sorted(base.glob("passages*.arrow"))
    for file in files:
        link_or_copy(file, folder / file.name)
    content = hashlib.sha256(json.dumps([base_content, sorted(set(deleted))]).encode())
    hashes = _write_rows(folder / _ADDED.format(len(files)), added, content)
    old_hashes, old_rows = np.load(base / _HASHES), np.load(base / _ROWS).astype(np.int64)
    kept = ~np.isin(old_rows, gone, assume_unique=True)
    rows = np.concatenate([old_rows[kept], store.n_rows + np.arange(len(hashes))])
    whole = np.concatenate([old_hashes[kept], hashes])
    order = np.argsort(whole, kind="stable")
    _refuse_repeated(folder, whole[order], rows[order])
    _write_table(folder, whole[order], rows[order])
    if len(gone):
        np.save(folder / _DELETED, gone, allow_pickle=False)
    ids_digest = hashlib.sha256()
    for ids in ArrowPassageStore(folder).iter_ids():
        update_ids_digest(ids_digest, ids)
    return StoreSummary(len(rows), ids_digest.hexdigest(), content.hexdigest())


class _RowsFile:
    """One Arrow file in the making; all its batches but the last must be full."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, _SCHEMA)

    def write(self, batch: Sequence[Passage]) -> None:
        """Write one batch."""
        columns = [[p.id for p in batch], [p.title for p in batch], [p.text for p in batch]]
        arrays = [pa.array(column, pa.string()) for column in columns]
        self._writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))

    def close(self) -> None:
        """Write the end of the file and close it."""
        self._writer.close()
        self._sink.close()

    def give_up(self) -> None:
        """Close a file that nobody wants."""
        with suppress(OSError, pa.ArrowException):  # a full disk refuses even an ending
            self._writer.close()
        with suppress(OSError, pa.ArrowException):
            self._sink.close()


def _write_rows(
    path: Path, passages: Iterable[Passage], content: hashlib._Hash
) -> npt.NDArray[np.uint64]:
    """Write one Arrow file; bring the digest up to date and return the ids' hashes in order."""
    hashes: list[npt.NDArray[np.uint64]] = [np.empty(0, dtype=np.uint64)]
    rows = _RowsFile(path)
    for batch in _batches(passages):
        rows.write(batch)
        hashes.append(hash_ids([passage.id for passage in batch]))
        _update_content(content, batch)
    rows.close()
    return np.concatenate(hashes)


def _update_content(digest: hashlib._Hash, passages: Sequence[Passage]) -> None:
    for passage in passages:
        row = f"{passage.id}\0{passage.title}\0{passage.text}\0"
        digest.update(row.encode("utf-8", "surrogatepass"))


def _write_table(folder: Path, hashes: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64]) -> None:
    np.save(folder / _HASHES, hashes, allow_pickle=False)
    largest = int(rows.max(initial=0))
    np.save(folder / _ROWS, rows.astype(np.uint32 if largest < 2**32 else np.uint64))


class ArrowPassageStore:
    """Passages by id or by row. Implements ``protocols.PassageStore``."""

    def __init__(self, folder: str | Path) -> None:
        """Open what :func:`write_store` or :func:`write_changed_store` wrote.

        Raises:
            ArtifactDamagedError: when a file is missing, truncated, or the counts differ.
        """
        folder = Path(folder)
        try:
            files = sorted(folder.glob("passages-*.arrow"))
            self._mapped = [_map(path) for path in (folder / _PASSAGES, *files)]
            self._table = _Table(self._mapped)
            self._hashes = np.load(folder / _HASHES, mmap_mode="r", allow_pickle=False)
            self._rows = np.load(folder / _ROWS, mmap_mode="r", allow_pickle=False)
            self._deleted = np.empty(0, dtype=np.int64)
            if (folder / _DELETED).exists():
                self._deleted = np.load(folder / _DELETED, allow_pickle=False)
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise ArtifactDamagedError(
                f"The corpus in {folder} cannot be opened: {error}. Remove it and build it again "
                "with: rag-frozen corpus build FILE"
            ) from error
        self._touched = 0
        live = self.n_rows - len(self._deleted)
        if not len(self._hashes) == len(self._rows) == live:
            raise ArtifactDamagedError(
                f"The corpus in {folder} holds {live:,} passages and {len(self._hashes):,} "
                "ids. Remove it and build it again with: rag-frozen corpus build FILE"
            )

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def n_rows(self) -> int:
        """Rows that were ever written, those of deleted passages included."""
        return self._table.n_rows

    @property
    def deleted_rows(self) -> npt.NDArray[np.int64]:
        """Rows whose passages were deleted, ascending."""
        return self._deleted

    def get(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Return passages in the order asked.

        Raises:
            UnknownPassageError: naming some of the ids that the corpus does not hold.
        """
        columns = _Columns(self._table)
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
        return [row >= 0 for row in self._find(passage_ids, _Columns(self._table))]

    def rows_of(self, passage_ids: Sequence[str]) -> list[int]:
        """Return the rows of passages, in the order asked.

        Raises:
            UnknownPassageError: naming some of the ids that the corpus does not hold.
        """
        rows = self._find(passage_ids, _Columns(self._table))
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
        found = _Columns(self._table).passage(row)
        self._release(1)
        return found

    def iter_passages(self, batch_size: int = _BATCH) -> Iterator[list[Passage]]:
        """Yield all passages in order, in lists of ``batch_size``."""
        pending: list[Passage] = []
        for start, batch in self._table.batches():
            columns = [column.to_pylist() for column in batch.columns]
            alive = self._alive(start, batch.num_rows)
            rows = zip(*columns, strict=True)
            pending += [Passage(*row) for row, there in zip(rows, alive, strict=True) if there]
            self._release(_BATCH)
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
            self._release(_BATCH)

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
        for mapped in (*self._mapped, self._hashes.base, self._rows.base):
            if isinstance(mapped, mmap.mmap):
                mapped.madvise(mmap.MADV_DONTNEED)


class _Table:
    """Arrow files read as one: rows count on from file to file."""

    def __init__(self, mapped: Sequence[mmap.mmap]) -> None:
        self._readers = [pa.ipc.open_file(pa.BufferReader(pa.py_buffer(m))) for m in mapped]
        sizes = [_rows_in(reader) for reader in self._readers]
        self._starts = [0, *itertools.accumulate(sizes)]

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return self._starts[-1]

    def locate(self, row: int) -> tuple[int, int, int]:
        """File, batch and place in the batch of a row."""
        file = bisect.bisect_right(self._starts, row) - 1
        return (file, *divmod(row - self._starts[file], _BATCH))

    def batch(self, file: int, number: int) -> pa.RecordBatch:
        """One batch of a file."""
        return self._readers[file].get_batch(number)

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (first row, batch) of all files in order."""
        for reader, start in zip(self._readers, self._starts, strict=False):
            for number in range(reader.num_record_batches):
                yield start + number * _BATCH, reader.get_batch(number)


def _rows_in(reader: pa.RecordBatchFileReader) -> int:
    """All batches but the last are full."""
    n_batches = reader.num_record_batches
    return (n_batches - 1) * _BATCH + reader.get_batch(n_batches - 1).num_rows if n_batches else 0


class _Columns(dict[tuple[int, int], tuple[pa.Array, ...]]):
    """The columns of the batches that one call touches, each looked up once."""

    def __init__(self, table: _Table) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, key: tuple[int, int]) -> tuple[pa.Array, ...]:
        self[key] = tuple(self._table.batch(*key).columns)
        return self[key]

    def id(self, row: int) -> str:
        """The id of a row."""
        file, batch, place = self._table.locate(row)
        return str(self[file, batch][0][place].as_py())

    def passage(self, row: int) -> Passage:
        """The passage of a row."""
        file, batch, place = self._table.locate(row)
        return Passage(*(column[place].as_py() for column in self[file, batch]))


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as handle:
        return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)


def _refuse_repeated(folder: Path, hashes: npt.NDArray[np.uint64], rows: npt.NDArray[Any]) -> None:
    """Rows of one hash stand side by side in ``hashes``; compare their ids."""
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    if not len(same):
        return
    files = (folder / _PASSAGES, *sorted(folder.glob("passages-*.arrow")))
    columns = _Columns(_Table([_map(file) for file in files]))
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
