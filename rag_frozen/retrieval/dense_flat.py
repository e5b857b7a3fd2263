"""Exact search by faiss: all vectors as fp32 in memory, questions in batches as matrix products.

Takes 4 d bytes a vector, whatever type they are stored in.
"""

from __future__ import annotations

import numpy as np

from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_faiss import load_faiss, reserve
from rag_frozen.retrieval.dense_search import Rows
from rag_frozen.retrieval.dense_vectors import StoredVectors

__all__ = ["FlatSearch"]


class FlatSearch:
    """faiss' ``IndexFlatIP`` over the stored vectors."""

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

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Vectors, *, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows, ``[n, k]``."""
        scores, rows = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        return scores, rows
