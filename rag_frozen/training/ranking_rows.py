"""Rows that rankings are learned from, held-out lists that they are measured on, and drawing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from rag_frozen.types import Passage

__all__ = [
    "RankingRow",
    "RankingSource",
    "ValidationList",
    "draw_rows",
    "ranking_marks",
    "written",
]

Drawn = TypeVar("Drawn")
Drawn_co = TypeVar("Drawn_co", covariant=True)


@dataclass(frozen=True, slots=True)
class RankingRow:
    """A question, its answers, passages that hold one, and passages near it that hold none.

    ``log_likelihoods`` are the frozen reader's of the answer given each of the first
    ``candidates``, where it was asked. ``scores`` are the retriever's of the candidates by their
    texts, as far as the row's file has them.
    """

    question: str
    answers: tuple[str, ...]
    positives: tuple[Passage, ...]
    negatives: tuple[Passage, ...]
    log_likelihoods: tuple[float, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def candidates(self) -> tuple[Passage, ...]:
        """Positives, then negatives."""
        return (*self.positives, *self.negatives)


@dataclass(frozen=True, slots=True)
class RankingSource:
    """Rows that are drawn with a weight."""

    weight: float
    rows: tuple[RankingRow, ...]


class Weighted(Protocol[Drawn_co]):
    """Rows that are drawn with a weight."""

    @property
    def weight(self) -> float: ...
    @property
    def rows(self) -> Sequence[Drawn_co]: ...


@dataclass(frozen=True, slots=True)
class ValidationList:
    """A held-out question with its candidates as the first stage ranked them, and which of them
    hold an answer."""

    question: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]
    answering: tuple[bool, ...]
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    """The retriever's, by the candidates' texts, as far as they are known."""


def written(passage: Passage) -> str:
    """A passage as encoder and cross-encoder read it, in training and afterwards.

    >>> written(Passage("1", "Hamlet", "A play."))
    'Hamlet. A play.'
    """
    return f"{passage.title}. {passage.text}" if passage.title else passage.text


def draw_rows(
    sources: Sequence[Weighted[Drawn]],
    n: int,
    *,
    rng: random.Random,
    marks: Callable[[Drawn], Iterable[object]] | None = None,
) -> list[Drawn]:
    """Draw ``n`` rows by the sources' weights.

    Args:
        sources: with at least one row each.
        n: how many.
        rng: a seeded generator.
        marks: no two rows share a mark, such as question and passages, so that the passages of
            one are negatives of the others; fewer come back where there are not so many.
    """
    weights = [source.weight for source in sources]
    drawn: list[Drawn] = []
    seen: set[object] = set()
    for _ in range(n if marks is None else 20 * n):
        row = rng.choice(rng.choices(sources, weights)[0].rows)
        if marks is not None:
            own = set(marks(row))
            if own & seen:
                continue
            seen |= own
        drawn.append(row)
        if len(drawn) == n:
            break
    return drawn


def ranking_marks(row: RankingRow) -> list[str]:
    """The question and its positives' texts, by which rows of a batch are kept apart."""
    return [row.question, *(p.text for p in row.positives)]
