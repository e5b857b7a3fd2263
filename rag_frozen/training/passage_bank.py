"""A bank of passages whose vectors stay as they are: a built dense index with its texts.

What is searched here costs no encoding, so that a question encoder can be trained against a whole
corpus. Knows indexes and texts; nothing of models or of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag_frozen.errors import RecipeError
from rag_frozen.indexing.opening import open_store
from rag_frozen.indexing.parts import BuiltIndex, index_parts
from rag_frozen.recipes.index import IndexRecipe
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_flat import FlatSearch
from rag_frozen.retrieval.dense_search import Rows
from rag_frozen.retrieval.dense_vectors import IDS_NAME, StoredVectors
from rag_frozen.retrieval.passage_ids import PassageIds
from rag_frozen.training.mining import ExclusionList
from rag_frozen.types import Passage

__all__ = ["PassageBank", "find_bank"]

_KEPT_TEXTS = 65_536
"""Passages whose texts stay in memory once they were read."""


def find_bank(recipe: str | Path, root: Path | None) -> BuiltIndex:
    """Find what an index recipe built.

    Args:
        recipe: a name or a path.
        root: artifacts' folder; the default one where it is None.

    Raises:
        ArtifactMissingError: when it is not built there.
        RecipeError: when it has no dense part.
    """
    settings = load_recipe(recipe, IndexRecipe, folder="indexes", overrides=())
    if settings.dense is None:
        raise RecipeError(
            f"The index recipe {recipe} has no dense part: a question encoder is trained against "
            "stored vectors. Name one that has, such as indexes/pocket.yaml."
        )
    return index_parts(settings, root=root)


class PassageBank:
    """The vectors and texts of a built index, by row number."""

    def __init__(self, built: BuiltIndex, *, exclude: Sequence[str] = ()) -> None:
        """Open it; the vectors are read into memory as fp32.

        Args:
            built: has a corpus and a dense part.
            exclude: ids, or patterns of ids, of passages that must not be trained on.

        Raises:
            ArtifactDamagedError: when vectors or ids cannot be read.
        """
        folder = built.part("dense").folder
        self._store = open_store(built)
        self._vectors = StoredVectors(folder)
        self._ids = PassageIds(folder / IDS_NAME)
        self._search = FlatSearch(self._vectors)
        self._excluded = ExclusionList(exclude)
        self.usable: NDArray[np.bool_] = np.fromiter(
            (there and passage_id not in self._excluded for passage_id, there in self._ids),
            dtype=bool,
            count=len(self._ids),
        )
        """Which rows may be trained on."""
        self._passage = lru_cache(_KEPT_TEXTS)(self._read)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def width(self) -> int:
        """Length d of the vectors."""
        return self._vectors.width

    def rows_of(self, passages: Iterable[Passage]) -> dict[Passage, int]:
        """Find passages by their id, or else by their text, among the rows that may be used.

        Returns:
            The row of each that is there; the last where a text stands in several.
        """
        wanted = list(dict.fromkeys(passages))
        ids = {p.id for p in wanted if p.id}
        texts = {p.text for p in wanted}
        id_of_text: dict[str, str] = {}
        for batch in self._store.iter_passages():
            id_of_text.update((p.text, p.id) for p in batch if p.text in texts)
        ids.update(id_of_text.values())
        row_of_id = {
            passage_id: row
            for row, (passage_id, _) in enumerate(self._ids)
            if passage_id in ids and self.usable[row]
        }
        found: dict[Passage, int] = {}
        for passage in wanted:
            row = row_of_id.get(passage.id, row_of_id.get(id_of_text.get(passage.text, "")))
            if row is not None and passage.id not in self._excluded:
                found[passage] = row
        return found

    def vectors(self, rows: Sequence[int] | Rows) -> Vectors:
        """Vectors of rows, ``[n, d]`` in fp32."""
        return self._vectors.take(np.asarray(rows, dtype=np.int64))

    def passage(self, row: int) -> Passage:
        """The passage of a row."""
        found: Passage = self._passage(row)
        return found

    def nearest(self, queries: Vectors, *, k: int) -> list[list[int]]:
        """The ``k`` rows of the highest inner product with each of ``queries: [n, d]``, best first;
        rows of deleted passages are left out, those that must not be trained on are not."""
        k = min(k, len(self))
        _, rows = self._search.search(queries, k=k)
        flat = rows.ravel()
        there = ((flat >= 0) & self._ids.alive(np.maximum(flat, 0))).reshape(rows.shape)
        return [row[kept].tolist() for row, kept in zip(rows, there, strict=True)]

    def _read(self, row: int) -> Passage:
        [passage_id] = self._ids.take([row])
        [passage] = self._store.get([passage_id])
        return passage
