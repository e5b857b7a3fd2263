"""A cloze question as people type it, and which retrieved passage answers it in other words.

Knows text alone; :mod:`rag_frozen.training.retrieved_cloze` draws, retrieves and writes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_frozen.errors import InputError
from rag_frozen.normalization import normalize_answer
from rag_frozen.training.cloze import Blank, blanks, is_stop_word, search_words
from rag_frozen.types import Passage

__all__ = ["AskedCloze", "RetrievedClozeSettings", "answered_row", "ask_of", "bare_title"]

_RUN = 6
"""Passages that share so many words in a row with the sentence tell it again."""
_NEAR = 200
"""Characters to both sides of the answer that have to speak of the same."""
_LONGEST_SENTENCE, _LONGEST_ANSWER, _QUESTION_WORDS = 40, 5, 9
_ASK = {
    "date": ("when", "when did", "when was", "what date"),
    "year": ("when", "what year", "in what year", "when did", "when was"),
    "number": ("how many", "how much", "what number of", "how"),
    "name": ("who", "who", "who is", "who was", "what", "which", "what is the name of"),
    "place": ("where", "where is", "where was", "where did", "in which", "what", "which"),
}
_CALENDAR_WORDS = """
january february march april may june july august september october november december
monday tuesday wednesday thursday friday saturday sunday
"""
_CALENDAR = frozenset(_CALENDAR_WORDS.split())
"""Capitalised, and no names."""
_COUNTS = ("number", "year")
"""Kinds whose answers stand in many passages by chance."""


@dataclass(frozen=True, slots=True)
class RetrievedClozeSettings:
    """How many rows, from which passages, and how near question and answering passage must be.

    ``only`` are patterns of ids (``simplewiki:*``): sentences and answering passages come from
    these alone. ``min_overlap`` is the share of the sentence's own words that the answering
    passage must hold (``min_overlap_of_counts`` where the answer is a number or a year), and
    ``min_near`` the share that must stand near the answer.
    """

    rows: int = 10_000
    seed: int = 0
    k: int = 25
    negatives: int = 6
    only: tuple[str, ...] = ()
    min_overlap: float = 0.45
    min_overlap_of_counts: float = 0.6
    min_near: float = 0.3

    def __post_init__(self) -> None:
        if self.rows < 1 or self.k < 1 or self.negatives < 0:
            raise InputError(
                f"Retrieved cloze questions need rows >= 1, k >= 1 and negatives >= 0, not "
                f"{self.rows}, {self.k} and {self.negatives}."
            )


@dataclass(frozen=True, slots=True)
class AskedCloze:
    """What was taken out of a sentence of a passage."""

    passage: Passage
    blank: Blank
    words: frozenset[str]
    """The sentence's own, its blank left out."""


def ask_of(passage: Passage, rng: random.Random) -> AskedCloze | None:
    """Take something out of a sentence of a passage, or None where nothing fits."""
    subject = normalize_answer(passage.title)
    for blank in blanks(passage.title, passage.text, rng, most=3):
        if blank.kind == "term" or len(blank.sentence.split()) > _LONGEST_SENTENCE:
            continue
        answer = normalize_answer(blank.answer)
        words = _own_words(f"{blank.before} {blank.after}")
        if len(blank.answer.split()) > _LONGEST_ANSWER or not answer or answer in subject:
            continue
        if answer in _CALENDAR:
            continue
        if len(words) >= 4:
            return AskedCloze(passage, blank, words)
    return None


def answered_row(
    one: AskedCloze,
    hits: Sequence[tuple[int, Passage]],
    settings: RetrievedClozeSettings,
    rng: random.Random,
) -> Mapping[str, Any] | None:  # Any: JSON values
    """The row of a question, or None where none of its hits answers.

    Args:
        one: what is asked.
        hits: passages with their ranks, best first, the question's own not among them.
        settings: how near they must be.
        rng: chooses words of the question.
    """
    answer = one.blank.answer
    whole = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
    told = _runs(one.blank.sentence)
    least = settings.min_overlap_of_counts if one.blank.kind in _COUNTS else settings.min_overlap
    best: tuple[float, int, Passage, float] | None = None
    negatives: list[Passage] = []
    for rank, passage in hits:
        at = whole.search(passage.text)
        if at is None:
            if answer.lower() not in f"{passage.title} {passage.text}".lower():
                negatives.append(passage)
            continue
        near = passage.text[max(0, at.start() - _NEAR) : at.start() + _NEAR]
        overlap = _share(one.words, f"{passage.title} {passage.text}")
        overlap_near = _share(one.words, near)
        if overlap < least or overlap_near < settings.min_near:
            continue
        if _speaks_of(one.passage.title, passage) and not told & _runs(passage.text):
            score = overlap + overlap_near
            if best is None or score > best[0]:
                best = (score, rank, passage, overlap)
    if best is None:
        return None
    question = _question(one, rng)
    if answer.lower() in question.lower():
        return None
    _, rank, passage, overlap = best
    chosen = negatives[: settings.negatives]
    return {
        "question": question,
        "answers": [answer],
        **_written(passage),
        "rank": rank,
        "q_overlap": round(overlap, 3),
        "negatives": [_written(p) for p in chosen],
        "neg_pids": [p.id for p in chosen],
        "asked_of": one.passage.id,
    }


def _question(one: AskedCloze, rng: random.Random) -> str:
    """A question word and a window of the sentence's words, the subject among them."""
    kept = search_words(one.blank.before, one.blank.after, reach=10, rng=rng)
    if len(kept) > _QUESTION_WORDS:
        start = rng.randint(0, len(kept) - _QUESTION_WORDS)
        kept = kept[start : start + _QUESTION_WORDS]
    subject = bare_title(one.passage.title)
    if not set(subject.lower().split()) <= set(" ".join(kept).lower().split()):
        kept = [subject, *kept] if rng.random() < 0.6 else [*kept, subject]
    question = " ".join([rng.choice(_ASK[one.blank.kind]), *kept])
    return question.lower() if rng.random() < 0.8 else question + "?"


def bare_title(title: str) -> str:
    """A title without what tells it from others of its name.

    >>> bare_title("Titanic (1997 film)")
    'Titanic'
    """
    return title.split(" (")[0]


def _own_words(text: str) -> frozenset[str]:
    return frozenset(w for w in normalize_answer(text).split() if not is_stop_word(w))


def _share(words: frozenset[str], text: str) -> float:
    return len(words & _own_words(text)) / len(words)


def _speaks_of(title: str, passage: Passage) -> bool:
    subject = _own_words(bare_title(title))
    return bool(subject) and subject <= _own_words(f"{passage.title} {passage.text}")


def _runs(text: str) -> set[tuple[str, ...]]:
    words = normalize_answer(text).split()
    return {tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)}


def _written(passage: Passage) -> dict[str, str]:
    return {"pid": passage.id, "title": passage.title, "text": passage.text}
