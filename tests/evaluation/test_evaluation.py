"""Data sets are read strictly; scores, intervals and stored runs are what was answered."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from rag_frozen.artifacts import verify
from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.evaluation.datasets import read_examples, read_pocket_examples
from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.evaluation.runner import evaluate, save_run
from rag_frozen.evaluation.statistics import bootstrap_interval, mcnemar_p, paired_bootstrap
from rag_frozen.types import Question
from tests.test_pipeline import pipeline


def data() -> ExampleSet:
    examples = (
        Example(Question("1", "which city"), ("rome",), "p1", (("style", "search"),)),
        Example(Question("2", "which town"), ("Paris", "Lutetia"), "p0", (("style", "sentence"),)),
        Example(Question("3", "unknown"), ()),
    )
    return ExampleSet("tiny", examples, "0" * 64)


def test_scores_count_answerable_questions_only():
    told = []
    result = evaluate(pipeline(), data(), chunk_size=2, progress=told.append)
    assert (result.questions, result.unanswerable) == (2, 1)
    assert (result.exact_match, result.f1) == (50.0, 50.0)
    assert result.recall == {1: 50.0}
    assert result.in_prompt == 100.0
    assert result.groups == {"style: search": (1, 100.0, 100.0), "style: sentence": (1, 0.0, 0.0)}
    assert [(p.done, p.exact_match) for p in told] == [(2, 50.0), (3, 50.0)]
    assert result.mean_confidence == pytest.approx(math.exp(-0.5))


def test_a_run_is_stored_whole_and_found_again(tmp_path: Path):
    result = evaluate(pipeline(), data())
    folder = save_run(result, pipeline(), tmp_path)
    assert verify(folder, kind="run").counts["questions"] == 2
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["Rome", "Rome", "Rome"]
    assert json.loads((folder / "metrics.json").read_text())["exact_match"] == 50.0
    assert (folder / "run.trec").read_text().count("\n") == 9
    assert save_run(result, pipeline(), tmp_path) == folder


def test_files_of_questions_are_read_plain_and_gzipped(tmp_path: Path):
    row = {"question": "who", "answer": ["a", "b"]}
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress((json.dumps(row) + "\n").encode()))
    (tmp_path / "q.tsv").write_text("who\t['a', \"b's\"]\n", encoding="utf-8")
    assert read_examples(tmp_path / "q.jsonl.gz").examples[0].answers == ("a", "b")
    assert read_examples(tmp_path / "q.tsv").examples[0].answers == ("a", "b's")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.jsonl", '{"question": "a", "answers": ["x"]}\n{"question"\n', "line 2: not JSON"),
        ("q.jsonl", '{"question": "a", "answers": []}\n', "line 1: the question has no answer"),
        ("q.jsonl", '{"q": "a"}\n', "line 1: no question"),
        ("q.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("q.jsonl", 2 * '{"id": 1, "question": "a", "answers": ["x"]}\n', "line 2: the id '1'"),
        ("q.tsv", "who\t__import__('os')\n", "line 1: expected question<TAB>"),
    ],
)
def test_malformed_rows_are_told_with_file_and_line(tmp_path: Path, name, text, said):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataFormatError, match=said):
        read_examples(tmp_path / name)


def test_other_encodings_empty_and_missing_files_are_told(tmp_path: Path):
    (tmp_path / "latin.jsonl").write_bytes('{"question": "é"}'.encode("latin-1"))
    with pytest.raises(DataFormatError, match="not UTF-8"):
        read_examples(tmp_path / "latin.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no question"):
        read_examples(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_examples(tmp_path / "missing.jsonl")


def test_intervals_and_paired_tests():
    values = [1.0] * 30 + [0.0] * 70
    low, high = bootstrap_interval(values)
    assert 0.2 < low < 0.3 < high < 0.4
    difference, below, above = paired_bootstrap(values, [0.0] * 100)
    assert difference == pytest.approx(0.3)
    assert below > 0.2
    assert above < 0.4
    assert mcnemar_p([True] * 10 + [False], [False] * 10 + [True]) == pytest.approx(24 / 2**11)
    assert mcnemar_p([True, False], [False, True]) == 1.0


def test_the_embedded_questions_are_as_promised():
    examples = read_pocket_examples().examples
    answerable = [example for example in examples if example.answers]
    tags = [dict(example.tags) for example in answerable]
    assert len(answerable) >= 800
    assert len(examples) - len(answerable) >= 60
    assert 0.45 < sum(tag["style"] == "search" for tag in tags) / len(tags) < 0.6
    assert sum(tag["wording"] == "other" for tag in tags) >= 60
