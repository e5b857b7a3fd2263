"""Training the pocket retriever: its batches, its loss, a tiny run, a kill, retrieval with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional

from rag_frozen.artifacts import file_sha256, verify
from rag_frozen.errors import ArtifactMismatchError, InputError
from rag_frozen.models.lora import attach_lora
from rag_frozen.models.source import ModelFolder
from rag_frozen.retrieval.dense_encoders import SentenceEncoder
from rag_frozen.retrieval.minilm_adapter import begin_encoder
from rag_frozen.training.job import run_job
from rag_frozen.training.ranking_rows import RankingRow, RankingSource, ValidationList
from rag_frozen.training.retriever_job import retriever_job
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.retriever_task import RetrieverTask
from rag_frozen.types import Passage
from tests.training.rankings import only_mined, passages, sentence_encoder, write_world


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_world(tmp_path)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_encoder(tmp_path_factory.mktemp("encoder"))


def settings(folder: Path, encoder: Path, **changes: Any) -> RetrieverTraining:
    fields: dict[str, Any] = {
        "kind": "pocket-retriever",
        "name": "tiny",
        "seed": 5,
        "encoder": str(encoder),
        "data": only_mined(folder),
        "lora": {"rank": 8, "alpha": 32},
        "optimiser": {"learning_rate": 3e-3, "warmup_steps": 2},
        "examples": 48,
        "batch_size": 4,
        "validate_every": 6,
        "checkpoint_every": 5,
    }
    return RetrieverTraining.model_validate({**fields, **changes})


def rows(n: int, *, negatives: int = 2) -> list[RankingSource]:
    made = (
        RankingRow(f"q {k}", ("x",), passages(k), passages(*range(30 + k, 30 + k + negatives)))
        for k in range(n)
    )
    return [RankingSource(1.0, tuple(made))]


def task(
    recipe: RetrieverTraining,
    encoder: Path,
    sources: list[RankingSource],
    validation: list[ValidationList] | None = None,
) -> RetrieverTask:
    model, form = begin_encoder(encoder)
    torch.manual_seed(recipe.seed)
    attach_lora(model, rank=recipe.lora.rank, alpha=recipe.lora.alpha)
    return RetrieverTask(
        model, form, Tokenizer.from_file(str(encoder / "tokenizer.json")), recipe,
        sources=sources, validation=validation or [], bf16=False,
    )  # fmt: skip


def test_the_loss_is_the_log_likelihood_among_all_passages_of_the_batch(folder, encoder):
    recipe = settings(folder, encoder, scale=7.0)
    made = task(recipe, encoder, rows(9))
    batch = made.batch(0)
    assert len(batch.questions) == len(batch.positives) == 4
    assert [len(column) for column in batch.negatives] == [4]
    plain = SentenceEncoder(ModelFolder("tiny", encoder), dtype="float32")
    asked = torch.from_numpy(plain.encode_questions(batch.questions))
    texts = [*batch.positives, *batch.negatives[0]]
    against = torch.from_numpy(plain.encode_questions(texts))
    wanted = functional.cross_entropy(7.0 * asked @ against.T, torch.arange(4))
    assert float(made.loss(batch).detach()) == pytest.approx(float(wanted), abs=1e-4)


def test_batches_are_functions_of_the_step_and_repeat_no_passage(folder, encoder):
    recipe = settings(folder, encoder)
    first, second = (task(recipe, encoder, rows(9)) for _ in range(2))
    later = second.batch(7)
    assert first.batch(3) == second.batch(3)
    assert first.batch(7) == later
    assert first.batch(3) != later
    for step in range(10):
        assert len(set(first.batch(step).positives)) == 4


def test_questions_with_too_few_hard_negatives_are_left_out(folder, encoder):
    both = [*rows(3, negatives=2), *rows(6, negatives=1)]
    made = task(settings(folder, encoder, negatives=2), encoder, both)
    assert {q for step in range(20) for q in made.batch(step).questions} == {"q 0", "q 1", "q 2"}
    with pytest.raises(InputError, match="has 3 hard negatives"):
        task(settings(folder, encoder, negatives=3), encoder, both)
    none = task(settings(folder, encoder, negatives=0), encoder, both)
    assert none.batch(0).negatives == ()
    assert torch.isfinite(none.loss(none.batch(0)))


def test_measures_are_those_of_vectors_made_one_by_one(folder, encoder):
    texts = ["who wrote hamlet", "the river nile is long", "radium", "the king of france"]
    lists = [
        ValidationList(
            question, (answer,),
            tuple(Passage("", "", text) for text in texts), tuple(answer in t for t in texts),
        )
        for question, answer in (("hamlet who", "hamlet"), ("france", "king"), ("sun", "moon"))
    ]  # fmt: skip
    got = task(settings(folder, encoder), encoder, rows(9), lists).validate()
    plain = SentenceEncoder(ModelFolder("tiny", encoder), dtype="float32")
    against = plain.encode_questions(texts)
    ranks = []
    for row in lists:
        scores = against @ plain.encode_questions([row.question])[0]
        order = np.argsort(-scores, kind="stable")
        ranks.append([row.answering[place] for place in order])
    assert got["dense@1"] == pytest.approx(100 * sum(r[0] for r in ranks) / 3)
    assert got["dense@3"] == pytest.approx(100 * sum(any(r[:3]) for r in ranks) / 3)
    assert got["pool@5"] == got["pool@20"] == pytest.approx(200 / 3)
    assert got["retrieved@1"] == pytest.approx(100 / 3)


def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(
    folder: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = settings(folder, encoder, dropout=True)
    whole = run_job(retriever_job(recipe), folder / "whole", lambda progress: None)

    class Killed(Exception):
        pass

    make_batch = RetrieverTask.batch

    def dies(self: RetrieverTask, step: int):
        if step == 8:
            raise Killed
        return make_batch(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(RetrieverTask, "batch", dies)
        with pytest.raises(Killed):
            run_job(retriever_job(recipe), folder / "broken", lambda progress: None)
    torch.manual_seed(999)
    again = run_job(retriever_job(recipe), folder / "broken", lambda progress: None)
    for name in ("model.safetensors", "config.json"):
        assert (whole.folder / name).read_bytes() == (again.folder / name).read_bytes()
    assert whole.metrics == again.metrics
    tensors = load_file(str(whole.folder / "model.safetensors"))
    assert any(tensor.abs().sum() > 0 for name, tensor in tensors.items() if "lora_B" in name)


def test_training_retrieves_better_and_the_adapter_is_a_recipe_s_encoder(
    folder: Path, encoder: Path
):
    recipe = settings(folder, encoder, examples=320, batch_size=8)
    done = run_job(retriever_job(recipe), folder / "root", lambda progress: None)
    curves = json.loads((done.folder / "curves.json").read_text(encoding="utf-8"))
    assert curves["metrics"][0]["step"] == 0
    assert done.metrics["dense.mrr"] > curves["metrics"][0]["dense.mrr"]
    manifest = verify(done.folder, kind="model")
    assert manifest.models["encoder"].digest == file_sha256(encoder / "model.safetensors")
    tuned = SentenceEncoder(ModelFolder("tuned", done.folder), dtype="float32")
    plain = SentenceEncoder(ModelFolder("plain", encoder), dtype="float32")
    assert tuned.digest != plain.digest
    assert tuned.width == plain.width
    asked = ["home of anna", "home of boris"]
    assert not np.allclose(tuned.encode_questions(asked), plain.encode_questions(asked), atol=1e-2)


def test_a_second_round_begins_with_the_first_round_s_adapters(folder: Path, encoder: Path):
    first = run_job(retriever_job(settings(folder, encoder)), folder / "root", lambda p: None)
    still = {"learning_rate": 1e-9, "warmup_steps": 0}
    changes: dict[str, Any] = {"start_from": str(first.folder), "optimiser": still, "examples": 4}
    again = run_job(
        retriever_job(settings(folder, encoder, **changes)), folder / "root", lambda p: None
    )
    assert first.folder != again.folder
    before, after = (load_file(str(d.folder / "model.safetensors")) for d in (first, again))
    assert all(torch.allclose(before[n], after[n], atol=1e-3) for n in before)
    other = settings(folder, encoder, **changes, lora={"rank": 4, "alpha": 32})
    with pytest.raises(ArtifactMismatchError, match="do not fit the model"):
        run_job(retriever_job(other), folder / "root", lambda p: None)


def test_weights_that_only_became_worse_are_not_kept(
    folder: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
):
    measured: list[int] = []

    def worse_and_worse(self: RetrieverTask) -> dict[str, float]:
        measured.append(len(measured))
        return {"dense.mrr": -float(len(measured))}

    monkeypatch.setattr(RetrieverTask, "validate", worse_and_worse)
    stop = {"metric": "dense.mrr", "patience": 2}
    recipe = settings(folder, encoder, early_stopping=stop, validate_every=2)
    done = run_job(retriever_job(recipe), folder / "root", lambda progress: None)
    curves = json.loads((done.folder / "curves.json").read_text(encoding="utf-8"))
    assert curves["best_step"] == 0
    assert curves["stopped_early"]
    assert [row["step"] for row in curves["metrics"]] == [0, 2, 4, 4]
    tensors = load_file(str(done.folder / "model.safetensors"))
    assert all(not tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
