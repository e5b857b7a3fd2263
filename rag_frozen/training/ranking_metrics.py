"""Answer-recall and mean reciprocal rank over stored candidates of held-out questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["first_answer_metrics", "rank_of_first_answer"]


def rank_of_first_answer(
    answering: Sequence[bool], scores: Sequence[float] | None = None
) -> int | None:
    """The rank, from 0, of the first candidate that answers; None where none does.

    Args:
        answering: which candidates hold an answer, in the first stage's order.
        scores: orders them anew, ties by the first stage's order; without it that stays.

    >>> rank_of_first_answer([False, True, True], [0.1, 0.2, 0.9])
    0
    >>> rank_of_first_answer([False, True]), rank_of_first_answer([False])
    (1, None)
    """
    order: Sequence[int] = range(len(answering))
    if scores is not None:
        order = sorted(order, key=lambda place: -scores[place])
    return next((rank for rank, place in enumerate(order) if answering[place]), None)


def first_answer_metrics(
    name: str, ranks: Sequence[int | None], *, depths: Sequence[int] = (1, 3, 5)
) -> Mapping[str, float]:
    """Answer-recall at some depths and the mean reciprocal rank, all in percent.

    >>> first_answer_metrics("bm25", [0, 1, None, 3], depths=(1, 3))
    {'bm25@1': 25.0, 'bm25@3': 50.0, 'bm25.mrr': 43.75}
    """
    n = max(1, len(ranks))
    found = [rank for rank in ranks if rank is not None]
    recalls = {f"{name}@{k}": 100 * sum(rank < k for rank in found) / n for k in depths}
    return {**recalls, f"{name}.mrr": 100 * sum(1 / (rank + 1) for rank in found) / n}
