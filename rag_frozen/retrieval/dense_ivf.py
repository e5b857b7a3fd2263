"""Inverted lists with 4-bit product quantisation in faiss' fast-scan layout, then rescoring.

A vector belongs to the list of its nearest centroid and is kept as one 4-bit number for every
``subvector`` dimensions: with 2 that is d / 4 bytes, in memory. A question scans its ``breadth``
nearest lists (n_probe); ``refine`` times k candidates are rescored from the stored vectors, which
stay on disk. The layout is that of Andre et al. 2017, "Accelerated nearest neighbor search with
Quick ADC", as faiss implements it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_faiss import load_faiss, open_file, training_sample
from rag_frozen.retrieval.dense_parts import PartMaker, build_merged
from rag_frozen.retrieval.dense_search import Rows, rescore
from rag_frozen.retrieval.dense_vectors import StoredVectors

__all__ = ["POINTS_A_LIST", "IvfSearch", "build_ivf", "default_lists"]

_REFINEMENTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_CENTROIDS = 16
"""Of each part: what 4 bits can name."""
POINTS_A_LIST = 40
"""faiss asks for at least 39 training vectors a list."""


def default_lists(n: int) -> int:
    """Number of lists for ``n`` vectors: the power of two below 4 √n, and 39 vectors in each.

    >>> [default_lists(n) for n in (8, 5_000, 466_961, 3_000_000, 21_015_324)]
    [1, 128, 2048, 4096, 16384]
    """
    return 1 << int(math.log2(max(1.0, min(4 * math.sqrt(n), n / 39))))


def build_ivf(
    folder: Path,
    vectors: StoredVectors,
    *,
    lists: int | None = None,
    subvector: int = 2,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
    elsewhere: PartMaker | None = None,
) -> Path:
    """Write ``index.faiss``; see :func:`rag_frozen.retrieval.dense_parts.build_merged`.

    Args:
        folder: of this build alone.
        vectors: what is indexed.
        lists: their number; :func:`default_lists` where it is None.
        subvector: dimensions a 4-bit number stands for; 1 where the width is no multiple of it.
        seed: of the training sample (40 vectors a list) and of k-means.
        progress: is told the number of vectors added.
        elsewhere: codes parts of the vectors in place of this process.
    """
    faiss = load_faiss()
    width = vectors.width
    n_lists = lists or default_lists(len(vectors))
    parts = width // subvector if width % subvector == 0 else width

    def make() -> Any:  # Any: faiss has no types
        centroids = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFPQFastScan(
            centroids, width, n_lists, parts, 4, faiss.METRIC_INNER_PRODUCT
        )
        centroids.this.disown()
        index.own_fields = True
        index.cp.seed = index.pq.cp.seed = 1 + seed
        # small corpora are trained on what there is; faiss would warn on stderr
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
        wanted = max(POINTS_A_LIST * n_lists, 256 * _CENTROIDS)
        least = max(n_lists, _CENTROIDS)
        index.train(training_sample(vectors, wanted, seed=seed, at_least=least))
        return index

    return build_merged(folder, vectors, make, progress=progress, elsewhere=elsewhere)


class IvfSearch:
    """Lists probed and candidates rescored are ``breadth`` and ``refine``."""

    breadth_name = "n_probe"

    def __init__(
        self, folder: Path, vectors: StoredVectors, *, n_probe: int = 1, refine: int = 1
    ) -> None:
        """Read what :func:`build_ivf` wrote: codes into memory, stored vectors mapped.

        Raises:
            ArtifactDamagedError: when it cannot be read.
        """
        self.width = vectors.width
        self.refine = refine
        self._vectors = vectors
        self._faiss = load_faiss()
        self._index = open_file(folder, n=len(vectors), width=vectors.width, mapped=False)
        self.breadth = n_probe
        self.breadths: tuple[int, ...] = _probes(self._index.nlist)
        self.refinements: tuple[int, ...] = _REFINEMENTS
        vectors.expect_random_reads()

    def __len__(self) -> int:
        return len(self._vectors)

    def candidates(self, queries: Vectors, *, n: int, breadth: int) -> Rows:
        """Return the rows of the ``n`` best codes in the ``breadth`` nearest lists."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        how = self._faiss.SearchParametersIVF(nprobe=min(breadth, self._index.nlist))
        rows: Rows = self._index.search(queries, min(n, len(self)), params=how)[1]
        return rows

    def search(self, queries: Vectors, *, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows, ``[n, k]``."""
        rows = self.candidates(queries, n=k * self.refine, breadth=self.breadth)
        return rescore(self._vectors, queries, rows, k=k)


def _probes(n_lists: int) -> tuple[int, ...]:
    """Steps of about 1.4 from one list to all.

    >>> _probes(20)
    (1, 2, 3, 4, 6, 8, 12, 16, 20)
    """
    powers = {2**n for n in range(32)} | {3 * 2**n for n in range(31)}
    return (*sorted(step for step in powers if step < n_lists), n_lists)
