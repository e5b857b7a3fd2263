"""The answer as text: the passage's own spelling, and where an answer stands in a passage.

An uncased vocabulary writes "rontgen" and "283, 846"; where the answer's tokens stand in a packed
passage, the passage knows better. Pure functions over strings and token ids.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

__all__ = ["occurrences", "passage_spelling", "passages_begin", "splits_word", "tidy"]

_BEFORE = re.compile(r"\s+([.,;:!?%)\]}’”])")
_AFTER = re.compile(r"([(\[{“$£€#])\s+")
_THOUSANDS = re.compile(r"(?<=\d)\s*,\s*(?=\d{3}(?!\d))")
_INSIDE_NUMBER = re.compile(r"(?<=\d)\s*([.:/])\s*(?=\d)")
_JOINED = re.compile(r"(?<=\w)\s*([-–/])\s*(?=\w)")
_APOSTROPHE = re.compile(r"(\w+)\s*(['’])\s*(?=(\w+))")


def passage_spelling(
    answer_ids: Sequence[int],
    prompt: str,
    prompt_ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    *,
    after: int = 0,
) -> str | None:
    """Return the prompt's own text at the first place where the answer's tokens stand in it.

    Args:
        answer_ids: the answer's tokens, without special ones.
        prompt: the packed prompt.
        prompt_ids: its tokens.
        offsets: half-open character ranges of the tokens; empty ones (special tokens) never match.
        after: the first character that may count (the question before it does not).

    Returns:
        The text with white space runs as single spaces, or None where the tokens do not stand
        there as whole words.
    """
    n = len(answer_ids)
    if n == 0:
        return None
    wanted = list(answer_ids)
    for first in range(len(prompt_ids) - n + 1):
        if prompt_ids[first] != wanted[0] or list(prompt_ids[first : first + n]) != wanted:
            continue
        places = offsets[first : first + n]
        start, end = places[0][0], _after_accents(prompt, places[-1][1])
        if start < after or any(begin == stop for begin, stop in places):
            continue
        if splits_word(prompt, start) or splits_word(prompt, end):
            continue
        return " ".join(prompt[start:end].split())
    return None


def passages_begin(prompt: str, question: str) -> int:
    """The first character of a prompt that an answer's spelling may be taken from.

    That is after the question where the question stands first, else the beginning.

    >>> passages_begin("question: who? passage: Röntgen", "who?")
    14
    >>> passages_begin("Röntgen found the rays that bear his name. Question: who?", "who?")
    0
    """
    asked = prompt.find(question) if question else -1
    return asked + len(question) if 0 <= asked <= len(prompt) // 2 else 0


def tidy(text: str) -> str:
    """Undo the spaces that word-piece decoding leaves around punctuation.

    What word pieces no longer tell is guessed: a comma joins digits before three digits only (a
    year is no thousand), an apostrophe joins unless the words look like a plural's possessive or
    a quotation.

    >>> tidy("283, 846"), tidy("o ' brien"), tidy("jean - luc ( actor )"), tidy("3 . 5 %")
    ('283,846', "o'brien", 'jean-luc (actor)', '3.5%')
    >>> tidy("1998 , 2000"), tidy("achilles ' heel"), tidy("the king ' s men")
    ('1998, 2000', "achilles' heel", "the king's men")
    """
    text = " ".join(text.split())
    text = _INSIDE_NUMBER.sub(r"\1", _THOUSANDS.sub(",", text))
    quoted = sum(text.count(mark) for mark in "'’") % 2 == 0
    text = _APOSTROPHE.sub(lambda match: _with_apostrophe(match, quoted), _JOINED.sub(r"\1", text))
    return _AFTER.sub(r"\1", _BEFORE.sub(r"\1", text))


def occurrences(answer: str, text: str) -> tuple[tuple[int, int], ...]:
    """Find where an answer's text occurs in a passage.

    Case, accents and the kind of white space do not count; only whole words do.

    Returns:
        Half-open character ranges of ``text``, in order, not overlapping.

    >>> occurrences("rontgen", "Wilhelm Röntgen; Röntgenium")
    ((8, 15),)
    """
    words = [_folded(word)[0] for word in answer.split()]
    if not any(words):
        return ()
    folded, places = _folded(text)
    pattern = r"\s+".join(re.escape(word) for word in words if word)
    before = r"(?<!\w)" if re.match(r"\w", pattern) else ""
    behind = r"(?!\w)" if re.search(r"\w$", pattern) else ""
    found = []
    for match in re.finditer(before + pattern + behind, folded):
        end = _after_accents(text, places[match.end() - 1] + 1)
        found.append((places[match.start()], end))
    return tuple(found)


def _with_apostrophe(match: re.Match[str], quoted: bool) -> str:
    left, mark, right = match.groups()
    if len(left) <= 2 or len(right) <= 2:
        return f"{left}{mark}"  # o'brien, king's, don't
    if left.endswith("s"):
        return f"{left}{mark} "  # achilles' heel
    return match.group() if quoted else f"{left}{mark}"  # 'a quotation', ba'ath


def _folded(text: str) -> tuple[str, list[int]]:
    """Lower case without accents, and for each of its characters the place in ``text``."""
    letters: list[str] = []
    places: list[int] = []
    for place, char in enumerate(text):
        for part in unicodedata.normalize("NFD", char.casefold()):
            if not unicodedata.combining(part):
                letters.append(part)
                places.append(place)
    return "".join(letters), places


def _after_accents(text: str, end: int) -> int:
    """Move past accents that are characters of their own: they belong to the letter before."""
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return end


def splits_word(text: str, place: int) -> bool:
    """True where a word goes on across ``place``."""
    if not 0 < place < len(text):
        return False
    before = text[place - 1]
    return (before.isalnum() or bool(unicodedata.combining(before))) and text[place].isalnum()
