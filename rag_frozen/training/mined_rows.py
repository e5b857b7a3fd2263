"""The rows that mining writes: which retrieved passages answer a question, and which do not.

Knows passages, answers and words alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_frozen.errors import InputError
from rag_frozen.evaluation.metrics import has_answer
from rag_frozen.normalization import normalize_answer
from rag_frozen.types import Passage

__all__ = [
    "MiningSettings",
    "asks_yes_or_no",
    "chosen_negatives",
    "mined_row",
    "own_passage",
    "question_overlap",
    "row_of_own_passage",
    "shared_words",
]

_MOST_ANSWER_WORDS = 12
_QUESTION_WORD_LIST = """
who what when where which why how whom whose is are was were do does did has have had can
could will would many much in of on at to for by with from and or name first last
"""
_QUESTION_WORDS = frozenset(_QUESTION_WORD_LIST.split())
_MOST_SHARED = 0.5
"""Of a passage's words in a negative, where the answer cannot tell."""


@dataclass(frozen=True, slots=True)
class MiningSettings:
    """How deep to look, and what to keep.

    ``min_overlap`` is the share of the question's own words (question words and articles left
    out) that a positive must hold in title and text: an answer such as "2" stands in many passages
    that do not answer.

    With ``own_passages`` a question that brings its passage (``title`` and ``text``, as reading
    comprehension does) has that as its only positive, found or not. Of such a question that asks
    for yes or no, which no text answers by a match, negatives are hits that share less than half
    of the passage's words.

    Negatives are the first ``negatives`` of the hits that do not answer; with ``spread`` as many,
    evenly spread over all of these. Where only the first hits are negatives and positives may
    stand anywhere, a reranker may learn that what retrieval ranks low is good.
    """

    k: int = 50
    positives: int = 3
    negatives: int = 8
    min_overlap: float = 0.3
    own_passages: bool = False
    spread: bool = False

    def __post_init__(self) -> None:
        if self.k < 1 or self.positives < 1 or self.negatives < 0:
            raise InputError(
                f"Mining needs k >= 1, positives >= 1 and negatives >= 0, not {self.k}, "
                f"{self.positives} and {self.negatives}."
            )
        if not 0 <= self.min_overlap <= 1:
            raise InputError(f"min_overlap lies between 0 and 1, not at {self.min_overlap}.")


def asks_yes_or_no(answers: Sequence[str]) -> bool:
    """The answers are yes or no, which a passage answers without holding the word.

    >>> asks_yes_or_no(["no"]), asks_yes_or_no(["Norway"])
    (True, False)
    """
    return bool(answers) and {normalize_answer(a) for a in answers} <= {"yes", "no"}


def question_overlap(question: str, passage: Passage) -> float:
    """Share of the question's own words that stand in the passage's title or text.

    >>> question_overlap("who wrote hamlet", Passage("1", "Hamlet", "A play by Shakespeare."))
    0.5
    """
    own = [w for w in normalize_answer(question).split() if w not in _QUESTION_WORDS]
    if not own:
        return 1.0
    words = set(normalize_answer(f"{passage.title} {passage.text}").split())
    return sum(word in words for word in own) / len(own)


def mined_row(
    row: Mapping[str, Any],
    found: Sequence[Passage],
    scores: Mapping[str, float],
    settings: MiningSettings,
) -> dict[str, Any] | None:
    """A row by distant supervision: hits that hold an answer, and hits that hold none.

    Args:
        row: a question with its ``answers``.
        found: its hits, best first, none of them excluded.
        scores: the retriever's, by passage id.
        settings: depths and filters.

    Returns:
        The row to write, or None where no hit answers.
    """
    answers = [a for a in row["answers"] if isinstance(a, str) and a.strip()]
    if not answers or min(len(a.split()) for a in answers) > _MOST_ANSWER_WORDS:
        return None
    holding = [has_answer(p.text, answers) for p in found]
    question = str(row["question"])
    overlaps = {
        rank: question_overlap(question, found[rank]) for rank, holds in enumerate(holding) if holds
    }
    good = [rank for rank, overlap in overlaps.items() if overlap >= settings.min_overlap]
    if not good:
        return None
    # an answer in the title alone makes a passage doubtful as a negative, too
    negatives = [
        p
        for p, holds in zip(found, holding, strict=True)
        if not holds and not has_answer(p.title, answers)
    ]
    negatives = chosen_negatives(negatives, settings)
    positives = [found[rank] for rank in good[: settings.positives]]
    return _written(row, answers, good[0], positives, negatives, scores)


