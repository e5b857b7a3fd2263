"""The reader alone: gold passages in place of what would be retrieved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rag_frozen.evaluation.gold import with_gold_passages
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.reader.confidence import calibrated
from tests.evaluation import data
from tests.test_pipeline import PASSAGES, pipeline


def given():
    examples = tuple(
        replace(one, gold_passage=PASSAGES["p2" if one.question.id == "2" else "p1"])
        for one in data().examples
    )
    return replace(data(), examples=examples)


def test_a_given_passage_is_no_ranking_to_be_judged():
    result = evaluate(*with_gold_passages(pipeline(), given()))
    assert result.relevance == {}


def test_confidences_are_calibrated_as_the_recipe_says():
    settings = {"temperature": 2.0, "bias": 0.5}
    plain = evaluate(*with_gold_passages(pipeline(), given())).scored[0].confidence
    recipe = pipeline(recipe={"confidence": settings})
    changed = evaluate(*with_gold_passages(recipe, given())).scored[0].confidence
    assert changed == pytest.approx(calibrated(plain, **settings), abs=1e-5)
