"""Is an answer in the corpus at all? One pass over all passages for all open questions at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from rag_frozen.evaluation.metrics import dpr_tokens
from rag_frozen.types import Passage

__all__ = ["answers_in_corpus"]


def answers_in_corpus(
    passages: Iterable[Sequence[Passage]],
    answers: Mapping[str, Sequence[str]],
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, bool]:
    """Say for each question whether a passage holds one of its answers (``dpr-answer-recall/1``).

    Args:
        passages: all of them, in lists.
        answers: gold answers by question id.
        progress: is told how many passages were looked at.

    >>> passages = [[Passage("1", "Nile", "It is 6,650 km long.")]]
    >>> answers_in_corpus(passages, {"a": ["6,650 km"], "b": ["650"], "c": ["665"]})
    {'a': True, 'b': True, 'c': False}
    """
    wanted = _by_first_token(answers)
    found: set[str] = set()
    done = 0
    for batch in passages:
        for passage in batch:
            if wanted:
                _look(dpr_tokens(passage.text), wanted, found)
        done += len(batch)
        progress(done)
        if len(found) == len(answers):
            break
    return {question: question in found for question in answers}


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
