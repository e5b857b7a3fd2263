"""Search along a graph of near neighbours (Malkov and Yashunin 2018, HNSW), by faiss.

Vectors are kept in the type in which they are stored, so scores are exact; what is missed is what
the walk does not reach. Memory-mapped: 2 d bytes a vector (4 d for float32) and 8 M bytes of links
(M of them above, 2 M on the lowest layer, 4 bytes each).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_faiss import build_file, load_faiss, open_file, training_sample
from rag_frozen.retrieval.dense_search import Rows
from rag_frozen.retrieval.dense_vectors import StoredVectors

__all__ = ["HnswSearch", "build_hnsw"]

_EF_STEPS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)


def build_hnsw(
    folder: Path,
    vectors: StoredVectors,
    *,
    links: int = 32,
    build_ef: int = 128,
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write ``index.faiss``; see :func:`rag_frozen.retrieval.dense_faiss.build_file`.

    Threads add side by side, so two builds do not give the same graph.

    Args:
        folder: of this build alone.
        vectors: what is indexed.
        links: M, of each vector on each layer but the lowest, which has twice as many.
        build_ef: candidates looked at for the links of each vector.
        progress: is told the number of vectors added.
    """
    faiss = load_faiss()
    kinds = faiss.ScalarQuantizer
    codes = {"float16": kinds.QT_fp16, "bfloat16": kinds.QT_bf16}

    def make() -> Any:  # Any: faiss has no types
        width, metric = vectors.width, faiss.METRIC_INNER_PRODUCT
        if vectors.dtype == "float32":
            index = faiss.IndexHNSWFlat(width, links, metric)
        else:
            index = faiss.IndexHNSWSQ(width, codes[vectors.dtype], links, metric)
            index.train(training_sample(vectors, 1_000, seed=0))
        index.hnsw.efConstruction = build_ef
        return index

    return build_file(folder, vectors, make, progress=progress)


class HnswSearch:
    """``breadth`` nodes (ef_search) are kept on the walk, or as many as are asked for."""

    breadth_name = "ef_search"
    breadths: tuple[int, ...] = _EF_STEPS
    refinements: tuple[int, ...] = (1,)
    refine = 1

    def __init__(self, folder: Path, vectors: StoredVectors, *, ef_search: int = 16) -> None:
        """Map what :func:`build_hnsw` wrote.

        Raises:
            ArtifactDamagedError: when it cannot be read.
        """
        self.width = vectors.width
        self.breadth = ef_search
        self._faiss = load_faiss()
        self._index = open_file(folder, n=len(vectors), width=vectors.width, mapped=True)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def candidates(self, queries: Vectors, *, n: int, breadth: int) -> Rows:
        """Return the ``n`` best rows that a walk of ``breadth`` finds."""
        return self._walk(queries, min(n, len(self)), breadth)[1]

    def search(self, queries: Vectors, *, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows, ``[n, k]``."""
        return self._walk(queries, k, self.breadth)

    def _walk(self, queries: Vectors, k: int, breadth: int) -> tuple[Vectors, Rows]:
        how = self._faiss.SearchParametersHNSW(efSearch=max(breadth, k))
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        scores, rows = self._index.search(queries, k, params=how)
        scores[rows < 0] = -np.inf
        return scores, rows
