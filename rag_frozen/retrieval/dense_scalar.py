"""Search over scalar-quantised vectors by faiss: a number of each vector takes 2 bytes or 1.

With 16 bits the codes are the vectors as stored in float16 or bfloat16, and search is exact; with
8 bits each number is one of 256 steps between the least and the greatest of its dimension in a
sample, and the best candidates are rescored from the stored vectors. Both are memory-mapped: they
take 2 d or d bytes a vector of the system's page cache, and next to nothing of the process' own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_faiss import load_faiss, open_file, training_sample
from rag_frozen.retrieval.dense_parts import PartMaker, build_merged
from rag_frozen.retrieval.dense_search import Rows, rescore
from rag_frozen.retrieval.dense_vectors import StoredVectors

__all__ = ["Int8Search", "SixteenBitSearch", "build_scalar"]

_TRAINED_ON = 100_000
_REFINEMENTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def build_scalar(
    folder: Path,
    vectors: StoredVectors,
    *,
    bits: Literal[8, 16],
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
    elsewhere: PartMaker | None = None,
) -> Path:
    """Write ``index.faiss``; see :func:`rag_frozen.retrieval.dense_parts.build_merged`."""
    faiss = load_faiss()
    kinds = faiss.ScalarQuantizer
    sixteen = kinds.QT_bf16 if vectors.dtype == "bfloat16" else kinds.QT_fp16

    def make() -> Any:  # Any: faiss has no types
        kind = kinds.QT_8bit if bits == 8 else sixteen
        index = faiss.IndexScalarQuantizer(vectors.width, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(training_sample(vectors, _TRAINED_ON, seed=seed))
        return index

    return build_merged(folder, vectors, make, progress=progress, elsewhere=elsewhere)


class SixteenBitSearch:
    """Exact search over float16 or bfloat16 codes (float32 vectors are rounded to float16)."""

    def __init__(self, folder: Path, vectors: StoredVectors) -> None:
        """Map what :func:`build_scalar` wrote with 16 bits.

        Raises:
            ArtifactDamagedError: when it cannot be read.
        """
        self.width = vectors.width
        self._index = open_file(folder, n=len(vectors), width=vectors.width, mapped=True)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Vectors, *, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows, ``[n, k]``."""
        scores, rows = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        return scores, rows


class Int8Search:
    """All 8-bit codes are scanned; ``refine`` times k candidates are rescored."""

    breadth_name = ""
    breadths: tuple[int, ...] = (1,)
    refinements: tuple[int, ...] = _REFINEMENTS
    breadth = 1

    def __init__(self, folder: Path, vectors: StoredVectors, *, refine: int) -> None:
        """Map what :func:`build_scalar` wrote with 8 bits.

        Raises:
            ArtifactDamagedError: when it cannot be read.
        """
        self.width = vectors.width
        self.refine = refine
        self._vectors = vectors
        self._index = open_file(folder, n=len(vectors), width=vectors.width, mapped=True)
        vectors.expect_random_reads()

    def __len__(self) -> int:
        return len(self._vectors)

    def candidates(self, queries: Vectors, *, n: int, breadth: int = 1) -> Rows:
        """Return the rows of the ``n`` best codes."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows: Rows = self._index.search(queries, min(n, len(self)))[1]
        return rows

    def search(self, queries: Vectors, *, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows, ``[n, k]``."""
        return rescore(self._vectors, queries, self.candidates(queries, n=k * self.refine), k=k)
