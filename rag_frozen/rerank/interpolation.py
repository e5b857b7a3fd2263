"""Join a reranker's scores with the retrieval's: a weighted sum, a passage at a time.

A reranker that was trained on a few thousand lists knows less than an encoder that has seen a
billion pairs; their sum ranks better than either where they err apart. Knows rankings alone.
"""

from __future__ import annotations

import math

from rag_frozen.errors import InputError
from rag_frozen.types import Hit, Ranking, sort_hits

__all__ = ["interpolate"]


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
