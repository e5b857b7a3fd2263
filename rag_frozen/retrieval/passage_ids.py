"""The ids of an index's rows, memory-mapped: row number -> passage id.

Rows of deleted passages stay in an index and are listed beside the ids; what is found there is
left out, and the retriever looks further.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rag_frozen.corpus.ids import update_ids_digest
from rag_frozen.errors import ArtifactDamagedError, InputError

__all__ = [
    "DELETED_NAME",
    "PassageIds",
    "PassageIdsWriter",
    "check_k",
    "check_questions",
    "write_changed_ids",
    "write_passage_ids",
]

DELETED_NAME = "deleted-rows.npy"

_BATCH = 65_536
_SCHEMA = pa.schema([("id", pa.string())])


def write_passage_ids(path: Path, ids: Iterable[str]) -> tuple[int, str]:
    """Write ids in order as an Arrow file; return their number and the SHA-256 over them."""
    with PassageIdsWriter(path) as writer:
        for passage_id in ids:
            writer.add((passage_id,))
        return writer.finish()


class PassageIdsWriter:
    """Writes ids in order as an Arrow file; memory holds one batch. Use it in a ``with`` block."""

    def __init__(self, path: Path) -> None:
        """Begin the file, in the place of one that is there."""
        self._total, self._count = hashlib.sha256(), 0
        self._batch: list[str] = []
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, _SCHEMA)

    def __enter__(self) -> PassageIdsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, pa.ArrowException):  # a full disk refuses even an ending
            self._writer.close()
        with suppress(OSError, pa.ArrowException):
            self._sink.close()

    def add(self, ids: Sequence[str]) -> None:
        """Write ids after the others."""
        update_ids_digest(self._total, ids)
        self._count += len(ids)
        self._batch += ids
        while len(self._batch) >= _BATCH:
            self._write(self._batch[:_BATCH])
            del self._batch[:_BATCH]

    def finish(self) -> tuple[int, str]:
        """End the file; return the number of ids and the SHA-256 over them."""
        self._write(self._batch)
        self._batch = []
        self._writer.close()
        self._sink.close()
        return self._count, self._total.hexdigest()

    def _write(self, ids: list[str]) -> None:
        batch = pa.record_batch([pa.array(ids, pa.string())], schema=_SCHEMA)
        self._writer.write_batch(batch)


def write_changed_ids(
    folder: Path, base: PassageIds, *, added: Iterable[str], deleted: Iterable[str], name: str
) -> tuple[int, str]:
    """Write the ids of a changed index: those of the base's rows, then the added ones.

    Args:
        folder: of the changed index.
        base: ids of the index that is changed.
        added: in order.
        deleted: of the base; their rows are listed in ``deleted-rows.npy``.
        name: of the file of ids.

    Returns:
        Number of passages that are there, and SHA-256 over their ids in order.
    """
    gone = set(deleted)
    rows: list[int] = []
    total, count = hashlib.sha256(), 0

    def of_base() -> Iterator[str]:
        nonlocal count
        for row, (passage_id, there) in enumerate(base):
            if not there or passage_id in gone:
                rows.append(row)
            else:
                count += 1
                update_ids_digest(total, (passage_id,))
            yield passage_id

    def of_added() -> Iterator[str]:
        nonlocal count
        for passage_id in added:
            count += 1
            update_ids_digest(total, (passage_id,))
            yield passage_id

    write_passage_ids(folder / name, itertools.chain(of_base(), of_added()))
    if rows:
        np.save(folder / DELETED_NAME, np.array(rows, dtype=np.int64), allow_pickle=False)
    return count, total.hexdigest()


class PassageIds:
    """Ids by row number; nothing is read until it is asked for."""

    def __init__(self, path: Path) -> None:
        """Open what :func:`write_passage_ids` wrote, and the deleted rows beside it.

        Raises:
            ArtifactDamagedError: when the file is missing or no Arrow file.
        """
        deleted = path.with_name(DELETED_NAME)
        self._deleted: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        try:
            self._column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("id")
            if deleted.exists():
                self._deleted = np.load(deleted, allow_pickle=False)
        except (OSError, ValueError, pa.ArrowInvalid, KeyError) as error:
            raise ArtifactDamagedError(
                f"The ids in {path} cannot be read: {error}. Build the index again with: "
                "rag-frozen index build RECIPE"
            ) from error

    def __len__(self) -> int:
        """Rows, those of deleted passages included."""
        return len(self._column)

    @property
    def n_passages(self) -> int:
        """Rows whose passages are there."""
        return len(self._column) - len(self._deleted)

    def __iter__(self) -> Iterator[tuple[str, bool]]:
        """Yield each row's id, and whether its passage is there."""
        place = 0
        for start in range(0, len(self._column), _BATCH):
            for row, passage_id in enumerate(
                self._column[start : start + _BATCH].to_pylist(), start
            ):
                gone = place < len(self._deleted) and int(self._deleted[place]) == row
                place += gone
                yield str(passage_id), not gone

    def take(self, rows: Sequence[int]) -> list[str]:
        """Return the ids of the rows, in the order asked."""
        return [str(self._column[row]) for row in rows]

    def alive(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell of each row whether its passage is there: ``[n]``."""
        asked = np.asarray(rows, dtype=np.int64)
        if not len(self._deleted) or not len(asked):
            return np.ones(len(asked), dtype=bool)
        places = np.minimum(np.searchsorted(self._deleted, asked), len(self._deleted) - 1)
        found: npt.NDArray[np.bool_] = self._deleted[places] != asked
        return found


def check_k(k: int) -> None:
    """Raise ``InputError`` for k below 1."""
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}: so many passages are retrieved.")


def check_questions(texts: Iterable[str]) -> None:
    """Raise ``InputError`` for a question without text."""
    if any(not text.strip() for text in texts):
        raise InputError("A question is empty. Ask something in words.")
