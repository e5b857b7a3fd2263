"""The error funnel: which stage loses which question, and what that costs.

A question passes a stage when an answering passage is still there after it: anywhere in the
``corpus``; after ``retrieval`` among the first 100 hits; after ``reranking`` among the hits that
are offered to packing; after ``packing`` in the prompt; after ``reading`` the answer is right. A
wrongly answered question is lost at the first stage that it does not pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from rag_frozen.evaluation.scoring import FINAL, ScoredAnswer, Stage

__all__ = ["FunnelStage", "funnel", "lost_at", "with_losses"]

_RETRIEVED = "retrieve"


@dataclass(frozen=True, slots=True)
class FunnelStage:
    """One stage over all questions with gold answers.

    ``passed`` counts those with an answering passage (a right answer) after the stage; ``lost``
    the wrongly answered ones that got lost here. ``exact_match_if_lossless``, in percent, is exact
    match if the lost ones had passed this stage and were then answered rightly as often as those
    that did pass it; None where none did.
    """

    stage: Stage
    passed: int
    lost: int
    exact_match_if_lossless: float | None


def lost_at(row: ScoredAnswer, *, in_corpus: bool | None) -> Stage | None:
    """The first stage that a wrongly answered question does not pass; None for a right one."""
    if not row.answers or row.exact_match:
        return None
    passed = _passed(row, in_corpus=in_corpus)
    return next((stage for stage in get_args(Stage) if not passed[stage]), "reading")


def with_losses(
    rows: Sequence[ScoredAnswer], in_corpus: dict[str, bool | None]
) -> list[ScoredAnswer]:
    """Give each row its ``in_corpus`` (by question id) and ``lost_at``."""
    done = []
    for row in rows:
        known = True if _found(row) else in_corpus.get(row.id)
        known = known if row.answers else None
        done.append(row.lost(lost_at(row, in_corpus=known), in_corpus=known))
    return done


def funnel(rows: Sequence[ScoredAnswer]) -> tuple[FunnelStage, ...]:
    """Count for each stage who passed it and who was lost; rows have their ``lost_at``.

    The corpus stands in it only where it was asked for every question that retrieval missed.
    """
    asked = [row for row in rows if row.answers]
    if not asked:
        return ()
    right = sum(row.exact_match for row in asked)
    stages = []
    for stage in get_args(Stage):
        if stage == "corpus" and any(row.in_corpus is None for row in asked):
            continue
        passing = [row for row in asked if _passed(row, in_corpus=row.in_corpus)[stage]]
        lost = sum(row.lost_at == stage for row in asked)
        if stage == "reading":
            rate: float | None = 1.0
        else:
            rate = sum(row.exact_match for row in passing) / len(passing) if passing else None
        bound = None if rate is None else round(100 * (right + lost * rate) / len(asked), 4)
        stages.append(FunnelStage(stage, len(passing), lost, bound))
    return tuple(stages)


def _passed(row: ScoredAnswer, *, in_corpus: bool | None) -> dict[Stage, bool]:
    if not row.depths:  # closed book: only the reader can lose
        return {stage: stage != "reading" or row.exact_match for stage in get_args(Stage)}
    found = _found(row)
    rank = row.first_answering.get(FINAL)
    packed = row.in_prompt
    offered = packed or (rank is not None and rank <= row.reranked)
    return {
        "corpus": found or offered or in_corpus is not False,
        "retrieval": found or offered,
        "reranking": offered,
        "packing": packed,
        "reading": row.exact_match,
    }


def _found(row: ScoredAnswer) -> bool:
    return row.in_prompt or row.first_answering.get(_RETRIEVED) is not None
