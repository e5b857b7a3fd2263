"""Metrics of answers, each with a name, a version and a written definition.

``squad-exact-match/1`` and ``squad-f1/1`` follow the official SQuAD 1.1 scorer (Rajpurkar et al.
2016): lower case, ASCII punctuation removed, the words *a*, *an*, *the* removed, white space
folded, in this order; the best over the gold answers counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

__all__ = ["METRIC_VERSIONS", "exact_match", "f1", "normalize_answer"]

METRIC_VERSIONS = {"exact_match": "squad-exact-match/1", "f1": "squad-f1/1"}

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Normalise as the SQuAD scorer does.

    >>> normalize_answer("The  Eiffel-Tower!")
    'eiffeltower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """True when the normalised prediction equals a normalised gold answer.

    >>> exact_match("the Nile", ["Nile", "River Nile"])
    True
    """
    normalized = normalize_answer(prediction)
    return any(normalized == normalize_answer(answer) for answer in answers)


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Best token F1 over the gold answers, in [0, 1].

    >>> round(f1("Charles Darwin", ["Charles Robert Darwin"]), 2)
    0.8
    """
    return max((_pair_f1(prediction, answer) for answer in answers), default=0.0)


def _pair_f1(prediction: str, answer: str) -> float:
    predicted, gold = normalize_answer(prediction).split(), normalize_answer(answer).split()
    shared = sum((Counter(predicted) & Counter(gold)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
