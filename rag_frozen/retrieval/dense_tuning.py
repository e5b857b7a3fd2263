"""Tune an approximate engine to a stated recall, measured against exact search.

Recall@k is the share of the k truly nearest vectors that an engine gives back among its first k;
where the k-th is tied with others, any of them counts. Engines rescore their candidates exactly,
so a true neighbour is given back if it is a candidate at all, and one search with the largest
refinement tells the recall of all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag_frozen.errors import CheckFailedError
from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_search import Rows, TunableSearch
from rag_frozen.retrieval.dense_vectors import StoredVectors

__all__ = ["Neighbours", "Tuned", "exact_neighbours", "recall", "tune"]

_SPARE = 44
"""Rows beyond k that are looked at for ties with the k-th."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The true neighbours of queries: ``rows: [q, k + ties]``, -1 where there are no more;
    ``k`` of them are wanted."""

    rows: Rows
    k: int


@dataclass(frozen=True, slots=True)
class Tuned:
    """The first step that reaches the recall: the engine's own parameter, the factor of
    candidates, the recall measured with them and the best of all that were tried."""

    breadth: int
    refine: int
    recall: float
    best: float


def exact_neighbours(vectors: StoredVectors, queries: Vectors, *, k: int) -> Neighbours:
    """Find the ``k`` nearest of ``queries: [q, d]`` by fp32 products of all vectors, in blocks."""
    wanted = min(k + _SPARE, len(vectors))
    scores = np.full((len(queries), 0), -np.inf, dtype=np.float32)
    rows = np.full((len(queries), 0), -1, dtype=np.int64)
    for start, block in vectors.blocks(size=16_384):
        products = queries @ block.T
        here = min(wanted, len(block))
        chosen = np.argpartition(-products, here - 1, axis=1)[:, :here]
        scores = np.hstack((scores, np.take_along_axis(products, chosen, axis=1)))
        rows = np.hstack((rows, chosen + start))
        kept = np.lexsort((rows, -scores))[:, :wanted]
        scores = np.take_along_axis(scores, kept, axis=1)
        rows = np.take_along_axis(rows, kept, axis=1)
    last = scores[:, min(k, len(vectors)) - 1 :][:, :1]
    tied = scores >= last - 1e-6 * np.abs(last)
    return Neighbours(np.where(tied, rows, -1), min(k, len(vectors)))


def recall(found: Rows, truth: Neighbours) -> float:
    """Share of the wanted neighbours among ``found: [q, n]``; -1 stands for none.

    >>> truth = Neighbours(np.array([[4, 7, 9, -1], [1, 2, 3, 5]]), 2)  # the second has ties
    >>> recall(np.array([[7, 8, -1], [5, 1, 0]]), truth)
    0.75
    """
    return _recalls(found, truth, (found.shape[1],))[0]


def tune(search: TunableSearch, queries: Vectors, truth: Neighbours, *, target: float) -> Tuned:
    """Find the cheapest steps of an engine that reach a recall.

    The engine's own parameter climbs its ladder from the first step until recall with the
    largest refinement reaches the target and a quarter of what is missing to 1, so that not all is
    left to rescoring; then the smallest refinement is taken that reaches the target. An engine
    with one ladder climbs that. Nothing is random: the same index and queries give the same steps.

    Args:
        search: the engine.
        queries: ``[q, d]``.
        truth: their true neighbours, from :func:`exact_neighbours`.
        target: in (0, 1].

    Raises:
        CheckFailedError: when no step reaches the recall; the message says the best that does.
    """
    both = len(search.breadths) > 1 and len(search.refinements) > 1
    slack = (1 - target) / 4 if both else 0.0
    enough: Tuned | None = None
    best = 0.0
    for breadth in search.breadths:
        deepest = truth.k * search.refinements[-1]
        rows = search.candidates(queries, n=deepest, breadth=breadth)
        recalls = _recalls(rows, truth, [truth.k * factor for factor in search.refinements])
        best = max(best, recalls[-1])
        reached = [place for place, value in enumerate(recalls) if value >= target]
        if reached and (enough is None or recalls[-1] >= target + slack):
            first = reached[0]
            enough = Tuned(breadth, search.refinements[first], recalls[first], best)
        if recalls[-1] >= target + slack:
            break
    if enough is None:
        widest = f"{search.breadth_name} {search.breadths[-1]}, " if search.breadth_name else ""
        raise CheckFailedError(
            f"No setting reaches recall@{truth.k} {target}: the best measured on {len(queries):,} "
            f"queries is {best:.4f}, with {widest}candidates {search.refinements[-1]} times k. "
            "State a lower recall, or use a kind that keeps more of each vector (scalar-int8, "
            "scalar-fp16, flat)."
        )
    return enough


def _recalls(found: Rows, truth: Neighbours, depths: list[int] | tuple[int, ...]) -> list[float]:
    """Recall of the first ``depths`` columns; sums over columns tell all depths at once."""
    hits = np.zeros(found.shape, dtype=np.int64)
    for place, row in enumerate(found):
        wanted = truth.rows[place]
        hits[place] = np.isin(row, wanted[wanted >= 0])
    seen: NDArray[np.int64] = np.minimum(np.cumsum(hits, axis=1), truth.k)
    last = found.shape[1]
    return [float(seen[:, min(depth, last) - 1].mean()) / truth.k for depth in depths]
