"""Metrics equal the published scorers' rules on stored cases."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.evaluation.metrics import (
    METRIC_VERSIONS,
    contains_answer,
    dpr_tokens,
    exact_match,
    f1,
    has_answer,
    normalize_answer,
)


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
        ("the U. S. Army", ["U.S."], True),  # white space between tokens does not count
        ("in 1895", ["95"], False),
        ("x² + y²", ["x²"], True),  # ² is a number, \\p{N}
        ("नमस्ते दुनिया", ["दुनिया"], True),
        ("東京都", ["東京"], False),  # letters without spaces are one token
        ("a\u200bb", ["a b"], True),  # a format character parts tokens and is none
        ("new york", ["boston", "New York"], True),
        ("york new", ["new york"], False),
        ("x", [], False),
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


def test_tokens_are_those_of_dprs_pattern():
    regex = pytest.importorskip("regex")
    pattern = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]", regex.UNICODE)

    @given(st.text(st.characters(exclude_categories=["Cn", "Cs", "Co"]), max_size=60))
    def same(text: str) -> None:
        expected = [token.lower() for token in pattern.findall(unicodedata.normalize("NFD", text))]
        assert dpr_tokens(text) == expected

    same()


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_passage_holds_the_answer_that_was_put_between_spaces(before, answer, after):
    assert has_answer(f"{before} {answer} {after}", [answer]) == bool(dpr_tokens(answer))


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("Yorkshire pudding", ["York"], True),
        ("It is the U.S.", ["us"], True),
        ("The end", ["the"], False),
        ("anything", ["", "!"], False),
        ("", ["x"], False),
        ("a  big\ndog", ["big dog"], True),
        ("x", [], False),
    ],
)
def test_substring_recall_looks_within_words(text, answers, expected):
    assert contains_answer(text, answers) is expected


def test_every_metric_has_a_version():
    assert all(version.endswith("/1") for version in METRIC_VERSIONS.values())
    assert len(set(METRIC_VERSIONS.values())) == len(METRIC_VERSIONS)


# Without unassigned code points, on which the two libraries' versions of Unicode may differ.
@given(st.text(st.characters(exclude_categories=["Cn", "Cs"]), max_size=60))
def test_tokens_are_those_of_the_rule_applied_letter_by_letter(text: str):
    wanted: list[str] = []
    current = ""
    for char in unicodedata.normalize("NFD", text):
        kind = unicodedata.category(char)[0]
        if kind in "LNM":
            current += char
            continue
        wanted += [current.lower()] if current else []
        current = ""
        wanted += [char.lower()] if kind not in "ZC" else []
    wanted += [current.lower()] if current else []
    assert dpr_tokens(text) == wanted
