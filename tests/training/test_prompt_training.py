"""Prompts train around a reader that stays as it was, go on after a stop, and prove themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rag_frozen.artifacts import load_manifest
from rag_frozen.errors import InputError, RecipeError
from rag_frozen.packing.template import PromptTemplate
from rag_frozen.prompting.heads import load_head, read_record
from rag_frozen.training import loop
from rag_frozen.training.prompt_data import load_prompt_rows
from rag_frozen.training.prompt_settings import PromptData, PromptTraining
from rag_frozen.training.prompt_training import train_prompt
from tests.tiny import COLOURS, save_reader_and_rows

TEMPLATE = {
    "with_passages": "question: {question}\n{passages}",
    "passage": "passage: {title}. {text}\n",
    "closed_book": "question: {question}\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny reader, encoder and data; the label follows from one word of the text."""
    home = tmp_path_factory.mktemp("prompts")
    save_reader_and_rows(home)
    return home


def settings(folder: Path, **changes: object) -> PromptTraining:
    values: dict[str, object] = {
        "kind": "prompt",
        "name": "tiny",
        "reader": {
            "kind": "prefix-lm",
            "model": str(folder / "reader"),
            "encoder": str(folder / "encoder"),
            "decoding": {"max_new_tokens": 3},
        },
        "head": {"kind": "static", "length": 3},
        "template": TEMPLATE,
        "data": {
            "path": folder,
            "sources": [
                {
                    "kind": "text", "name": "colours", "file": "labels.jsonl", "input": "{text}",
                    "target": "label", "labels": COLOURS,
                }
            ],
            "validation_rows": 12,
        },
        "optimiser": {"kind": "adamw", "learning_rate": 0.05, "warmup_steps": 2},
        "steps": 12,
        "batch_size": 8,
        "validate_every": 6,
        "checkpoint_every": 5,
    }  # fmt: skip
    return PromptTraining.model_validate({**values, **changes})


DEPENDENT = {
    "kind": "input-dependent", "n_queries": 2, "n_static": 1, "width": 16, "heads": 2, "inner": 16,
    "encoder_prompt": 1,
}  # fmt: skip


def dependent(folder: Path) -> dict[str, object]:
    return {**DEPENDENT, "encoder": str(folder / "encoder")}


def test_a_static_prompt_learns_a_task_around_an_unchanged_reader(folder: Path, tmp_path: Path):
    done = train_prompt(settings(folder, steps=60, head={"kind": "static", "length": 8}), tmp_path)
    proof = json.loads((done.folder / "proof.json").read_text())
    manifest = load_manifest(done.folder, kind="head")
    assert proof["base_before"] == proof["base_after"]
    assert read_record(done.folder).reader_digest == manifest.models["reader"].digest
    assert proof["largest_difference"] > 0.1
    assert proof["bitwise_after_loading"]
    assert proof["difference_after_loading"] == 0
    assert proof["plain"] == 0
    assert done.metrics["exact_match"] == proof["conditioned"]
    assert proof["faults"] == list(done.faults)
    assert manifest.counts["trained_parameters"] == 8 * 32
    curves = json.loads((done.folder / "curves.json").read_text())
    assert curves["losses"][-1]["loss"] < 0.97 * curves["losses"][0]["loss"]
    assert "<svg" in (done.folder / "loss.svg").read_text()
    assert read_record(done.folder).length == 8
    again = train_prompt(settings(folder, steps=60, head={"kind": "static", "length": 8}), tmp_path)
    assert again.reused
    assert again.folder == done.folder


def test_a_dependent_prompt_learns_what_its_question_says(folder: Path, tmp_path: Path):
    wanted = settings(
        folder,
        head=dependent(folder),
        steps=120,
        optimiser={"kind": "adamw", "learning_rate": 0.05, "warmup_steps": 2},
    )
    done = train_prompt(wanted, tmp_path)
    curves = json.loads((done.folder / "curves.json").read_text())
    assert curves["losses"][-1]["loss"] < 0.97 * curves["losses"][0]["loss"]
    record = read_record(done.folder)
    assert (record.kind, record.reads, record.length) == ("input-dependent", "question", 3)


class Stop(Exception):
    pass


@pytest.mark.parametrize("head", ["static", "adafactor", "dependent"])
def test_a_training_that_was_stopped_ends_with_the_same_weights(
    folder: Path, tmp_path: Path, head: str, monkeypatch: pytest.MonkeyPatch
):
    changes: dict[str, object] = {"early_stopping": {"metric": "exact_match", "patience": 9}}
    if head == "adafactor":
        changes["optimiser"] = {
            "kind": "adafactor", "schedule": "constant", "learning_rate": 0.3, "warmup_steps": 0,
        }  # fmt: skip
    if head == "dependent":
        changes["head"] = dependent(folder)
    whole = train_prompt(settings(folder, **changes), tmp_path / "a")
    kept = loop._save

    def dies(run, checkpoints, identity, total):
        kept(run, checkpoints, identity, total)
        if run.step == 10:
            raise Stop

    monkeypatch.setattr(loop, "_save", dies)
    with pytest.raises(Stop):
        train_prompt(settings(folder, **changes), tmp_path / "b")
    monkeypatch.undo()
    resumed = train_prompt(settings(folder, **changes), tmp_path / "b")
    one = (whole.folder / "head.safetensors").read_bytes()
    assert (resumed.folder / "head.safetensors").read_bytes() == one
    curves = [json.loads((f / "curves.json").read_text()) for f in (whole.folder, resumed.folder)]
    assert curves[0]["losses"] == curves[1]["losses"]
    assert curves[0]["metrics"] == curves[1]["metrics"]


