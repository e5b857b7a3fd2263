"""Exact search: all vectors as fp32 in memory, many questions as a matrix product by faiss.

Takes 4 d bytes a vector, whatever type they are stored in.
"""

from __future__ import annotations

import numpy as np

from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_faiss import load_faiss, reserve
from rag_frozen.retrieval.dense_search import Rows
from rag_frozen.retrieval.dense_vectors import StoredVectors

__all__ = ["FlatSearch"]

_ALONE = 3
"""Questions, at most, that are searched one by one. Over 467k x 384 on one core the products of
one question take 36 ms, as long as reading the vectors does (34 ms), where faiss takes 132 to 147
ms for one, by its own loop or as a matrix product; four take it 148."""


class FlatSearch:
    """faiss' ``IndexFlatIP`` over the stored vectors; a few questions go through them directly."""

    def __init__(self, vectors: StoredVectors) -> None:
        """Read the vectors into memory.

        Raises:
            MissingPackageError: when faiss is not there, or there twice.
        """
        faiss = load_faiss()
        self.width = vectors.width
        self._index = reserve(faiss.IndexFlatIP(vectors.width), len(vectors))
        for _, block in vectors.blocks():
            self._index.add(block)
        held = faiss.rev_swig_ptr(self._index.get_xb(), len(self) * self.width)
        self._vectors: Vectors = held.reshape(len(self), self.width)  # the index' own memory

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Vectors, *, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows, ``[n, k]``."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if len(queries) > _ALONE:
            scores, rows = self._index.search(queries, k)
            return scores, rows
        best_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        best_rows = np.full((len(queries), k), -1, dtype=np.int64)
        for place, query in enumerate(queries):
            scores, rows = self._best(query, min(k, len(self)))
            best_scores[place, : len(rows)], best_rows[place, : len(rows)] = scores, rows
        return best_scores, best_rows

    def _best(self, query: Vectors, k: int) -> tuple[Vectors, Rows]:
        """The ``k`` best rows of one question, equal scores by row."""
        # einsum, not a matrix product: it is faster, and equal vectors get equal scores
        scores = np.einsum("nd,d->n", self._vectors, query)
        found = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
        found = found[np.lexsort((found, -scores[found]))]
        return scores[found], found
