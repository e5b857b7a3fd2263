"""The ids of an index's rows, memory-mapped: row number -> passage id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from rag_frozen.corpus.ids import update_ids_digest
from rag_frozen.errors import ArtifactDamagedError, InputError

__all__ = ["PassageIds", "check_k", "check_questions", "write_passage_ids"]

_BATCH = 65_536


def write_passage_ids(path: Path, ids: Iterable[str]) -> tuple[int, str]:
    """Write ids in order as an Arrow file; return their number and the SHA-256 over them."""
    schema = pa.schema([("id", pa.string())])
    total, count = hashlib.sha256(), 0
    batch: list[str] = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for passage_id in ids:
            update_ids_digest(total, (passage_id,))
            count += 1
            batch.append(passage_id)
            if len(batch) == _BATCH:
                writer.write_batch(pa.record_batch([pa.array(batch, pa.string())], schema=schema))
                batch = []
        writer.write_batch(pa.record_batch([pa.array(batch, pa.string())], schema=schema))
    return count, total.hexdigest()


class PassageIds:
    """Ids by row number; nothing is read until it is asked for."""

    def __init__(self, path: Path) -> None:
        """Open what :func:`write_passage_ids` wrote.

        Raises:
            ArtifactDamagedError: when the file is missing or no Arrow file.
        """
        try:
            self._column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("id")
        except (OSError, pa.ArrowInvalid, KeyError) as error:
            raise ArtifactDamagedError(
                f"The ids in {path} cannot be read: {error}. Build the index again with: "
                "rag-frozen index build RECIPE"
            ) from error

    def __len__(self) -> int:
        return len(self._column)

    def take(self, rows: Sequence[int]) -> list[str]:
        """Return the ids of the rows, in the order asked."""
        return [str(self._column[row]) for row in rows]


def check_k(k: int) -> None:
    """Raise ``InputError`` for k below 1."""
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}: so many passages are retrieved.")


def check_questions(texts: Iterable[str]) -> None:
    """Raise ``InputError`` for a question without text."""
    if any(not text.strip() for text in texts):
        raise InputError("A question is empty. Ask something in words.")
