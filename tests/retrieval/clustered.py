"""Clustered vectors for the tests of dense engines, and an encoder that hands them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_shards import encode_corpus
from rag_frozen.retrieval.dense_vectors import StoredVectors, VectorType
from rag_frozen.types import Passage

N, WIDTH = 2_500, 32


def clustered(n: int = N, *, width: int = WIDTH, seed: int = 0) -> Vectors:
    """Unit vectors around 40 centres."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, width))
    made = centres[draw.integers(40, size=n)] + 0.5 * draw.standard_normal((n, width))
    unit = made / np.linalg.norm(made, axis=1, keepdims=True)
    return unit.astype(np.float32)


def questions(n: int = 200) -> Vectors:
    """Vectors near those of :func:`clustered`, none of them among them."""
    draw = np.random.default_rng(7)
    made = clustered()[:n] + 0.1 * draw.standard_normal((n, WIDTH))
    return made.astype(np.float32)


class Handing:
    """Gives the passage whose id is n the n-th of its vectors."""

    name, digest = "handing", "1" * 64

    def __init__(self, vectors: Vectors, width: int | None = None) -> None:
        self.vectors = vectors
        self.width = width or vectors.shape[1]

    def encode_passages(self, passages: list[Passage]) -> Vectors:
        return self.vectors[[int(passage.id) for passage in passages]]

    def encode_questions(self, texts: list[str]) -> Vectors:
        return self.vectors[[int(text) for text in texts]]


def store(
    folder: Path, vectors: Vectors, *, dtype: VectorType = "float16", shard_size: int = 1_000
) -> StoredVectors:
    """Write vectors as a build does."""
    passages = (Passage(str(n), "", "x") for n in range(len(vectors)))
    encode_corpus(
        folder,
        passages,
        Handing(vectors),
        n_passages=len(vectors),
        shard_size=shard_size,
        dtype=dtype,
    )
    return StoredVectors(folder)
