"""The numbers of the report that ``metrics.json`` does not hold: groups of questions, curves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from rag_frozen.evaluation.scoring import ScoredAnswer

__all__ = ["Group", "answer_length", "groups", "packed_passages", "question_word", "recall_curve"]

Group = tuple[str, int, float]
"""A group's name, its questions, and its exact match in percent."""

_WORDS = ("who", "what", "when", "where", "which", "why", "how many", "how much", "how")
_LENGTHS = ((1, "1 word"), (2, "2 words"), (3, "3 words"), (5, "4 or 5 words"))


def question_word(text: str) -> str:
    """The question word that comes first in a question; ``none`` where there is none.

    >>> question_word("In which year did it end?"), question_word("capital of france")
    ('which', 'none')
    """
    lowered = " ".join(re.findall(r"\w+", text.lower()))
    found = [
        (match.start(), -len(word), word)
        for word in _WORDS
        if (match := re.search(rf"\b{word}\b", lowered))
    ]
    return min(found)[2] if found else "none"


def answer_length(row: ScoredAnswer) -> str:
    """The length of the shortest gold answer, in words.

    Grouped so that each group has some questions: 1, 2, 3, 4 or 5, more.
    """
    words = min(len(answer.split()) for answer in row.answers)
    return next((name for most, name in _LENGTHS if words <= most), "6 words or more")


def packed_passages(row: ScoredAnswer) -> str:
    """How many passages stood in the prompt."""
    n = len(row.evidence)
    return f"{n} passage" if n == 1 else f"{n} passages"


def groups(rows: Sequence[ScoredAnswer], key: Callable[[ScoredAnswer], str]) -> list[Group]:
    """Exact match of each group of the answerable questions, the largest group first."""
    found: dict[str, list[bool]] = {}
    for row in rows:
        if row.answers:
            found.setdefault(key(row), []).append(row.exact_match)
    ordered = sorted(found.items(), key=lambda one: (-len(one[1]), one[0]))
    return [(name, len(right), 100 * sum(right) / len(right)) for name, right in ordered]


def recall_curve(rows: Sequence[ScoredAnswer], ranking: str) -> Iterator[tuple[int, float]]:
    """(k, answer-recall@k in [0, 1]) of a ranking, for k from 1 to its depth."""
    asked = [row for row in rows if row.answers]
    deepest = max((row.depths.get(ranking, 0) for row in asked), default=0)
    ranks = [row.first_answering.get(ranking) for row in asked]
    for k in range(1, deepest + 1):
        yield k, sum(rank is not None and rank <= k for rank in ranks) / len(asked)
