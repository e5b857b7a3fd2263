"""Metrics of answers, each with a name, a version and a written definition.

``squad-exact-match/1`` and ``squad-f1/1`` follow the official SQuAD 1.1 scorer (Rajpurkar et al.
2016): lower case, ASCII punctuation removed, the words *a*, *an*, *the* removed, white space
folded, in this order; the best over the gold answers counts.

``dpr-answer-recall/1`` follows the rule of DPR's evaluation (Karpukhin et al. 2020, its
SimpleTokenizer): a passage answers when the tokens of an answer stand in it in a row, without case.
Answer-recall@k is the share of questions with such a passage among the first k. Titles are not
looked at. It differs from DPR's in one point: an answer without any token is in no passage (there
it is in every one).

``substring-answer-recall/1`` asks less: the normalised answer is a substring of the normalised
passage, within a word too. Numbers of the two must not be compared; each carries its version.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import regex

from rag_frozen.normalization import normalize_answer

__all__ = [
    "METRIC_VERSIONS",
    "contains_answer",
    "decomposed_pattern",
    "dpr_tokens",
    "efficientqa_match",
    "exact_match",
    "f1",
    "gold_in_output",
    "has_answer",
    "has_pattern",
    "normalize_answer",
    "regex_match",
]

METRIC_VERSIONS = {
    "exact_match": "squad-exact-match/1",
    "f1": "squad-f1/1",
    "answer_recall": "dpr-answer-recall/1",
    "substring_recall": "substring-answer-recall/1",
    "efficientqa_match": "efficientqa-exact-match/1",
    "gold_in_output": "gold-in-output/1",
    "regex_match": "drqa-regex-match/1",
    "regex_recall": "dpr-regex-recall/1",
}


_TOKENS = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")


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


def efficientqa_match(prediction: str, answers: Sequence[str]) -> bool:
    """True when prediction and a gold answer are equal as EfficientQA's scorer normalises them:
    Unicode NFD first, then as SQuAD's (``efficientqa-exact-match/1``).

    >>> written, gold = "Ro\u0308ntgen", ["R\u00f6ntgen"]
    >>> efficientqa_match(written, gold), exact_match(written, gold)
    (True, False)
    """
    normalized = normalize_answer(unicodedata.normalize("NFD", prediction))
    golds = (normalize_answer(unicodedata.normalize("NFD", answer)) for answer in answers)
    return any(normalized == gold for gold in golds)


def gold_in_output(prediction: str, answers: Sequence[str]) -> bool:
    """True when a normalised gold answer is a substring of the normalised prediction
    (``gold-in-output/1``), as papers on long answers count. Never compare it with exact match.

    >>> gold_in_output("It was written by Shakespeare.", ["Shakespeare"])
    True
    """
    return contains_answer(prediction, answers)


def regex_match(prediction: str, patterns: Sequence[str]) -> bool:
    """True when a pattern matches at the beginning of the prediction, without case
    (``drqa-regex-match/1``; CuratedTREC's answers are patterns).

    >>> regex_match("Hawking, the physicist", ["(Stephen )?Hawking"])
    True
    >>> regex_match("S. Hawking", ["Hawk"])
    False
    """
    return any(_pattern(one).match(prediction) is not None for one in patterns)


def has_pattern(text: str, patterns: Sequence[str]) -> bool:
    """True when a pattern is found anywhere in the text, without case, text and pattern in NFD
    (``dpr-regex-recall/1``). A pattern that NFD breaks is found nowhere, as in DPR's scorer.

    >>> has_pattern("by S. Hawking", ["Hawk"]), has_pattern("R\u00f6ntgen", ["Ro\u0308nt"])
    (True, True)
    """
    decomposed = unicodedata.normalize("NFD", text)
    found = (decomposed_pattern(one) for one in patterns)
    return any(one.search(decomposed) is not None for one in found if one is not None)


def decomposed_pattern(written: str) -> re.Pattern[str] | None:
    """Compile a pattern in NFD; None where it is none then (a range that begins with a mark)."""
    try:
        return _pattern(unicodedata.normalize("NFD", written))
    except re.error:
        return None


def _pattern(written: str) -> re.Pattern[str]:
    return re.compile(written, re.IGNORECASE | re.MULTILINE)


def dpr_tokens(text: str) -> list[str]:
    """Cut a text as DPR's scorer does before it looks for an answer: NFD, letters with digits and
    marks together, every other printing character alone, lower case.

    >>> dpr_tokens("Röntgen's 3.5")
    ['ro\\u0308ntgen', "'", 's', '3', '.', '5']
    """
    return [token.lower() for token in _TOKENS.findall(unicodedata.normalize("NFD", text))]


def has_answer(text: str, answers: Sequence[str]) -> bool:
    """True when an answer's tokens stand in a row among the text's (``dpr-answer-recall/1``).

    >>> has_answer("He was born in New  York.", ["new york"]), has_answer("Yorkshire", ["York"])
    (True, False)
    """
    tokens = dpr_tokens(text)
    return any(_stands_in(dpr_tokens(answer), tokens) for answer in answers)


def contains_answer(text: str, answers: Sequence[str]) -> bool:
    """True when a normalised answer is a substring of the normalised text.

    This is ``substring-answer-recall/1``; an answer of which nothing is left is in no text.

    >>> contains_answer("Yorkshire", ["York"]), contains_answer("The end", ["the"])
    (True, False)
    """
    normalized = normalize_answer(text)
    wanted = [normalize_answer(answer) for answer in answers]
    return any(answer and answer in normalized for answer in wanted)


def _stands_in(wanted: Sequence[str], tokens: Sequence[str]) -> bool:
    n = len(wanted)
    if n == 0:
        return False
    first = wanted[0]
    return any(
        tokens[at] == first and list(tokens[at : at + n]) == list(wanted)
        for at in range(len(tokens) - n + 1)
    )
