"""The files of a passage store, and how their rows are found: Arrow files that are read as one."""

from __future__ import annotations

import bisect
import itertools
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from rag_frozen.types import Passage

__all__ = [
    "BATCH",
    "DELETED",
    "HASHES",
    "PASSAGES",
    "ROWS",
    "SCHEMA",
    "ArrowRows",
    "RowColumns",
    "map_file",
    "store_files",
]

PASSAGES = "passages.arrow"
"""The first file; the others are ``passages-00001.arrow`` and so on."""
DELETED = "deleted-rows.npy"
HASHES = "id-hashes.npy"
ROWS = "id-rows.npy"
SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
BATCH = 4_096
"""Rows of each batch of a file but its last."""


def store_files(folder: Path) -> list[Path]:
    """The Arrow files of a store in their order."""
    return [folder / PASSAGES, *sorted(folder.glob("passages-*.arrow"))]


class ArrowRows:
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
        return (file, *divmod(row - self._starts[file], BATCH))

    def batch(self, file: int, number: int) -> pa.RecordBatch:
        """One batch of a file."""
        return self._readers[file].get_batch(number)

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (first row, batch) of all files in order."""
        for reader, start in zip(self._readers, self._starts, strict=False):
            for number in range(reader.num_record_batches):
                yield start + number * BATCH, reader.get_batch(number)


def _rows_in(reader: pa.RecordBatchFileReader) -> int:
    """All batches but the last are full."""
    n_batches = reader.num_record_batches
    return (n_batches - 1) * BATCH + reader.get_batch(n_batches - 1).num_rows if n_batches else 0


class RowColumns(dict[tuple[int, int], tuple[pa.Array, ...]]):
    """The columns of the batches that one call touches, each looked up once."""

    def __init__(self, table: ArrowRows) -> None:
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


def map_file(path: Path) -> mmap.mmap:
    with path.open("rb") as handle:
        return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
