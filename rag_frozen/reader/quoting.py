"""Answers that are quoted: only what stands in the packed passages can be written.

A small reader that copies an answer piece by piece sometimes invents its end ("lipual lipase" from
"lingual lipase"). Here each step allows only those tokens that go on with a run of whole words of a
passage, and the end only where a word ends. What is chosen among them is the model's choice; the
log-probability of what it wrote stays the model's own, as if everything had been allowed.

Pure: token ids in, token ids out; knows neither models nor tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rag_frozen.reader.spelling import splits_word

__all__ = ["QuotedAnswers", "TokenPiece", "allow_quoted", "token_piece", "whole_piece"]

_Place = tuple[int, int]
"""A piece's number and the place of one of its tokens."""


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """A text as tokens: before and behind which of them an answer may begin and end, and which say
    something. An answer of which no token does (a full stop alone) may not end."""

    ids: tuple[int, ...]
    starts: tuple[bool, ...]
    ends: tuple[bool, ...]
    says: tuple[bool, ...]


def token_piece(text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> TokenPiece:
    """A text of which any run of whole words may be quoted.

    Args:
        text: what was tokenized.
        ids: its tokens, without special ones.
        offsets: half-open character ranges of the tokens in ``text``. Tokens that share a
            character stay together; no answer ends with a token of white space alone, and none
            begins where no letter or digit follows.

    >>> piece = token_piece("Nile, 6", [7, 8, 9, 5], [(0, 2), (2, 4), (4, 5), (6, 7)])
    >>> piece.starts, piece.ends
    ((True, False, True, True), (False, True, True, True))
    >>> piece.says
    (True, True, False, True)
    """
    says = [any(char.isalnum() for char in text[start:stop]) for start, stop in offsets]
    parts = [
        not splits_word(text, start) and (place == 0 or offsets[place - 1][1] <= start)
        for place, (start, _) in enumerate(offsets)
    ]
    ends = [
        follows and bool(text[start:stop].strip())
        for follows, (start, stop) in zip((*parts[1:], True), offsets, strict=False)
    ]
    starts = [part and any(says[place:]) for place, part in enumerate(parts)]
    return TokenPiece(tuple(ids), tuple(starts), tuple(ends), tuple(says))


def whole_piece(ids: Sequence[int]) -> TokenPiece:
    """A text that may be quoted only whole, whatever it says.

    >>> whole_piece([3, 4])
    TokenPiece(ids=(3, 4), starts=(True, False), ends=(False, True), says=(True, True))
    """
    places = range(len(ids))
    return TokenPiece(
        tuple(ids),
        tuple(place == 0 for place in places),
        tuple(place == len(ids) - 1 for place in places),
        tuple(True for _ in places),
    )


class QuotedAnswers:
    """What may be written next, given what was written.

    >>> river = TokenPiece((4, 5, 6), (True, True, False), (True, False, True), (True, True, True))
    >>> answers = QuotedAnswers([river, whole_piece([9])])
    >>> answers.following(()), answers.following((4,)), answers.following((5,))
    (((4, 5, 9), True), ((5,), True), ((6,), False))
    >>> answers.following((4, 5, 6)), answers.following((9,))
    (((), True), ((), True))
    """

    def __init__(self, pieces: Sequence[TokenPiece]) -> None:
        """Take the texts that may be quoted."""
        self._pieces = pieces
        self._places: dict[tuple[int, ...], list[_Place]] = {}
        self._known: dict[tuple[int, ...], tuple[tuple[int, ...], bool]] = {}

    def following(self, written: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
        """The tokens that may come next, in ascending order, and whether the answer may end.

        An empty answer may end: a reader may say that there is none. What is no quotation can
        only end.
        """
        if written not in self._known:
            self._known[written] = self._look(written)
        return self._known[written]

    def _look(self, written: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
        if not written:
            return tuple(sorted({self._token(place) for place in self._beginnings()})), True
        found = self._standing(written)
        next_tokens = {self._token(place) for place in self._next(found)}
        may_end = not found or any(self._ends(place, len(written)) for place in found)
        return tuple(sorted(next_tokens)), may_end

    def _ends(self, place: _Place, length: int) -> bool:
        """True where an answer of so many tokens may end at a place: behind a word, and having said
        something."""
        piece, at = self._pieces[place[0]], place[1]
        return piece.ends[at] and any(piece.says[at - length + 1 : at + 1])

    def _standing(self, written: tuple[int, ...]) -> list[_Place]:
        """Where the last token of what was written stands."""
        if written not in self._places:
            *before, last = written
            from_here = self._next(self._standing(tuple(before))) if before else self._beginnings()
            self._places[written] = [place for place in from_here if self._token(place) == last]
        return self._places[written]

    def _beginnings(self) -> list[_Place]:
        return [
            (number, at)
            for number, piece in enumerate(self._pieces)
            for at, starts in enumerate(piece.starts)
            if starts
        ]

    def _next(self, places: Sequence[_Place]) -> list[_Place]:
        return [(piece, at + 1) for piece, at in places if at + 1 < len(self._pieces[piece].ids)]

    def _token(self, place: _Place) -> int:
        return self._pieces[place[0]].ids[place[1]]


def allow_quoted(
    scores: Tensor,
    allowed: Tensor,
    quoted: Sequence[QuotedAnswers | None],
    written: Sequence[Sequence[int]],
    *,
    ends: Sequence[int],
    breaks: Sequence[int] = (),
) -> Tensor:
    """Rule out what is no quotation.

    Args:
        scores: ``[R, V]``, the model's.
        allowed: ``[R, V]``, with ``-inf`` at what was ruled out before.
        quoted: of each row; None where everything may be written.
        written: the row's tokens so far.
        ends: tokens that end an answer.
        breaks: tokens that end one that is not empty.

    Returns:
        ``[R, V]``, ``-inf`` at what may not come next. A row never loses everything: where the
        quotation cannot go on, the end is allowed even if it was ruled out before.
    """
    if all(one is None for one in quoted):
        return allowed
    made = allowed.clone()
    for row, (one, so_far) in enumerate(zip(quoted, written, strict=True)):
        if one is None:
            continue
        tokens, may_end = one.following(tuple(so_far))
        kept = torch.full_like(scores[row], float("-inf"))
        following = torch.tensor(tokens, dtype=torch.long, device=scores.device)
        kept[following] = allowed[row, following]
        if may_end:
            last = torch.tensor([*ends, *(breaks if so_far else ())], device=scores.device).long()
            kept[last] = allowed[row, last] if tokens else scores[row, last]
        made[row] = kept
    return made
