"""A run is stored whole, found again, and never hides behind another."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rag_frozen.artifacts import list_artifacts, verify
from rag_frozen.errors import InputError
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.evaluation.runs import run_folder, save_run
from rag_frozen.retrieval.replay import read_trec_run
from rag_frozen.types import Context, Generation, Hit, Passage
from tests.evaluation import data
from tests.test_pipeline import PASSAGES, Echo, Retriever, pipeline


class Other(Echo):
    """Answers otherwise, as other weights of the same name would."""

    digest = "f" * 64

    def generate(self, contexts: list[Context]) -> list[Generation]:  # type: ignore[override]
        return [Generation("Oslo", -1.0, 1, "end") for _ in contexts]


def test_a_run_is_stored_whole_and_found_again(tmp_path: Path):
    result = evaluate(pipeline(), data())
    folder = save_run(result, pipeline(), tmp_path, evaluation={"name": "tiny"})
    manifest = verify(folder, kind="run")
    assert manifest.counts == {"questions": 2, "unanswerable": 1}
    assert folder.parent == run_folder(tmp_path, pipeline="test", data="tiny")
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["Rome", "Rome", "Rome"]
    assert [row["answers"] for row in rows] == [["rome"], ["Paris", "Lutetia"], []]
    assert json.loads((folder / "metrics.json").read_text()) == result.to_json()
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert recipe == {"evaluation": {"name": "tiny"}, "pipeline": {}}
    assert "# test on tiny" in (folder / "report.md").read_text()


def test_the_stored_ranking_is_the_one_that_was_scored(tmp_path: Path):
    result = evaluate(pipeline(), data())
    stored = read_trec_run(save_run(result, pipeline(), tmp_path) / "run.trec")
    assert stored == {row.example.question.id: row.answer.hits for row in result.scored}


def test_an_equal_run_is_kept_and_another_answer_gets_another_folder(tmp_path: Path):
    first = save_run(evaluate(pipeline(), data()), pipeline(), tmp_path)
    again = save_run(evaluate(pipeline(), data()), pipeline(), tmp_path)
    retrained = pipeline(reader=Other(), recipe={"reader": {"model": "mine/reader"}})
    third = save_run(evaluate(retrained, data()), retrained, tmp_path)
    assert first == again != third
    assert sorted(list_artifacts(tmp_path, "run")) == sorted([first, third])
    models = verify(third).models
    assert (models["reader"].name, models["reader"].digest) == ("mine/reader", "f" * 64)


def test_passage_ids_that_a_trec_run_cannot_hold_lose_the_ranking_alone(tmp_path: Path, caplog):
    class Odd(Retriever):
        def retrieve(self, questions, *, k):
            return [(Hit("a b", 1.0),) for _ in questions]

    class Store:
        def __len__(self) -> int:
            return 1

        def get(self, passage_ids):
            return [Passage(one, "T", PASSAGES["p1"].text) for one in passage_ids]

    odd = pipeline(retriever=Odd(), store=Store())
    with caplog.at_level(logging.WARNING):
        folder = save_run(evaluate(odd, data()), odd, tmp_path)
    assert "run.trec is left out" in caplog.text
    assert not (folder / "run.trec").exists()
    assert verify(folder).counts["questions"] == 2


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot name a run"):
        run_folder(tmp_path, pipeline="test", data="owner/set")
    with pytest.raises(InputError, match="cannot name a run"):
        run_folder(tmp_path, pipeline="x" * 100, data="y" * 60)
    result = replace(evaluate(pipeline(), data()), data="a/b")
    with pytest.raises(InputError, match="cannot name a run"):
        save_run(result, pipeline(), tmp_path)
    assert list(tmp_path.iterdir()) == []
