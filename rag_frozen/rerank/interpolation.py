"""Join a reranker's scores with the retrieval's: a weighted sum, a passage at a time.

A reranker that was trained on a few thousand lists knows less than an encoder that has seen a
billion pairs; their sum ranks better than either where they err apart. Knows rankings alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rag_frozen.errors import InputError
from rag_frozen.types import Hit, Ranking, sort_hits

__all__ = ["JoinedScores", "interpolate"]


@dataclass(frozen=True, slots=True)
class JoinedScores:
    """Joins the reranker's scores with those of a ``stage``: the whole retrieval, ``retrieve``, or
    a part of a fusion by its name. A passage that a part did not rank gets the lowest score of its
    ranking, as in Spider's fusion."""

    weight: float = 0.0
    stage: str = "retrieve"

    def __call__(self, reranked: Ranking, rankings: Mapping[str, Ranking]) -> Ranking:
        """Rank by the sum.

        Args:
            reranked: the reranker's ranking.
            rankings: the retrieval's, by stage.

        Raises:
            InputError: when the stage did not rank, or :func:`interpolate` refuses.
        """
        if self.weight == 0:
            return reranked
        if self.stage not in rankings:
            raise InputError(
                f"The retrieval has no scores of the stage {self.stage}; the stages are: "
                f"{', '.join(rankings)}. Name one of these as reranker.retrieval_scores."
            )
        ranked = rankings[self.stage]
        if self.stage != "retrieve":
            known = {hit.passage_id for hit in ranked}
            lowest = min((hit.score for hit in ranked), default=0.0)
            others = (hit.passage_id for hit in reranked if hit.passage_id not in known)
            ranked = (*ranked, *(Hit(passage_id, lowest) for passage_id in others))
        return interpolate(reranked, ranked, weight=self.weight)


def interpolate(reranked: Ranking, retrieved: Ranking, *, weight: float) -> Ranking:
    """Rank by the reranker's score + ``weight`` * the retrieval's score.

    Scores are taken as they are, so a weight belongs to one reranker over one retrieval: cosines
    lie within 1 of each other, reciprocal ranks within 0.04.

    Args:
        reranked: the reranker's ranking.
        retrieved: the retrieval's, of those passages and perhaps more.
        weight: 0 or more; 0 leaves the reranker's ranking as it is.

    Returns:
        The passages of ``reranked``, best first, ties by id.

    Raises:
        InputError: when the weight is negative or no number, or a passage was not retrieved.

    >>> asked = (Hit("a", 2.0), Hit("b", 1.5))
    >>> [hit.passage_id for hit in interpolate(asked, (Hit("b", 0.9), Hit("a", 0.1)), weight=1.0)]
    ['b', 'a']
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise InputError(f"The weight of the retrieval's score is 0 or more, not {weight}.")
    if weight == 0:
        return reranked
    first_stage = {hit.passage_id: hit.score for hit in retrieved}
    lost = [hit.passage_id for hit in reranked if hit.passage_id not in first_stage]
    if lost:
        raise InputError(
            f"{len(lost)} of {len(reranked)} reranked passages were not retrieved, {lost[0]!r} the "
            "first of them: their scores cannot be joined. Rerank hits of that retrieval."
        )
    return sort_hits(
        Hit(hit.passage_id, hit.score + weight * first_stage[hit.passage_id]) for hit in reranked
    )
