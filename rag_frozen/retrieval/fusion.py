"""Fusion: several rankings of the same question made into one. Pure functions, and a retriever."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rag_frozen.errors import InputError
from rag_frozen.protocols import Retriever
from rag_frozen.retrieval.passage_ids import check_k
from rag_frozen.types import Hit, Question, Ranking, sort_hits

__all__ = [
    "RRF_CONSTANT",
    "Fuse",
    "FusionRetriever",
    "reciprocal_rank_fusion",
    "spider_fusion",
    "weighted_min_max_sum",
]

RRF_CONSTANT = 60
"""Cormack, Clarke and Buettcher 2009, *Reciprocal Rank Fusion*, section 2."""

Fuse = Callable[[Sequence[Ranking]], Ranking]
"""Makes one ranking of several of the same question."""


def reciprocal_rank_fusion(
    runs: Sequence[Ranking], *, constant: int = RRF_CONSTANT, weights: Sequence[float] | None = None
) -> Ranking:
    """Score a passage by the sum over runs of weight / (constant + rank), ranks from 1.

    >>> a, b = (Hit("x", 9.0), Hit("y", 1.0)), (Hit("y", 0.2),)
    >>> [hit.passage_id for hit in reciprocal_rank_fusion([a, b])]
    ['y', 'x']
    """
    scores: dict[str, float] = {}
    for run, weight in zip(runs, _weights(runs, weights), strict=True):
        for rank, hit in enumerate(run, 1):
            scores[hit.passage_id] = scores.get(hit.passage_id, 0.0) + weight / (constant + rank)
    return _ranking(scores)


def weighted_min_max_sum(
    runs: Sequence[Ranking], *, weights: Sequence[float] | None = None
) -> Ranking:
    """Scale each run's scores to [0, 1] and sum them with weights; a missing passage counts 0.

    A run of equal scores counts 1 for each of its passages.

    >>> a, b = (Hit("x", 3.0), Hit("y", 1.0)), (Hit("y", 7.0),)
    >>> [(hit.passage_id, hit.score) for hit in weighted_min_max_sum([a, b], weights=[1.0, 0.5])]
    [('x', 1.0), ('y', 0.5)]
    """
    scores: dict[str, float] = {}
    for run, weight in zip(runs, _weights(runs, weights), strict=True):
        if not run:
            continue
        low = min(hit.score for hit in run)
        span = max(hit.score for hit in run) - low
        for hit in run:
            scaled = (hit.score - low) / span if span > 0 else 1.0
            scores[hit.passage_id] = scores.get(hit.passage_id, 0.0) + weight * scaled
    return _ranking(scores)


def spider_fusion(runs: Sequence[Ranking], *, weight: float = 1.0, depth: int = 1_000) -> Ranking:
    """Score a passage by s1 + weight · s2 over the top ``depth`` of two runs.

    A passage that is missing from one run gets that run's lowest score there (Ram et al. 2022,
    *Learning to Retrieve Passages without Supervision*, section 5.2, as in Pyserini's hybrid
    search). Raises ``InputError`` unless there are two runs.

    >>> a, b = (Hit("x", 9.0), Hit("y", 4.0)), (Hit("z", 2.0), Hit("y", 1.0))
    >>> [(hit.passage_id, hit.score) for hit in spider_fusion([a, b])]
    [('x', 10.0), ('z', 6.0), ('y', 5.0)]
    """
    if len(runs) != 2:
        raise InputError(f"Spider's rule fuses two runs, not {len(runs)}. Use rrf or min-max.")
    first, second = ({h.passage_id: h.score for h in run[:depth]} for run in runs)
    low_first, low_second = min(first.values(), default=0.0), min(second.values(), default=0.0)
    return _ranking(
        {
            passage_id: first.get(passage_id, low_first)
            + weight * second.get(passage_id, low_second)
            for passage_id in first.keys() | second.keys()
        }
    )


class FusionRetriever:
    """Asks several retrievers, each to its own depth, and fuses their rankings."""

    def __init__(self, parts: Sequence[tuple[str, Retriever, int]], fuse: Fuse) -> None:
        """Set up.

        Args:
            parts: name, retriever and depth of each; names are unique.
            fuse: makes one ranking of as many as there are parts, in their order.
        """
        self.parts = tuple(parts)
        self._fuse = fuse

    def retrieve(self, questions: Sequence[Question], *, k: int) -> list[Ranking]:
        """Return fused rankings of at most ``k`` hits."""
        check_k(k)
        return [ranking[:k] for ranking, _ in self.retrieve_parts(questions)]

    def retrieve_parts(
        self, questions: Sequence[Question]
    ) -> list[tuple[Ranking, dict[str, Ranking]]]:
        """Return for each question the whole fused ranking and each part's own."""
        runs = [part.retrieve(questions, k=depth) for _, part, depth in self.parts]
        names = [name for name, _, _ in self.parts]
        return [
            (self._fuse(of_one), dict(zip(names, of_one, strict=True)))
            for of_one in zip(*runs, strict=True)
        ]


def _weights(runs: Sequence[Ranking], weights: Sequence[float] | None) -> Sequence[float]:
    if weights is not None and len(weights) != len(runs):
        raise InputError(f"{len(weights)} weights for {len(runs)} runs: give one a run.")
    return [1.0] * len(runs) if weights is None else weights


def _ranking(scores: dict[str, float]) -> Ranking:
    return sort_hits(Hit(passage_id, score) for passage_id, score in scores.items())
