"""Scores are what was answered; questions without an answer count in none."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from rag_frozen.absent_stages import NoPassages, NoRetrieval
from rag_frozen.errors import InputError
from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.evaluation.gold import with_gold_passages
from rag_frozen.evaluation.relevance import RELEVANCE_VERSIONS
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.evaluation.table import footnotes, markdown_report, score_table
from rag_frozen.types import Passage, Question
from tests.evaluation import data
from tests.test_pipeline import pipeline


def test_scores_count_answerable_questions_only():
    told = []
    result = evaluate(pipeline(), data(), chunk_size=2, progress=told.append)
    assert (result.questions, result.unanswerable) == (2, 1)
    assert (result.exact_match, result.f1) == (50.0, 50.0)
    assert result.recall == {"retrieve": {1: 50.0}, "final": {1: 50.0}}  # no fifth hit
    assert result.in_prompt == 100.0
    assert result.gold_in_prompt == 50.0
    assert result.groups == {"style: search": (1, 100.0, 100.0), "style: sentence": (1, 0.0, 0.0)}
    assert [(p.done, p.total, p.exact_match) for p in told] == [
        (0, 3, 0.0),
        (2, 3, 50.0),
        (3, 3, 50.0),
    ]
    assert result.mean_confidence == pytest.approx(math.exp(-0.5))
    assert set(result.seconds) == {"retrieve", "fetch", "rerank", "pack", "read"}


def test_the_size_of_the_chunks_changes_no_score():
    results = [evaluate(pipeline(), data(), chunk_size=size).to_json() for size in (1, 2, 64)]
    assert results[0] == results[1] == results[2]


def test_questions_without_an_answer_alone_give_no_number_that_json_lacks():
    unanswerable = replace(data(), examples=data().examples[2:])
    result = evaluate(pipeline(), unanswerable)
    values = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert (values["questions"], values["unanswerable"]) == (0, 1)
    assert values["exact_match_interval"] is None
    assert "| all with an answer | 0 | - |" in markdown_report(result)


def test_closed_book_has_no_recall():
    result = evaluate(pipeline(retriever=NoRetrieval(), store=NoPassages()), data())
    assert (result.recall, result.in_prompt) == ({}, 0.0)


def test_a_question_that_cannot_be_asked_is_told_before_any_is_answered():
    told = []
    wrong = Example(Question("4", "why " * 2_000), ("x",))
    with pytest.raises(InputError, match="2,000 words"):
        evaluate(
            pipeline(),
            replace(data(), examples=(*data().examples, wrong)),
            chunk_size=1,
            progress=told.append,
        )
    assert [one.done for one in told] == [0]


def test_metrics_carry_their_versions():
    versions = evaluate(pipeline(), data()).to_json()["metric_versions"]
    judged = {name: version for name, version in versions.items() if name in RELEVANCE_VERSIONS}
    assert judged == RELEVANCE_VERSIONS
    versions = {name: versions[name] for name in versions.keys() - judged.keys()}
    assert versions == {
        "exact_match": "squad-exact-match/1",
        "f1": "squad-f1/1",
        "answer_recall": "dpr-answer-recall/1",
        "substring_recall": "substring-answer-recall/1",
    }


def test_every_score_has_its_interval():
    result = evaluate(pipeline(), data(), metrics=["gold_in_output", "bleu", "macro_f1"])
    assert len(result.metrics) > 10
    for name, value in result.metrics.items():
        low, high = result.intervals[name]
        assert low <= value <= high, name
    assert result.intervals["exact_match"] == result.exact_match_interval == (0.0, 100.0)
    stored = result.to_json()
    assert stored["intervals"]["f1"] == [0.0, 100.0]  # type: ignore[index]


def test_recall_by_substring_stands_beside_recall_by_tokens():
    rows = (Example(Question("1", "which city"), ("om",)), Example(Question("2", "x"), ("Rome",)))
    result = evaluate(pipeline(), ExampleSet("part", rows, "0" * 64))
    assert result.recall["final"] == {1: 50.0}
    assert result.substring_recall["final"] == {1: 100.0}
    assert result.metrics["substring_recall@1"] == 100.0
    patterns = evaluate(
        pipeline(),
        ExampleSet("part", tuple(replace(row, patterns=True) for row in rows), "0" * 64),
    )
    assert patterns.substring_recall == {}
    assert "substring_recall" not in patterns.metric_versions


def test_the_reader_alone_is_given_each_questions_gold_passage():
    examples = tuple(
        replace(one, gold_passage=Passage("any", "Title", f"{one.answers[0]} it is."))
        if one.answers
        else one
        for one in data().examples
    )
    given, answerable = with_gold_passages(pipeline(), replace(data(), examples=examples))
    result = evaluate(given, answerable)
    assert (result.questions, result.unanswerable, result.exact_match) == (2, 0, 100.0)
    assert (result.recall["final"], result.gold_in_prompt) == ({1: 100.0}, 100.0)
    assert [len(row.evidence) for row in result.scored] == [1, 1]


def test_a_question_without_a_gold_passage_is_named():
    with pytest.raises(InputError, match=r"'1' of tiny has no gold passage.*title and text"):
        with_gold_passages(pipeline(), data())


def test_the_table_shows_all_questions_and_each_group():
    result = evaluate(pipeline(), data())
    table = score_table(result)
    names = [str(cell) for cell in table.columns[0].cells]
    assert names == ["all with an answer", "style: search", "style: sentence"]
    assert str(next(iter(table.columns[2].cells))).startswith("50.0  [")
    markdown = markdown_report(result)
    assert "| style: search | 1 | 100.0 | 100.0 |" in markdown
    assert all(note in markdown for note in footnotes(result))
    assert "on the 1 questions without an answer" in markdown


def test_a_tag_of_a_file_cannot_break_the_table():
    odd = replace(data().examples[0], tags=(("style", "[/x] | [bold]"),))
    result = evaluate(pipeline(), ExampleSet("odd", (odd,), "0" * 64))
    assert "style: [/x] | [bold]" in map(str, score_table(result).columns[0].cells)
    assert "| style: [/x] \\| [bold] | 1 |" in markdown_report(result)
