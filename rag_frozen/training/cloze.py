"""Questions without annotators: blank a name, a date or a number in a sentence of a passage.

After Lewis et al. 2019, *Unsupervised Question Answering by Cloze Translation* (arXiv 1906.04980),
simplified: half of the questions keep the sentence with a mask in it, half put a question word in
front of a noisy bag of the sentence's words, which is close to how people type into a search box.

Pure functions over text and a seeded generator; knows nothing of tokens or models.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "Blank",
    "Cloze",
    "blanks",
    "crop_around",
    "is_stop_word",
    "make_cloze",
    "search_words",
]

_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = rf"(?:\d{{1,2}}\s+(?:{_MONTH})(?:\s+\d{{4}})?|(?:{_MONTH})\s+(?:\d{{1,2}},\s+)?\d{{4}})"
_YEAR = r"\b(?:1[0-9]{3}|20[0-2][0-9])\b"
_NUMBER = (
    r"\b\d[\d,]*(?:\.\d+)?(?:\s(?:million|billion|percent|km|kilometres|miles|metres|feet))?\b"
)
_NAME = r"[A-Z][\w’'-]+(?:\s(?:(?:of|the|de|von|van|da|du|la|and)\s)?[A-Z][\w’'-]+){0,4}"
_TERM = r"\b[a-z]{4,}(?:\s[a-z]{5,})?\b"
_KINDS = (
    ("date", re.compile(_DATE)),
    ("year", re.compile(_YEAR)),
    ("number", re.compile(_NUMBER)),
    ("name", re.compile(_NAME)),
    ("term", re.compile(_TERM)),
)
_KIND_WEIGHT = {"date": 2.0, "year": 1.5, "number": 1.5, "name": 6.0, "term": 1.0}
_ASK = {
    "date": ("when", "when", "what date", "when did", "when was"),
    "year": ("when", "what year", "in what year", "when did", "when was"),
    "number": ("how many", "how many", "how much", "what number", "how"),
    "name": ("who", "who", "what", "which", "what is the name of", "who is", "who was"),
    "place": ("where", "where", "where is", "where was", "in which", "where did"),
    "term": ("what", "what", "what is", "which", "what type of"),
}
_PLACE_BEFORE = re.compile(r"\b(?:in|at|near|from|to|across|throughout)(?:\sthe)?\s$")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"“(])")
_PRONOUN = re.compile(r"^(?:He|She|It|They|This|His|Her|Its|Their)\b")
_STOP_WORDS = """
a an the of in on at to for by with from and or is are was were be been as that this it its
which who also his her their had has have they them then than when where while would could
should about after before into over under between during through because such some many most
more other there these those what will each both only very much often later being make made
does made used using called known first last same own your just even well well-known
"""
_STOP = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True, slots=True)
class Cloze:
    """A made question, its answer, and where the answer stands in the passage's text."""

    question: str
    answer: str
    start: int


@dataclass(frozen=True, slots=True)
class Blank:
    """What was taken out of a sentence, and what is left of it: ``kind`` is ``date``, ``year``,
    ``number``, ``name``, ``place`` or ``term``; a pronoun that begins ``before`` has become the
    passage's title; ``start`` is the answer's place in the passage's text."""

    kind: str
    answer: str
    before: str
    after: str
    sentence: str
    start: int


def make_cloze(title: str, text: str, rng: random.Random) -> Cloze | None:
    """Make one question from a passage, or None where no sentence offers a blank.

    The answer is a substring of ``text`` and does not stand in the question.
    """
    for blank in blanks(title, text, rng, most=4):
        question = _mask_form(blank.before, blank.after, rng)
        if rng.random() < 0.5:
            question = _search_form(blank.kind, blank.before, blank.after, title, rng)
        if blank.answer.lower() in question.lower() or len(question.split()) < 3:
            continue
        return Cloze(question, blank.answer, blank.start)
    return None