def own_passage(row: Mapping[str, Any]) -> Passage | None:
    """The passage that a question brings, if any."""
    if not isinstance(row.get("text"), str):
        return None
    return Passage(str(row.get("pid", "")), str(row.get("title", "")), row["text"])


def row_of_own_passage(
    row: Mapping[str, Any],
    own: Passage,
    found: Sequence[Passage],
    scores: Mapping[str, float],
    settings: MiningSettings,
) -> dict[str, Any] | None:
    """A row whose positive is the question's own passage; arguments as of :func:`mined_row`.

    Returns:
        The row to write, or None where its passage does not hold the answer, or is marked as near
        a passage of the evaluation (``near_nq_eval_passage``).
    """
    answers = [a for a in row["answers"] if isinstance(a, str) and a.strip()]
    by_match = not asks_yes_or_no(answers)
    if not answers or row.get("near_nq_eval_passage"):
        return None
    if by_match and not has_answer(own.text, answers):
        return None
    negatives = [
        p
        for p in found
        if p.text != own.text
        and not (
            has_answer(p.text, answers) or has_answer(p.title, answers)
            if by_match
            else shared_words(own, p) >= _MOST_SHARED
        )
    ]
    negatives = chosen_negatives(negatives, settings)
    ranks = [rank for rank, p in enumerate(found) if p.text == own.text]
    rank = ranks[0] if ranks else len(found)
    positive = found[rank] if ranks else own
    return _written(row, answers, rank, [positive], negatives, scores)


def chosen_negatives(hits: Sequence[Passage], settings: MiningSettings) -> list[Passage]:
    """Those of the hits without an answer that a row keeps, best first.

    >>> hits = [Passage(str(n), "", "text") for n in range(9)]
    >>> [p.id for p in chosen_negatives(hits, MiningSettings(negatives=3))]
    ['0', '1', '2']
    >>> [p.id for p in chosen_negatives(hits, MiningSettings(negatives=3, spread=True))]
    ['0', '4', '8']
    """
    n = settings.negatives
    if not settings.spread or n < 2 or len(hits) <= n:
        return list(hits[:n])
    return [hits[round(place * (len(hits) - 1) / (n - 1))] for place in range(n)]


def shared_words(passage: Passage, other: Passage) -> float:
    """Share of the passage's different words that the other holds.

    >>> shared_words(Passage("1", "", "to be or not"), Passage("2", "", "not to go"))
    0.5
    """
    words = set(normalize_answer(passage.text).split())
    return len(words & set(normalize_answer(other.text).split())) / max(1, len(words))


def _written(
    row: Mapping[str, Any],
    answers: Sequence[str],
    rank: int,
    positives: Sequence[Passage],
    negatives: Sequence[Passage],
    scores: Mapping[str, float],
) -> dict[str, Any]:
    best = positives[0]
    question = str(row["question"])
    return {
        "id": str(row.get("id", "")),
        "question": question,
        "answers": answers,
        "pid": best.id,
        "title": best.title,
        "text": best.text,
        "rank": rank,
        "q_overlap": round(question_overlap(question, best), 3),
        "positives": [_passage(p, scores) for p in positives],
        "negatives": [_passage(p, scores) for p in negatives],
        "neg_pids": [p.id for p in negatives],
    }


def _passage(passage: Passage, scores: Mapping[str, float]) -> dict[str, str | float]:
    row: dict[str, str | float]
    row = {"pid": passage.id, "title": passage.title, "text": passage.text}
    if passage.id in scores:
        row["score"] = round(scores[passage.id], 6)
    return row
