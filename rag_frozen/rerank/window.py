"""Make (question, passage) pairs fit a cross-encoder's window by cutting the passage.

Tokenizers cut the longer of a pair first, which would cut a long question before a short passage.
A question keeps up to three quarters of the window; one that is longer still is cut, and told.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

__all__ = ["fit_pairs"]

_LOG = logging.getLogger(__name__)
_PASSAGE_SHARE = 4
"""The passage keeps at least one in so many of the window's tokens."""


def fit_pairs(
    pairs: Sequence[tuple[str, str]],
    tokenizer: Any,  # Any: a tokenizers.Tokenizer, which has no types
    *,
    window: int,
) -> list[tuple[str, str]]:
    """Shorten texts so that cutting the longer of each pair to ``window`` only cuts passages.

    Args:
        pairs: (question, passage) texts.
        tokenizer: that of the cross-encoder, without truncation.
        window: tokens of a pair, special tokens included.

    Returns:
        The pairs in their order. A question of at most half of the window leaves its pairs as
        they are: the tokenizer will cut the passage alone. Cuts fall between words.
    """
    room = max(window - tokenizer.num_special_tokens_to_add(True), 2)
    asked = list(dict.fromkeys(question for question, _ in pairs))
    encodings = tokenizer.encode_batch(asked, add_special_tokens=False)
    long = {
        question: _fit_question(question, encoding, room)
        for question, encoding in zip(asked, encodings, strict=True)
        if len(encoding.ids) > room // 2
    }
    if not long:
        return list(pairs)
    fitted = []
    for question, passage in pairs:
        if question in long:
            question, left = long[question]
            encoding = tokenizer.encode(passage, add_special_tokens=False)
            passage = _cut(passage, encoding, left)
        fitted.append((question, passage))
    return fitted


def _fit_question(question: str, encoding: Any, room: int) -> tuple[str, int]:
    """Return the question as it is read, and the tokens that it leaves for a passage."""
    n_tokens = len(encoding.ids)
    limit = room - max(room // _PASSAGE_SHARE, 1)
    if n_tokens > limit:
        _LOG.warning(
            "A question of %d tokens is longer than the reranker's window leaves room for: only "
            "its first %d tokens are read. It begins with %r",
            n_tokens,
            limit,
            question[:60],
        )
    return _cut(question, encoding, limit), room - min(n_tokens, limit)


def _cut(text: str, encoding: Any, limit: int) -> str:
    """Cut a text to at most ``limit`` tokens, between words unless the first is longer than that.

    Cutting within a word could give other tokens, and more of them.
    """
    if len(encoding.ids) <= limit:
        return text
    words = encoding.word_ids
    end = limit
    while end > 0 and words[end] is not None and words[end] == words[end - 1]:
        end -= 1
    return text[: encoding.offsets[(end or limit) - 1][1]]