def blanks(title: str, text: str, rng: random.Random, *, most: int) -> Iterator[Blank]:
    """Take one name, date, number or word out of each of at most ``most`` sentences, in the
    generator's order; a sentence that offers none is left out."""
    sentences = _sentences(text)
    rng.shuffle(sentences)
    for offset, sentence in sentences[:most]:
        found = _choose_blank(sentence, rng)
        if found is None:
            continue
        kind, start, end = found
        before = sentence[:start]
        if _PRONOUN.match(before):
            before = _PRONOUN.sub(lambda match: title, before, count=1)
        yield Blank(kind, sentence[start:end], before, sentence[end:], sentence, offset + start)


def search_words(before: str, after: str, *, reach: int, rng: random.Random) -> list[str]:
    """Words of a sentence around its blank, ``reach`` to each side at most, as people type them
    into a search box: without punctuation, some of them left out, small ones rather."""
    words = before.split()[-reach:] + after.split()[:reach]
    kept = [word.strip(".,;:()\"'“”") for word in words if rng.random() > _drop_rate(word)]
    return [word for word in kept if word]


def is_stop_word(word: str) -> bool:
    """True for a lower-case word that says nothing of a sentence's matter."""
    return word in _STOP


def crop_around(text: str, start: int, end: int, *, n_words: int, rng: random.Random) -> str:
    """Cut ``text`` to about ``n_words`` words that hold the characters ``start`` to ``end``.

    >>> crop_around("one two three four five", 4, 7, n_words=2, rng=random.Random(1))
    'two three'
    """
    words = [match.span() for match in re.finditer(r"\S+", text)]
    first = next(i for i, (_, stop) in enumerate(words) if stop > start)
    last = next((i for i, (_, stop) in enumerate(words) if stop >= end), len(words) - 1)
    spare = n_words - (last - first + 1)
    if spare <= 0:
        return text[words[first][0] : words[last][1]]
    left = max(0, min(first, first - rng.randint(0, spare)))
    left = max(0, min(left, len(words) - n_words))
    right = min(len(words) - 1, max(last, left + n_words - 1))
    return text[words[left][0] : words[right][1]]


def _sentences(text: str) -> list[tuple[int, str]]:
    found, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        found.append((start, text[start : match.start()]))
        start = match.end()
    found.append((start, text[start:]))
    return [(offset, sentence) for offset, sentence in found if len(sentence.split()) >= 5]


def _choose_blank(sentence: str, rng: random.Random) -> tuple[str, int, int] | None:
    spans: list[tuple[str, int, int]] = []
    taken: list[tuple[int, int]] = []
    for kind, pattern in _KINDS:
        for match in pattern.finditer(sentence):
            start, end = match.span()
            if any(start < stop and begin < end for begin, stop in taken):
                continue
            if kind == "name" and start == 0 and " " not in match.group():
                continue  # a capital at the start of a sentence says nothing
            if kind == "term" and _STOP.intersection(match.group().split()):
                continue
            taken.append((start, end))
            place = kind == "name" and _PLACE_BEFORE.search(sentence[:start]) is not None
            spans.append(("place" if place else kind, start, end))
    if not spans:
        return None
    weights = [_KIND_WEIGHT.get(kind, _KIND_WEIGHT["name"]) for kind, _, _ in spans]
    return rng.choices(spans, weights)[0]


def _mask_form(before: str, after: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        reach = rng.randint(4, 12)
        before = " ".join(before.split()[-reach:])
        after = " ".join(after.split()[:reach])
    return f"{before.strip()} [MASK] {after.strip()}"


def _search_form(kind: str, before: str, after: str, title: str, rng: random.Random) -> str:
    kept = search_words(before, after, reach=rng.randint(4, 10), rng=rng)
    if rng.random() < 0.15:
        rng.shuffle(kept)
    if rng.random() < 0.3 and title.lower() not in " ".join(kept).lower():
        kept.append(title)
    question = " ".join([rng.choice(_ASK[kind]), *kept])
    return question.lower() if rng.random() < 0.7 else question + "?"


def _drop_rate(word: str) -> float:
    return 0.45 if word.lower() in _STOP else 0.15
