"""Write the files of a passage store, and what a store is after a change."""

from __future__ import annotations

import hashlib
import json
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
from rag_frozen.corpus.store import ArrowPassageStore
from rag_frozen.corpus.store_files import (
    BATCH,
    DELETED,
    HASHES,
    PASSAGES,
    ROWS,
    SCHEMA,
    ArrowRows,
    RowColumns,
    map_file,
    store_files,
)
from rag_frozen.errors import ArtifactDamagedError, InputError
from rag_frozen.types import Passage

__all__ = ["StoreSummary", "StoreWriter", "write_changed_store", "write_store"]

_ADDED = "passages-{:05d}.arrow"


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
        if len(self._waiting) == BATCH:
            self._flush()

    def next_file(self) -> Path:
        """Return where the file that is being written lies, or will."""
        name = _ADDED.format(self.n_files) if self.n_files else PASSAGES
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
            table = ArrowRows([map_file(path)])
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
    files = store_files(base)
    for file in files:
        link_or_copy(file, folder / file.name)
    content = hashlib.sha256(json.dumps([base_content, sorted(set(deleted))]).encode())
    hashes = _write_rows(folder / _ADDED.format(len(files)), added, content)
    old_hashes, old_rows = np.load(base / HASHES), np.load(base / ROWS).astype(np.int64)
    kept = ~np.isin(old_rows, gone, assume_unique=True)
    rows = np.concatenate([old_rows[kept], store.n_rows + np.arange(len(hashes))])
    whole = np.concatenate([old_hashes[kept], hashes])
    order = np.argsort(whole, kind="stable")
    _refuse_repeated(folder, whole[order], rows[order])
    _write_table(folder, whole[order], rows[order])
    if len(gone):
        np.save(folder / DELETED, gone, allow_pickle=False)
    ids_digest = hashlib.sha256()
    for ids in ArrowPassageStore(folder).iter_ids():
        update_ids_digest(ids_digest, ids)
    return StoreSummary(len(rows), ids_digest.hexdigest(), content.hexdigest())


class _RowsFile:
    """One Arrow file in the making; all its batches but the last must be full."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, SCHEMA)

    def write(self, batch: Sequence[Passage]) -> None:
        """Write one batch."""
        columns = [[p.id for p in batch], [p.title for p in batch], [p.text for p in batch]]
        arrays = [pa.array(column, pa.string()) for column in columns]
        self._writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))

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
    np.save(folder / HASHES, hashes, allow_pickle=False)
    largest = int(rows.max(initial=0))
    np.save(folder / ROWS, rows.astype(np.uint32 if largest < 2**32 else np.uint64))


def _refuse_repeated(folder: Path, hashes: npt.NDArray[np.uint64], rows: npt.NDArray[Any]) -> None:
    """Rows of one hash stand side by side in ``hashes``; compare their ids."""
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    if not len(same):
        return
    columns = RowColumns(ArrowRows([map_file(file) for file in store_files(folder)]))
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
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
