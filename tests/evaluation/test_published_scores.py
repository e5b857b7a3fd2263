"""Our metrics give what the published scorers gave on the cases of ``published_scores.json``.

Its scores were computed by the scorers' own code: SQuAD 1.1's (as DrQA carries it), EfficientQA's
(google-research/language, orqa), DrQA's match of regular expressions, and DPR's ``has_answer`` with
its SimpleTokenizer, for texts and for regular expressions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag_frozen.evaluation.metrics import (
    efficientqa_match,
    exact_match,
    f1,
    has_answer,
    has_pattern,
    regex_match,
)

CASES: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "published_scores.json").read_text(encoding="utf-8")
)


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=f"{name}-{n}") for n, case in enumerate(CASES[name])]


@pytest.mark.parametrize("case", cases("squad"))
def test_exact_match_and_f1_are_squads(case: dict[str, Any]):
    assert exact_match(case["prediction"], case["answers"]) is case["exact_match"]
    assert f1(case["prediction"], case["answers"]) == pytest.approx(case["f1"], abs=1e-8)


@pytest.mark.parametrize("case", cases("efficientqa"))
def test_the_match_of_efficientqa_is_its_scorers(case: dict[str, Any]):
    assert efficientqa_match(case["prediction"], case["answers"]) is case["match"]


@pytest.mark.parametrize("case", cases("dpr_tokens"))
def test_answer_recall_is_dprs(case: dict[str, Any]):
    assert has_answer(case["text"], case["answers"]) is case["has_answer"]


@pytest.mark.parametrize("case", cases("dpr_regex"))
def test_answer_recall_of_patterns_is_dprs(case: dict[str, Any]):
    patterns = [one for one in case["patterns"] if one != "("]  # refused when data are read
    assert has_pattern(case["text"], patterns) is case["has_answer"]


@pytest.mark.parametrize("case", cases("drqa_regex"))
def test_the_match_of_patterns_is_drqas(case: dict[str, Any]):
    patterns = [one for one in case["patterns"] if one != "("]
    assert regex_match(case["prediction"], patterns) is case["match"]


def test_the_cases_cover_both_outcomes():
    for name, key in (
        ("squad", "exact_match"),
        ("efficientqa", "match"),
        ("dpr_tokens", "has_answer"),
        ("dpr_regex", "has_answer"),
        ("drqa_regex", "match"),
    ):
        assert {case[key] for case in CASES[name]} == {True, False}
    assert any(0 < case["f1"] < 1 for case in CASES["squad"])
