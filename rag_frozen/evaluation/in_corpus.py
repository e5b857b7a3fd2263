"""Is an answer in the corpus at all? One pass over all passages for all open questions at once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

from rag_frozen.evaluation.metrics import decomposed_pattern, dpr_tokens
from rag_frozen.types import Passage

__all__ = ["answers_in_corpus"]


def answers_in_corpus(
    passages: Iterable[Sequence[Passage]],
    answers: Mapping[str, Sequence[str]],
    *,
    patterns: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, bool]:
    """Say for each question whether a passage holds one of its answers (``dpr-answer-recall/1``;
    of patterns ``dpr-regex-recall/1``, which takes far longer: each is looked for in each passage).

    Args:
        passages: all of them, in lists.
        answers: gold answers by question id.
        patterns: the answers are regular expressions.
        progress: is told how many passages were looked at.

    >>> passages = [[Passage("1", "Nile", "It is 6,650 km long.")]]
    >>> answers_in_corpus(passages, {"a": ["6,650 km"], "b": ["650"], "c": ["665"]})
    {'a': True, 'b': True, 'c': False}
    """
    look = _patterns_finder(answers) if patterns else _tokens_finder(answers)
    found: set[str] = set()
    done = 0
    for batch in passages:
        for passage in batch:
            look(passage.text, found)
        done += len(batch)
        progress(done)
        if len(found) == len(answers):
            break
    return {question: question in found for question in answers}


_Look = Callable[[str, set[str]], None]
"""Adds to a set the questions that a text answers."""


def _patterns_finder(answers: Mapping[str, Sequence[str]]) -> _Look:
    compiled: list[tuple[re.Pattern[str], str]] = []
    for question, listed in answers.items():
        made = (decomposed_pattern(one) for one in listed)
        compiled += [(one, question) for one in made if one is not None]

    def look(text: str, found: set[str]) -> None:
        decomposed = unicodedata.normalize("NFD", text)
        for pattern, question in compiled:
            if question not in found and pattern.search(decomposed) is not None:
                found.add(question)

    return look


def _tokens_finder(answers: Mapping[str, Sequence[str]]) -> _Look:
    wanted = _by_first_token(answers)

    def look(text: str, found: set[str]) -> None:
        if wanted:
            _look(dpr_tokens(text), wanted, found)

    return look


_Wanted = dict[str, list[tuple[tuple[str, ...], str]]]


def _by_first_token(answers: Mapping[str, Sequence[str]]) -> _Wanted:
    """(tokens, question id) of each answer by its first token; answers without tokens left out."""
    wanted: _Wanted = {}
    for question, listed in answers.items():
        for tokens in {tuple(dpr_tokens(answer)) for answer in listed}:
            if tokens:
                wanted.setdefault(tokens[0], []).append((tokens, question))
    return wanted


def _look(tokens: Sequence[str], wanted: _Wanted, found: set[str]) -> None:
    for first in wanted.keys() & set(tokens):
        starts = [at for at, token in enumerate(tokens) if token == first]
        for answer, question in wanted[first]:
            if question not in found and any(
                tuple(tokens[at : at + len(answer)]) == answer for at in starts
            ):
                found.add(question)
