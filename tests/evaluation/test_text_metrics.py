"""Metrics of texts equal the published scorers' on stored cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from rag_frozen.errors import InputError
from rag_frozen.evaluation.compare import compare_runs
from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.evaluation.runs import RunOptions, read_run, store_run
from rag_frozen.evaluation.text_metrics import (
    TEXT_METRICS,
    intervals_of_whole,
    normalize_label,
    score_texts,
)
from rag_frozen.recipes.evaluation import MetricName
from rag_frozen.types import Question
from tests.evaluation import data
from tests.test_pipeline import pipeline

README = Path(__file__).parents[2] / "eval" / "README.md"


def score(name: str, *pairs: tuple[str, list[str]]) -> float:
    return score_texts([name], [text for text, _ in pairs], [golds for _, golds in pairs])[name]


@pytest.mark.parametrize(
    ("name", "prediction", "golds", "expected"),
    [
        # Lin 2004 by hand: F of precision and recall of words, pairs, the longest common sequence.
        ("rouge1", "the cat sat", ["the cat sat on the mat"], 100 * 2 * 3 / 9),
        ("rouge2", "the cat sat", ["the cat sat on the mat"], 100 * 2 * 2 / 7),
        ("rouge_l", "sat cat the", ["the cat sat"], 100 / 3),
        ("rouge1", "running cats", ["run cat"], 100.0),
        ("rouge1", "", ["run"], 0.0),
        ("rouge1", "b", ["a a", "b"], 100.0),
        ("bleu", "the cat sat on the mat", ["the cat sat on the mat"], 100.0),
        ("bleu", "", ["the cat"], 0.0),
        ("accuracy", " Positive. ", ["positive"], 100.0),
        ("accuracy", "positively", ["positive"], 0.0),
        ("accuracy", "", ["positive"], 0.0),
        ("efficientqa_match", "the Röntgen", ["Ro\u0308ntgen"], 100.0),
        ("efficientqa_match", "", ["x"], 0.0),
        ("gold_in_output", "It is the Nile, I think", ["Amazon", "nile"], 100.0),
        ("gold_in_output", "", ["Nile"], 0.0),
        ("regex_match", "1984 or so", [r"19\d\d", "never"], 100.0),
        ("regex_match", "in 1984", [r"19\d\d"], 0.0),
    ],
)
def test_a_metric_scores_stored_cases(
    name: str, prediction: str, golds: list[str], expected: float
):
    assert score(name, (prediction, golds)) == pytest.approx(expected)


def test_bleu_is_of_the_whole_corpus_and_takes_different_numbers_of_references():
    # Papineni et al. 2002 by hand: 5 of 6 unigrams, 3 of 4 bigrams, both trigrams, the 4-gram; the
    # lengths are equal, so that there is no penalty.
    pairs = [("a b c d", ["a b c d", "x"]), ("e f", ["e g"])]
    precisions = [5 / 6, 3 / 4, 2 / 2, 1 / 1]
    expected = 100 * (precisions[0] * precisions[1] * precisions[2] * precisions[3]) ** 0.25
    assert score("bleu", *pairs) == pytest.approx(expected)


def test_macro_f1_weighs_labels_equally_and_an_odd_prediction_is_wrong():
    pairs = [("yes", ["yes"]), ("yes", ["yes"]), ("yes", ["no"]), ("perhaps", ["no"])]
    yes = 2 * (2 / 3) * 1 / (2 / 3 + 1)
    assert score("macro_f1", *pairs) == pytest.approx(100 * (yes + 0) / 2)
    assert score("accuracy", *pairs) == 50.0


@pytest.mark.parametrize("name", ["bleu", "macro_f1"])
def test_the_resample_of_everything_once_has_the_score_itself(name: str):
    pairs = [
        ("a b c d", ["a b c d", "x"]), ("e f g h i", ["e g f h i"]), ("yes", ["yes"]),
        ("yes", ["no", "never"]), ("perhaps", ["no"]),
    ]  # fmt: skip
    texts, golds = [text for text, _ in pairs], [gold for _, gold in pairs]
    resampled = TEXT_METRICS[name].resampled
    assert resampled is not None
    scores = resampled(texts, golds)
    whole, twice, first = scores(np.array([[1] * 5, [2] * 5, [1, 0, 0, 0, 0]]))
    assert whole == pytest.approx(score(name, *pairs)) == pytest.approx(twice)
    assert first == pytest.approx(score(name, pairs[0])) == 100.0
    low, high = intervals_of_whole([name], texts, golds)[name]
    assert 0 <= low < whole < high <= 100


def test_each_metric_is_a_mean_or_of_the_whole_set():
    assert all((one.each is None) != (one.resampled is None) for one in TEXT_METRICS.values())


def test_any_of_several_gold_labels_is_right():
    assert score("accuracy", ("b", ["a", "b"]), ("c", ["a", "b"])) == 50.0
    assert normalize_label("Yes .") == "yes"


def test_an_unknown_metric_and_answers_that_are_no_patterns_are_told():
    with pytest.raises(InputError, match=r"no metric 'meteor'.*rouge_l"):
        score_texts(["meteor"], ["a"], [["a"]])
    with pytest.raises(InputError, match="no regular expression"):
        score("regex_match", ("a", ["(a"]))
    assert score_texts(["bleu"], [], []) == {}


def test_a_run_holds_what_was_asked_for_with_its_version_and_gives_it_again(tmp_path: Path):
    options = RunOptions(metrics=("gold_in_output", "rouge1"))
    run = store_run(pipeline(), data(), tmp_path, options=options)
    stored = json.loads((run.folder / "metrics.json").read_text())
    assert stored["gold_in_output"] == 50.0
    assert stored["metric_versions"]["rouge1"] == "rouge-score-rouge1-stemmed/1"
    assert read_run(run.folder).to_json() == run.result.to_json()
    in_memory = evaluate(pipeline(), data(), metrics=options.metrics)
    assert in_memory.to_json() == run.result.to_json()


def test_runs_with_and_without_a_further_metric_are_compared(tmp_path: Path):
    first = store_run(pipeline(), data(), tmp_path / "a").folder
    options = RunOptions(metrics=("bleu",))
    second = store_run(pipeline(), data(), tmp_path / "b", options=options).folder
    _, compared = compare_runs([first, second])
    assert compared[0].p == 1.0


def test_answers_that_are_patterns_are_scored_under_other_versions(tmp_path: Path):
    examples = tuple(replace(e, patterns=True) for e in data().examples)
    run = store_run(pipeline(), replace(data(), examples=examples), tmp_path)
    versions = json.loads((run.folder / "metrics.json").read_text())["metric_versions"]
    assert versions["exact_match"] == "drqa-regex-match/1"
    assert versions["answer_recall"] == "dpr-regex-recall/1"
    assert read_run(run.folder).metric_versions == versions


def test_recipes_can_ask_for_every_metric_and_the_table_defines_each():
    table = README.read_text(encoding="utf-8")
    assert set(TEXT_METRICS) <= set(get_args(MetricName))
    for name in get_args(MetricName):
        shown = name.partition("@")[0]
        assert f"| `{shown}" in table, name
    for metric in TEXT_METRICS.values():
        assert f"`{metric.version}`" in table


def test_questions_without_answers_count_in_no_metric():
    examples = (Example(Question("1", "which city"), ("Rome",)), Example(Question("2", "x"), ()))
    both = ExampleSet("two", examples, "0" * 64)
    result = evaluate(pipeline(), both, metrics=["gold_in_output", "accuracy"])
    assert result.texts == {"gold_in_output": 100.0, "accuracy": 100.0}
