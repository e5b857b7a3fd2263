"""Other answers in the place of a question's own, in its passage and as what is to be written.

A reader that has seen a question often enough knows its answer without reading. Where the passage
says something else, it has to read (Longpre et al. 2021, arXiv 2109.05052, who found so what
readers have memorised, and trained it away).

Knows rows of text alone; nothing of models.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from rag_frozen.types import Passage

__all__ = ["Substitutes"]

_ASKED = re.compile(
    r"\b(?:(who|whom|whose|when|where|how (?:many|much|long|old|far|tall))|(?:what|which) (\w+))\b"
)
_VAGUE_WORDS = """
is was are were do does did has had have can could will would the of in
"""
_VAGUE = frozenset(_VAGUE_WORDS.split())
"""After "what" these say nothing of what is asked for."""
_MONTH = re.compile(
    r"\b(january|february|march|april|may|june|july|august|september|october|november|december)\b"
)
_MOST_WORDS = 6
_FEWEST_ANSWERS = 8
"""A kind with fewer answers has too little to choose from, and keeps its own."""
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Substitutes:
    """Answers by their kind: what is asked for, and how the answer is written.

    >>> others = Substitutes.of([("who sang it", f"Singer {letter}") for letter in "abcdefghij"])
    >>> passage = Passage("1", "A song", "A song, sung by Singer a in 1990.")
    >>> made = others.put_in("who sang it", "Singer a", passage, random.Random(3))
    >>> made[0].text, made[1]
    ('A song, sung by Singer d in 1990.', 'Singer d')
    """

    _of_kind: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, answered: Iterable[tuple[str, str]]) -> Substitutes:
        """Collect the answers of questions, each once, in their order."""
        found: dict[tuple[str, str], dict[str, None]] = {}
        for question, answer in answered:
            kind = _kind(question, answer)
            if kind is not None and len(answer.split()) <= _MOST_WORDS:
                found.setdefault(kind, {})[answer] = None
        return cls({kind: list(answers) for kind, answers in found.items()})

    def put_in(
        self, question: str, answer: str, passage: Passage, rng: random.Random
    ) -> tuple[Passage, str]:
        """Write another answer of the same kind wherever the passage, its title included, has this
        one; return both. They stay as they are where the text does not hold the answer as words of
        their own, where the question names it, or where there is no other that the passage lacks.
        """
        own = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)", re.IGNORECASE)
        kind = _kind(question, answer)
        choice = self._of_kind.get(kind, ()) if kind is not None else ()
        if len(choice) < _FEWEST_ANSWERS or own.search(question) or not own.search(passage.text):
            return passage, answer
        present = f"{question} {passage.title} {passage.text}".lower()
        others = (rng.choice(choice) for _ in range(_TRIES))
        other = next((one for one in others if one.lower() not in present), None)
        if other is None:
            return passage, answer
        literal = other.replace("\\", r"\\")  # a backslash would be read as a group's number
        changed = Passage(
            passage.id, own.sub(literal, passage.title), own.sub(literal, passage.text)
        )
        return changed, other


def _kind(question: str, answer: str) -> tuple[str, str] | None:
    """What is asked for, and the answer's shape; None where the question does not tell.

    >>> _kind("when was it built", "1889"), _kind("who built it", "Gustave Eiffel")
    (('when', 'year'), ('who', 'name'))
    >>> _kind("what metal is it made of", "puddled iron"), _kind("how many steps", "1,665 steps")
    (('metal', 'words'), ('how many', 'number'))
    >>> _kind("what is it", "a tower"), _kind("when is it open", "every day")
    (None, None)
    """
    asked = _ASKED.search(question.lower())
    what = (asked[1] or asked[2]) if asked else None
    shape = _shape(answer)
    if what is None or what in _VAGUE:
        return None
    if shape in ("name", "words") and (what == "when" or what.startswith("how ")):
        return None
    return what, shape


def _shape(answer: str) -> str:
    lowered = answer.lower()
    if re.fullmatch(r"\d{4}", answer):
        return "year"
    if not any(character.isdigit() for character in answer):
        return "name" if answer[:1].isupper() else "words"
    if _MONTH.search(lowered):
        return "date"
    if "%" in answer or "percent" in lowered:
        return "percent"
    return "money" if any(sign in answer for sign in "$£€¥") else "number"
