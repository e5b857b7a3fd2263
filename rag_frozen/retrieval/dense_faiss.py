"""Dense retrieval: vectors in shards on disk, exact inner-product search by faiss.

Vectors are written shard by shard, each shard under a temporary name and then renamed, so that a
build that was stopped goes on with the first missing shard.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError
from rag_frozen.retrieval.dense_encoders import Encoder
from rag_frozen.retrieval.passage_ids import (
    PassageIds,
    check_k,
    check_questions,
    write_passage_ids,
)
from rag_frozen.types import Hit, Passage, Question, Ranking, sort_hits

__all__ = ["DenseRetriever", "VectorType", "encode_corpus", "open_flat"]

VectorType = Literal["float32", "float16"]

_CHUNK = 8_192
_SPARE = 16
_BLAS_THRESHOLD = 1
"""faiss searches batches of at least so many questions as one matrix product: 249 against 7
questions/s at 1M x 384 and 256 questions."""


def encode_corpus(
    folder: Path,
    passages: Iterable[Passage],
    encoder: Encoder,
    *,
    n_passages: int,
    shard_size: int,
    dtype: VectorType = "float16",
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[int, str]:
    """Encode passages into ``vectors-NNNNN.npy`` shards and ``ids.arrow``.

    Args:
        folder: of this build alone; shards that are there are kept, and their passages skipped.
        passages: in corpus order, ``n_passages`` of them.
        encoder: makes the vectors.
        shard_size: passages a shard.
        dtype: in which vectors are stored.
        progress: is told the number of passages done.

    Returns:
        Number of passages, and SHA-256 over their ids in order.

    Raises:
        ArtifactMismatchError: when passages and ``n_passages`` differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = iter(passages)
    ids: list[str] = []
    for shard in range(-(-n_passages // shard_size)):
        wanted = min(shard_size, n_passages - shard * shard_size)
        path = folder / f"vectors-{shard:05d}.npy"
        batch = list(islice(stream, wanted))
        ids += [passage.id for passage in batch]
        if not path.exists() and batch:
            vectors = np.empty((len(batch), encoder.width), dtype=dtype)
            for start in range(0, len(batch), _CHUNK):
                part = batch[start : start + _CHUNK]
                vectors[start : start + len(part)] = encoder.encode_passages(part)
                progress(shard * shard_size + start + len(part))
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, vectors, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        progress(len(ids))
    if len(ids) != n_passages:
        raise ArtifactMismatchError(
            f"The corpus gave {len(ids):,} passages, {n_passages:,} were expected. "
            "Build the corpus again, then the index."
        )
    return write_passage_ids(folder / "ids.arrow", ids)


def open_flat(folder: Path) -> tuple[Any, PassageIds]:
    """Read the shards of a folder into a faiss flat index.

    Returns:
        The faiss index over ``[n, d]`` vectors, in the stored type, and the ids of its rows.

    Raises:
        ArtifactDamagedError: when a shard is missing or unreadable, or counts differ.
    """
    import faiss

    ids = PassageIds(folder / "ids.arrow")
    index: Any = None  # Any: faiss has no types
    try:
        for path in sorted(folder.glob("vectors-*.npy")):
            shard: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            if index is None:
                index = _empty_index(shard.shape[1], shard.dtype)
            for start in range(0, len(shard), 65_536):
                index.add(np.asarray(shard[start : start + 65_536], dtype=np.float32))
    except (OSError, ValueError, IndexError) as error:
        raise ArtifactDamagedError(
            f"The vectors in {folder} cannot be read: {error}. Build the index again with: "
            "rag-frozen index build RECIPE"
        ) from error
    if index is None or index.ntotal != len(ids):
        found = 0 if index is None else index.ntotal
        raise ArtifactDamagedError(
            f"The dense index in {folder} has {found:,} vectors for {len(ids):,} ids. Build it "
            "again with: rag-frozen index build RECIPE"
        )
    faiss.cvar.distance_compute_blas_threshold = _BLAS_THRESHOLD
    return index, ids


class DenseRetriever:
    """Nearest passages by inner product, exactly."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        """Open the vectors of a folder that :func:`encode_corpus` wrote with the same encoder.

        Raises:
            ArtifactDamagedError: when they cannot be read.
            ArtifactMismatchError: when their width is not the encoder's.
        """
        self.encoder = encoder
        self._index, self._ids = open_flat(folder)
        if self._index.d != encoder.width:
            raise ArtifactMismatchError(
                f"The index in {folder} holds vectors of {self._index.d}, {encoder.name} makes "
                f"vectors of {encoder.width}. Name the encoder that the index was built with."
            )

    def __len__(self) -> int:
        return len(self._ids)

    def retrieve(self, questions: Sequence[Question], *, k: int) -> list[Ranking]:
        """Return rankings by inner product."""
        check_k(k)
        check_questions(question.text for question in questions)
        if not questions:
            return []
        vectors = self.encoder.encode_questions([question.text for question in questions])
        limit = min(k + _SPARE, len(self))
        scores, rows = self._index.search(vectors, limit)
        return [
            self._ranking(scores[place], rows[place], vectors[place : place + 1], k)
            for place in range(len(questions))
        ]

    def _ranking(
        self, scores: NDArray[Any], rows: NDArray[Any], vector: NDArray[Any], k: int
    ) -> Ranking:
        """Sort by score and id; look further where the cut falls among equal scores."""
        limit = len(rows)
        while limit < len(self) and k <= limit and scores[k - 1] == scores[-1]:
            limit = min(4 * limit, len(self))
            more_scores, more_rows = self._index.search(vector, limit)
            scores, rows = more_scores[0], more_rows[0]
        ids = self._ids.take([int(row) for row in rows])
        pairs = zip(ids, scores.tolist(), strict=True)
        return sort_hits(Hit(passage_id, score) for passage_id, score in pairs)[:k]


def _empty_index(width: int, dtype: np.dtype[Any]) -> Any:
    import faiss

    if dtype == np.float16:
        kind = faiss.ScalarQuantizer.QT_fp16
        return faiss.IndexScalarQuantizer(width, kind, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexFlatIP(width)