def test_early_stopping_keeps_the_best_weights_and_stops(folder: Path, tmp_path: Path):
    rule = {"metric": "exact_match", "patience": 2}
    wanted = settings(
        folder,
        steps=60,
        validate_every=2,
        early_stopping=rule,
        optimiser={"kind": "adamw", "learning_rate": 1e-7},
    )
    done = train_prompt(wanted, tmp_path)
    curves = json.loads((done.folder / "curves.json").read_text())
    assert curves["stopped_early"]
    assert curves["best_step"] == 2
    assert curves["metrics"][-1]["step"] == 6
    with pytest.raises(InputError, match="'accuracy', which is not measured"):
        train_prompt(
            settings(folder, early_stopping={"metric": "accuracy", "patience": 2}), tmp_path
        )


@pytest.mark.parametrize(("kind", "model"), [("causal", "llama"), ("seq2seq", "t5")])
def test_prompts_train_around_models_of_transformers(
    folder: Path, tmp_path: Path, kind: str, model: str
):
    reader = {"kind": kind, "model": str(folder / model), "decoding": {"max_new_tokens": 3}}
    done = train_prompt(settings(folder, reader=reader), tmp_path)
    curves = json.loads((done.folder / "curves.json").read_text())
    assert len(curves["losses"]) == 2
    digest = load_manifest(done.folder, kind="head").models["reader"].digest
    assert load_head(done.folder, reader_digest=digest).length == 3


def test_full_tuning_changes_the_readers_copy_and_not_its_words(folder: Path, tmp_path: Path):
    from rag_frozen.reader.prefix_lm_weights import load_prefix_lm

    done = train_prompt(settings(folder, head={"kind": "full"}), tmp_path)
    proof = json.loads((done.folder / "proof.json").read_text())
    assert proof["base_before"] != proof["base_after"]
    tuned = load_prefix_lm(done.folder, folder / "encoder")
    begun = load_prefix_lm(folder / "reader", folder / "encoder")
    assert torch.equal(tuned.word_embeddings.weight, begun.word_embeddings.weight)
    assert not torch.equal(tuned.head.weight, begun.head.weight)
    reader = {"kind": "causal", "model": str(folder / "llama")}
    with pytest.raises(RecipeError, match="prefix-lm"):
        train_prompt(settings(folder, head={"kind": "full"}, reader=reader), tmp_path)


@pytest.mark.parametrize(
    "start",
    [
        {"kind": "random"},
        {"kind": "sampled", "most": 20},
        {"kind": "labels", "labels": ["red", "blue"], "most": 20},
        {"kind": "text", "text": "the colour of the sun"},
    ],
)
def test_every_way_to_begin_gives_another_prompt(folder: Path, tmp_path: Path, start):
    head = {"kind": "static", "length": 3, "start": start}
    done = train_prompt(settings(folder, head=head, steps=1), tmp_path)
    assert read_record(done.folder).length == 3


def test_validation_rows_are_never_trained_on_and_choices_follow_the_seed(folder: Path):
    source = {"kind": "reading", "name": "r", "file": "reading.jsonl", "n_passages": 2}
    data = PromptData.model_validate({"path": folder, "sources": [source], "validation_rows": 4})
    template = PromptTemplate(**TEMPLATE)
    rows = load_prompt_rows(data, template=template, seed=1)
    held = {row.context.question.text for row in rows.validation}
    trained = {rows.pick(n, 1).context.question.text for n in range(40)}
    assert len(held) == 4
    assert not held & trained
    assert all(row.context.prompt.count("passage:") == 2 for row in rows.validation)
    assert load_prompt_rows(data, template=template, seed=1) == rows
    assert load_prompt_rows(data, template=template, seed=2) != rows
    once = [rows.pick(n, 1).context.question.id for n in range(len(trained))]
    assert len(set(once)) == len(trained)


def test_wrong_fields_and_labels_are_told(folder: Path, tmp_path: Path):
    source = {"kind": "text", "name": "c", "file": "labels.jsonl", "target": "label"}
    for changes, message in (
        ({"input": "{review}"}, "no field 'review' in row 0"),
        ({"input": "{text}", "labels": {"sun": "red"}}, "the label 'moon'"),
    ):
        data = {"path": folder, "sources": [{**source, **changes}]}
        with pytest.raises(RecipeError, match=message):
            train_prompt(settings(folder, data=data), tmp_path)
    with pytest.raises(ValueError, match="plain fields"):
        settings(folder, data={"sources": [{**source, "input": "{text.__class__}"}]})
