"""When two answers are the same answer: the normalisation of the official SQuAD 1.1 scorer."""

from __future__ import annotations

import re
import string

__all__ = ["normalize_answer"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Normalise as the SQuAD scorer does (Rajpurkar et al. 2016): lower case, ASCII punctuation
    removed, the words *a*, *an*, *the* removed, white space folded, in this order.

    >>> normalize_answer("The  Eiffel-Tower!")
    'eiffeltower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
