"""Training the pocket reranker: its lists, its measures, a tiny run, a kill, what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn
from transformers import BertForSequenceClassification

from rag_frozen.artifacts import verify
from rag_frozen.errors import InputError, RecipeError
from rag_frozen.rerank.pocket import (
    add_adapters,
    freeze_embeddings,
    load_pocket_classifier,
)
from rag_frozen.training.job import run_job
from rag_frozen.training.ranking_data import load_ranking_data
from rag_frozen.training.ranking_rows import RankingRow, RankingSource, ValidationList
from rag_frozen.training.reranker_job import reranker_job
from rag_frozen.training.reranker_settings import RerankerTraining
from rag_frozen.training.reranker_task import RerankerTask
from rag_frozen.types import Passage
from tests.tiny import save_bert, wordpiece
from tests.training.rankings import only_mined, with_scores, write_world

TEMPLATE = {
    "with_passages": "question: {question}\n{passages}",
    "passage": "passage: {title}. {text}\n",
    "closed_book": "question: {question}\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_world(tmp_path)


def settings(folder: Path, **changes: Any) -> RerankerTraining:
    fields: dict[str, Any] = {
        "kind": "pocket-reranker",
        "name": "tiny",
        "seed": 5,
        "data": only_mined(folder),
        "optimiser": {"learning_rate": 3e-3, "warmup_steps": 2},
        "examples": 48,
        "batch_size": 4,
        "negatives": 3,
        "max_length": 48,
        "validate_every": 6,
        "checkpoint_every": 5,
    }
    return RerankerTraining.model_validate({**fields, **changes})


def passage(text: str) -> Passage:
    return Passage("", "", text)


def source(*rows: tuple[str, list[str], list[str]]) -> list[RankingSource]:
    return [
        RankingSource(
            1.0,
            tuple(
                RankingRow(q, ("x",), tuple(map(passage, good)), tuple(map(passage, bad)))
                for q, good, bad in rows
            ),
        )
    ]


def listed(question: str, passages: list[str], answering: list[bool]) -> ValidationList:
    return ValidationList(question, ("x",), tuple(map(passage, passages)), tuple(answering))


def task(
    folder: Path,
    recipe: RerankerTraining,
    sources: list[RankingSource],
    validation: list[ValidationList] | None = None,
) -> RerankerTask:
    made = save_bert(folder / "bert", kind="BertForSequenceClassification")
    classifier: nn.Module = BertForSequenceClassification.from_pretrained(made)
    freeze_embeddings(classifier)
    return RerankerTask(
        classifier, wordpiece(), recipe, sources=sources, validation=validation or [], bf16=False
    )


def test_a_list_of_few_negatives_is_short(folder: Path):
    made = task(folder, settings(folder, batch_size=1), source(("who", ["x"], ["y", "z"])))
    [texts] = made.batch(0).passages
    assert texts[0] == "x"
    assert sorted(texts[1:]) == ["y", "z"]
    assert made.batch(0).labels == ((0.0, float("-inf"), float("-inf")),)


def test_batches_are_functions_of_the_step(folder: Path):
    rows = source(*((f"q{n}", [f"x{n}"], [f"y{n}", f"z{n}"]) for n in range(50)))
    first, second = (task(folder, settings(folder), rows) for _ in range(2))
    later = second.batch(7)
    assert first.batch(3) == second.batch(3)
    assert first.batch(7) == later
    assert first.batch(3) != later


def test_lists_for_the_reader_s_loss_hold_several_positives_and_their_likelihoods(folder: Path):
    recipe = settings(folder, loss="ralm", likelihood={"template": TEMPLATE}, negatives=3)
    row = RankingRow("q", ("x",), (passage("x1"), passage("x2")), (passage("y"), passage("z")))
    with pytest.raises(InputError, match="log-likelihoods of two passages or more"):
        task(folder, recipe, [RankingSource(1.0, (row,))])
    numbers = {"x1": -1.0, "x2": -2.0, "y": -8.0}
    judged = RankingRow(
        row.question, row.answers, row.positives, row.negatives, tuple(numbers.values())
    )
    batch = task(folder, recipe, [RankingSource(1.0, (judged,))]).batch(0)
    for texts, labels in zip(batch.passages, batch.labels, strict=True):
        assert sorted(texts) == ["x1", "x2", "y"]
        assert texts[0] in ("x1", "x2")
        assert labels == tuple(numbers[text] for text in texts)


def test_lists_for_the_residual_loss_carry_the_retriever_s_weighted_scores(folder: Path):
    recipe = settings(folder, loss="residual", retrieval_weight=10.0)
    row = RankingRow("q", ("x",), (passage("x"),), (passage("y"), passage("z")))
    with pytest.raises(InputError, match="1 of 1 rows do not have the retriever's score"):
        task(folder, recipe, [RankingSource(1.0, (row,))])
    scores = {"x": 0.5, "y": 0.7, "z": 0.2}
    scored = replace(row, scores=scores)
    batch = task(folder, recipe, [RankingSource(1.0, (scored,))]).batch(0)
    for texts, labels in zip(batch.passages, batch.labels, strict=True):
        assert texts[0] == "x"
        assert labels == tuple(10 * scores[text] for text in texts)
    with pytest.raises(ValidationError, match="residual is softmax where"):
        settings(folder, loss="residual")


def test_validation_ranks_by_the_sum_of_both_scores(folder: Path):
    texts = ["a", "b c", "c d e"]
    held = replace(
        listed("q", texts, [False, True, False]),
        scores=dict(zip(texts, (0.4, 0.9, 0.1), strict=True)),
    )
    rows = source(("q", ["x"], ["y"]))
    rows = [RankingSource(1.0, (replace(rows[0].rows[0], scores={"x": 0.1, "y": 0.2}),))]
    heavy = task(folder, settings(folder, retrieval_weight=1e6), rows, [held]).validate()
    assert heavy["reranked@1"] == 100.0
    with pytest.raises(InputError, match="1 of 2 rows do not have the retriever's score"):
        task(folder, settings(folder, retrieval_weight=1.0), rows, [listed("q", ["a"], [True])])


def test_mined_rows_bring_the_scores_of_all_their_passages(folder: Path):
    with_scores(folder)
    recipe = settings(folder, loss="residual", retrieval_weight=4.0)
    sources, lists = load_ranking_data(recipe.data, examples=48, seed=5)
    row = next(row for row in sources[0].rows if row.question.endswith(" 11"))
    assert len(row.scores) == len(row.candidates)
    assert all(set(one.scores) >= {p.text for p in one.passages} for one in lists)
    assert task(folder, recipe, sources, lists).batch(0).questions


def test_a_reranker_learns_against_what_the_retrieval_prefers(folder: Path):
    texts = ["the river nile is long", "radium", "the king of france"]
    [rows] = source(("what is long", texts[:1], texts[1:]))
    scores = dict(zip(texts, (0.1, 0.5, 0.9), strict=True))
    rows = RankingSource(1.0, (replace(rows.rows[0], scores=scores),))
    made = task(folder, settings(folder, loss="residual", retrieval_weight=4.0), [rows])
    optimiser = torch.optim.AdamW([p for p in made.model.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(30):
        losses.append(made.loss(made.batch(0)))
        losses[-1].backward()
        optimiser.step()
        optimiser.zero_grad()
    assert float(losses[0].detach()) > 2.5
    assert float(losses[-1].detach()) < 0.5


def test_measures_count_the_first_passage_that_answers(folder: Path):
    lists = [
        listed("q", ["a b c d", "a", "a b", "a b c"], [False, False, False, True]),
        listed("q", ["a", "a b", "a b c", "a b c d"], [True, False, False, False]),
        listed("q", ["a", "b"], [False, False]),
        listed("q", [], []),
    ]
    made = task(folder, settings(folder), source(("q", ["x"], ["y"])), lists)

    class Longest(nn.Module):
        """Scores a pair by its length."""

        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, attention_mask: torch.Tensor, **rest: torch.Tensor):
            logits = attention_mask.sum(dim=1, keepdim=True).float()
            return type("Output", (), {"logits": logits})()

    made.use(Longest())
    assert made.validate() == {
        "retrieved@1": 25.0, "retrieved@3": 25.0, "retrieved@5": 50.0, "retrieved.mrr": 31.25,
        "reranked@1": 0.0, "reranked@3": 25.0, "reranked@5": 50.0, "reranked.mrr": 18.75,
        "reachable": 50.0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("encoder"))


FORMS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "bce": {"loss": "bce", "dropout": True},
    "lora": {
        "lora": {"rank": 8, "alpha": 32},
        "optimiser": {"learning_rate": 1e-2, "warmup_steps": 2},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(
    folder: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch, form: str
):
    recipe = settings(folder, encoder=str(minilm), **FORMS[form])
    whole = run_job(reranker_job(recipe), folder / "whole", lambda progress: None)

    class Killed(Exception):
        pass

    make_batch = RerankerTask.batch

    def dies(self: RerankerTask, step: int):
        if step == 8:
            raise Killed
        return make_batch(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(RerankerTask, "batch", dies)
        with pytest.raises(Killed):
            run_job(reranker_job(recipe), folder / "broken", lambda progress: None)
    torch.manual_seed(999)
    again = run_job(reranker_job(recipe), folder / "broken", lambda progress: None)
    for name in ("model.safetensors", "config.json"):
        assert (whole.folder / name).read_bytes() == (again.folder / name).read_bytes()
    assert whole.metrics == again.metrics
    assert not list(again.folder.parent.glob("unfinished-*"))
    assert run_job(reranker_job(recipe), folder / "broken", lambda progress: None).reused


@pytest.mark.parametrize("form", ["softmax", "lora"])
def test_training_ranks_better_and_what_is_written_is_what_was_trained(
    folder: Path, minilm: Path, form: str
):
    recipe = settings(folder, encoder=str(minilm), examples=480, batch_size=8, **FORMS[form])
    done = run_job(reranker_job(recipe), folder / "root", lambda progress: None)
    curves = json.loads((done.folder / "curves.json").read_text(encoding="utf-8"))
    assert curves["losses"][-1]["loss"] < 0.7 * curves["losses"][0]["loss"]
    before, written = curves["metrics"][0], curves["metrics"][-1]
    assert before["step"] == 0
    assert written["reranked.mrr"] > before["reranked.mrr"]
    manifest = verify(done.folder, kind="model")
    assert manifest.counts["steps"] == 60
    assert {"encoder", "data/mined.jsonl", "data/silver.jsonl"} <= manifest.inputs.keys()
    assert "<svg" in (done.folder / "loss.svg").read_text(encoding="utf-8")
    stored = load_file(str(done.folder / "model.safetensors"))
    assert not any("embeddings.weight" in name for name in stored)
    if form == "lora":
        assert {t.dtype for n, t in stored.items() if "lora" in n} == {torch.bfloat16}
        assert any("lora" in name for name in stored)
    loaded = load_pocket_classifier(done.folder, minilm)
    ours, theirs = loaded.state_dict(), load_file(str(minilm / "model.safetensors"))
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(ours[f"bert.{words}"], theirs[words])
    query = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(ours[f"bert.{query}"], theirs[query])


def test_adapters_alone_are_trained(tmp_path: Path):
    made = save_bert(tmp_path, kind="BertForSequenceClassification")
    model = BertForSequenceClassification.from_pretrained(made)
    add_adapters(model, rank=2, alpha=4.0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {n for n in trained if "lora" not in n} == {"classifier.weight", "classifier.bias"}
    assert len(trained) == 2 + 2 * (2 * 6 + 1)  # six linear layers in each of two, and the pooler


def test_a_training_goes_on_from_a_reranker_that_was_trained_before(folder: Path, minilm: Path):
    recipe = settings(folder, encoder=str(minilm))
    first = run_job(reranker_job(recipe), folder / "root", lambda progress: None)
    still = {"learning_rate": 1e-9, "warmup_steps": 0}
    second = settings(
        folder, encoder=str(minilm), start_from=str(first.folder), optimiser=still, examples=4
    )
    again = run_job(reranker_job(second), folder / "root", lambda progress: None)
    before, after = (
        load_pocket_classifier(done.folder, minilm).state_dict() for done in (first, again)
    )
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)


def test_several_starts_are_averaged_and_measured_without_training(folder: Path, minilm: Path):
    made = [
        run_job(
            reranker_job(settings(folder, encoder=str(minilm), seed=seed, examples=8)),
            folder / "root",
            lambda progress: None,
        )
        for seed in (1, 2)
    ]
    starts = [str(one.folder) for one in made]
    recipe = settings(folder, encoder=str(minilm), start_from=starts, examples=0)
    mean = run_job(reranker_job(recipe), folder / "root", lambda progress: None)
    first, second, third = (
        load_pocket_classifier(Path(one), minilm).state_dict() for one in (*starts, mean.folder)
    )
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(first[name], second[name])
    largest = (first[name] + second[name]).abs().amax(dim=1, keepdim=True) / 2
    off = (third[name] - (first[name] + second[name]) / 2).abs()
    assert bool((off <= largest / 127 * 0.51 + 1e-7).all())  # rounded to int8 once more
    words = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(first[words], third[words])
    assert mean.metrics["reranked.mrr"] > 0
    assert verify(mean.folder, kind="model").counts["steps"] == 0
    assert {"start-1", "start-2"} <= verify(mean.folder, kind="model").inputs.keys()
    with pytest.raises(ValidationError, match="start_from names no models to average"):
        settings(folder, examples=0, start_from=starts[0])


def test_a_start_with_another_base_than_the_recipe_s_is_refused(folder: Path, minilm: Path):
    made = run_job(
        reranker_job(settings(folder, encoder=str(minilm), examples=4)),
        folder / "root",
        lambda progress: None,
    )
    other = settings(folder, encoder=str(minilm), start_from=str(made.folder), base="pocket/reader")
    with pytest.raises(RecipeError, match="has the base None, the recipe says pocket/reader"):
        run_job(reranker_job(other), folder / "root", lambda progress: None)


def test_unknown_fields_and_empty_lists_are_refused(folder: Path):
    with pytest.raises(ValidationError, match="negative_count"):
        settings(folder, negative_count=3)
    with pytest.raises(ValidationError, match="negatives"):
        settings(folder, negatives=0)
    with pytest.raises(ValidationError, match="needs a reader that judges"):
        settings(folder, loss="ralm")
