"""Dense retrieval: questions are encoded, an engine finds the nearest vectors by inner product.

The engines stand in the modules beside this one, an engine a file; here is what they have in
common: what is asked of them, rescoring from the stored vectors, ties, and the retriever itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError
from rag_frozen.retrieval.dense_encoders import Encoder, Vectors
from rag_frozen.retrieval.dense_vectors import IDS_NAME, StoredVectors
from rag_frozen.retrieval.passage_ids import PassageIds, check_k, check_questions
from rag_frozen.types import Hit, Question, Ranking, sort_hits

__all__ = ["DenseRetriever", "Rows", "TunableSearch", "VectorSearch", "rescore"]

Rows = NDArray[np.int64]

_SPARE = 16


class VectorSearch(Protocol):
    """An engine over the vectors of a folder."""

    width: int

    def __len__(self) -> int:
        """Number of vectors."""
        ...

    def search(self, queries: Vectors, *, k: int) -> tuple[Vectors, Rows]:
        """Find the ``k`` rows of the highest inner product with each of ``queries: [n, d]``.

        Returns:
            Scores and row numbers, both ``[n, k]``, best first; row -1 and score -inf fill up
            where an engine found fewer.
        """
        ...


class TunableSearch(VectorSearch, Protocol):
    """An engine that finds more of the true neighbours the more it looks at.

    ``breadths`` are the steps of its own parameter (lists probed, nodes visited), ``refinements``
    of the factor by which more candidates than wanted are rescored from the stored vectors; a
    ladder of one step has nothing to tune. ``breadth_name`` is what the manifest calls the first,
    empty where there is none.
    """

    breadth_name: str
    breadths: tuple[int, ...]
    refinements: tuple[int, ...]
    breadth: int
    refine: int

    def candidates(self, queries: Vectors, *, n: int, breadth: int) -> Rows:
        """Return the ``n`` rows that would be rescored for each query, ``[q, n]``, best first."""
        ...


def rescore(
    vectors: StoredVectors, queries: Vectors, rows: Rows, *, k: int
) -> tuple[Vectors, Rows]:
    """Order candidates by their exact inner product, computed in fp32 from the stored vectors.

    Args:
        vectors: the stored ones.
        queries: ``[q, d]``.
        rows: candidates, ``[q, n]``; -1 stands for none.
        k: so many are kept.

    Returns:
        Scores and rows ``[q, k]``; equal scores by row.
    """
    best_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    best_rows = np.full((len(queries), k), -1, dtype=np.int64)
    for place, query in enumerate(queries):
        chosen = rows[place][rows[place] >= 0]
        # einsum, not a matrix product: equal vectors get equal scores wherever they stand
        scores = np.einsum("nd,d->n", vectors.take(chosen), query)
        order = np.lexsort((chosen, -scores))[:k]
        best_scores[place, : len(order)] = scores[order]
        best_rows[place, : len(order)] = chosen[order]
    return best_scores, best_rows


class DenseRetriever:
    """Nearest passages by inner product."""

    def __init__(
        self, encoder: Encoder, folder: Path, *, search: VectorSearch | None = None
    ) -> None:
        """Open the vectors of a folder that ``encode_corpus`` wrote with the same encoder.

        Args:
            encoder: encodes the questions.
            folder: holds the ids.
            search: the engine over the folder's vectors; exact search in memory where it is None.

        Raises:
            ArtifactDamagedError: when they cannot be read, or vectors and ids differ in number.
            ArtifactMismatchError: when their width is not the encoder's.
        """
        self.encoder = encoder
        self._ids = PassageIds(folder / IDS_NAME)
        if search is None:
            from rag_frozen.retrieval.dense_flat import FlatSearch

            search = FlatSearch(StoredVectors(folder))
        self.search = search
        if len(search) != len(self._ids):
            raise ArtifactDamagedError(
                f"The dense index in {folder} has {len(search):,} vectors for {len(self._ids):,} "
                "ids. Build it again with: rag-frozen index build RECIPE"
            )
        if search.width != encoder.width:
            raise ArtifactMismatchError(
                f"The index in {folder} holds vectors of {search.width}, {encoder.name} makes "
                f"vectors of {encoder.width}. Name the encoder that the index was built with."
            )

    def __len__(self) -> int:
        return self._ids.n_passages

    def retrieve(self, questions: Sequence[Question], *, k: int) -> list[Ranking]:
        """Return rankings by inner product."""
        check_k(k)
        check_questions(question.text for question in questions)
        if not questions:
            return []
        vectors = self.encoder.encode_questions([question.text for question in questions])
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        limit = min(k + _SPARE, len(self._ids))
        scores, rows = self.search.search(vectors, k=limit)
        return [
            self._ranking(scores[place], rows[place], vectors[place : place + 1], k)
            for place in range(len(questions))
        ]

    def _ranking(
        self, scores: NDArray[Any], rows: NDArray[Any], vector: NDArray[Any], k: int
    ) -> Ranking:
        """Sort by score and id; look further where the cut falls among equal scores, or where too
        few of the rows found are of passages that are there."""
        limit = len(rows)
        while True:
            found = rows >= 0
            found[found] = self._ids.alive(rows[found])
            at = np.flatnonzero(found)
            settled = len(at) >= k and scores[at[k - 1]] > scores[-1]
            # an engine that found fewer than it was asked for (row -1) has no more to give
            if settled or rows[-1] < 0 or limit == len(self._ids):
                break
            limit = min(4 * limit, len(self._ids))
            more_scores, more_rows = self.search.search(vector, k=limit)
            scores, rows = more_scores[0], more_rows[0]
        ids = self._ids.take([int(row) for row in rows[found]])
        pairs = zip(ids, scores[found].tolist(), strict=True)
        return sort_hits(Hit(passage_id, score) for passage_id, score in pairs)[:k]
