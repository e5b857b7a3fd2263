"""Metrics equal the published scorers' rules on stored cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.evaluation.metrics import exact_match, f1, has_answer, normalize_answer


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("The Beatles", ["beatles"], True),
        ("a cat", ["the cat"], True),
        ("an", ["the"], True),  # nothing is left of either
        ("U.S.", ["US"], True),
        ("1,000", ["1000"], True),
        ("well-known", ["well known"], False),  # the hyphen goes, no space comes
        ("“quoted”", ["quoted"], False),  # only ASCII punctuation goes
        ("São Paulo", ["Sao Paulo"], False),
        ("theatre", ["atre"], False),
        ("Paris", ["London", "paris"], True),
        ("", ["x"], False),
        ("x", [], False),
        ("  two   words ", ["two words"], True),
    ],
)
def test_exact_match_follows_the_squad_scorer(prediction, answers, expected):
    assert exact_match(prediction, answers) is expected


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("the cat sat", ["cat"], 2 / 3),
        ("cat cat", ["cat"], 2 / 3),
        ("dog", ["cat", "big dog"], 2 / 3),
        ("", ["cat"], 0.0),
        ("cat", [], 0.0),
        ("cat", ["the cat!"], 1.0),
    ],
)
def test_f1_follows_the_squad_scorer(prediction, answers, expected):
    assert f1(prediction, answers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("He lived in New York City.", ["new york"], True),
        ("He lived in New-York.", ["New York"], False),
        ("It cost $3.5 million", ["3.5 million"], True),
        ("It cost 13.5 million", ["3.5 million"], False),
        ("Röntgen", ["Ro\u0308ntgen"], True),
        ("Rontgen", ["Röntgen"], False),
        ("Yorkshire", ["York"], False),
        ("The U.S. Army", ["U.S."], True),
        ("anything", [""], False),
        ("", ["x"], False),
        ("O'Brien's book", ["O'Brien"], True),
    ],
)
def test_has_answer_follows_dprs_token_spans(text, answers, expected):
    assert has_answer(text, answers) is expected


@given(st.text(max_size=40))
def test_exact_match_ignores_case_articles_and_white_space(text):
    if text.upper().lower() == text.lower():
        assert exact_match(text.upper(), [text])
    assert exact_match(f"the  {text}", [text])
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)
    assert 0 <= f1(text, [text, "other"]) <= 1
