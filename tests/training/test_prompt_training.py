"""Prompts train around a reader that stays as it was, go on after a stop, and prove themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rag_frozen.artifacts import load_manifest
from rag_frozen.errors import (
    ArtifactMismatchError,
    FrozenWeightsChangedError,
    InputError,
    RecipeError,
)
from rag_frozen.packing.template import PromptTemplate
from rag_frozen.prompting.heads import DependentHead, StaticHead, load_head, read_record
from rag_frozen.prompting.loading import load_prompt
from rag_frozen.training import loop, prompt_artifacts, prompt_training
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.prompt_data import load_prompt_rows, load_source
from rag_frozen.training.prompt_settings import PromptData, PromptTraining, TextTask
from rag_frozen.training.prompt_start import begin_head, input_encoder
from rag_frozen.training.prompt_task import PromptTask
from rag_frozen.training.prompt_training import AtHand, train_prompt
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
    assert done.metrics["trained_parameters"] == 8 * 32
    share = 100 * 8 * 32 / manifest.counts["reader_parameters"]
    assert done.metrics["trained_percent"] == pytest.approx(share)
    assert manifest.measures["largest_difference"] == proof["largest_difference"]
    times = [manifest.measures[f"{name}_milliseconds"] for name in ("plain", "conditioned")]
    assert min(times) > 0
    assert done.metrics["added_milliseconds"] == pytest.approx(times[1] - times[0])
    curves = json.loads((done.folder / "curves.json").read_text())
    assert curves["losses"][-1]["loss"] < 0.97 * curves["losses"][0]["loss"]
    assert "<svg" in (done.folder / "loss.svg").read_text()
    assert read_record(done.folder).length == 8
    again = train_prompt(settings(folder, steps=60, head={"kind": "static", "length": 8}), tmp_path)
    assert again.reused
    assert again.folder == done.folder
    assert again.metrics == done.metrics


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


def test_a_prompt_begins_as_its_recipe_says(folder: Path):
    """Random, from frequent tokens, from labels, from a written text."""
    from rag_frozen.reader.make import make_reader

    def begun(start: dict[str, object]) -> torch.Tensor:
        wanted = settings(folder, head={"kind": "static", "length": 3, "start": start})
        rows = load_prompt_rows(wanted.data, template=wanted.template, seed=wanted.seed)
        head = begin_head(wanted, reader, None, rows)
        assert isinstance(head, StaticHead)
        return head.module.vectors.detach()

    wanted = settings(folder)
    reader = make_reader(wanted.reader, dtype="float32")
    table = reader.embedding_table
    word = {reader.token_text(n): table[n] for n in range(len(table))}
    random = begun({"kind": "random"})
    assert float(random.abs().max()) <= 0.5
    assert not any(torch.equal(vector, row) for vector in random for row in table)
    sampled = begun({"kind": "sampled", "most": 5})
    common = [word[token] for token in ("[CLS]", "[SEP]", "the", "is", "moon", "sun")]
    assert all(any(torch.equal(vector, row) for row in common) for vector in sampled)
    labels = begun({"kind": "labels", "labels": ["red", "blue"], "most": 5})
    assert torch.equal(labels[0], word["red"])
    assert torch.equal(labels[1], word["blue"])
    assert any(torch.equal(labels[2], row) for row in common)
    text = begun({"kind": "text", "text": "king of france"})
    assert torch.equal(text, torch.stack([word["king"], word["of"], word["france"]]))


def test_the_shares_of_a_batch_have_its_loss_in_the_mean(folder: Path):
    from rag_frozen.reader.make import make_reader

    labels = {"sun": "red", "moon": "one two three"}
    source = settings(folder).data.sources[0].model_dump() | {"labels": labels}
    wanted = settings(folder, data={"path": folder, "sources": [source], "validation_rows": 12})
    reader = make_reader(wanted.reader, dtype="float32")
    rows = load_prompt_rows(wanted.data, template=wanted.template, seed=wanted.seed)
    head = begin_head(wanted, reader, None, rows)
    assert head is not None

    def task(share: Share) -> PromptTask:
        return PromptTask(reader, head, wanted, rows=rows, share=share)

    def tokens(task: PromptTask, step: int) -> int:
        return sum(map(len, task.batch(step).answers))

    shares = [task(Share(index, 4)) for index in range(4)]
    uneven = [n for n in range(16) if len({tokens(one, n) for one in shares}) > 1]
    assert uneven  # in even ones the mean of means would do
    for step in uneven:
        assert sum(tokens(one, step) for one in shares) == tokens(task(ALONE), step)
        mean = sum(one.loss(one.batch(step)).item() for one in shares) / 4
        whole = task(ALONE).loss(task(ALONE).batch(step)).item()
        assert mean == pytest.approx(whole, rel=1e-5)


def test_a_static_part_begins_from_tokens_beside_a_dependent_part(folder: Path):
    wanted = settings(folder, head={**dependent(folder), "n_static": 2, "n_queries": 3})
    from rag_frozen.reader.make import make_reader

    reader = make_reader(wanted.reader, dtype="float32")
    rows = load_prompt_rows(wanted.data, template=wanted.template, seed=0)
    encoder = input_encoder(wanted.head, torch.device("cpu"))
    head = begin_head(wanted, reader, encoder, rows)
    assert isinstance(head, DependentHead)
    by_text = {row.context.prompt: row.context for row in rows.validation}
    one, other = head.generate(list(by_text.values())[:2])
    assert one.shape == (5, 32)
    assert all(any(torch.equal(v, row) for row in reader.embedding_table) for v in one[:2])
    assert torch.equal(one[:2], other[:2])
    assert not torch.allclose(one[2:], other[2:], atol=1e-4)
    norm = reader.embedding_table.float().norm(dim=1).mean()
    assert torch.allclose(one[2:].norm(dim=1), norm.expand(3), rtol=1e-4)


def test_a_prompt_that_gains_nothing_is_written_but_not_taken_as_good(folder: Path, tmp_path: Path):
    idle = {"kind": "adamw", "learning_rate": 1e-9, "warmup_steps": 0}
    done = train_prompt(settings(folder, optimiser=idle, steps=1), tmp_path)
    assert any("no gain over the plain reader" in fault for fault in done.faults)
    digest = load_manifest(done.folder, kind="head").models["reader"].digest
    with pytest.raises(ArtifactMismatchError, match="is not proven: no gain"):
        load_prompt(done.folder, reader_digest=digest)
    assert load_prompt(done.folder, reader_digest=digest, accept_unproven=True).length == 3


def test_a_reader_that_changes_in_a_training_is_noticed_and_nothing_is_saved(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = prompt_artifacts.prove_head

    def touches(reader: Any, *arguments: Any) -> Any:  # Any: as prove_head
        with torch.no_grad():
            reader.model.head.bias.add_(1e-3)
        return kept(reader, *arguments)

    monkeypatch.setattr(prompt_artifacts, "prove_head", touches)
    with pytest.raises(FrozenWeightsChangedError, match="Nothing was saved"):
        train_prompt(settings(folder, steps=1), tmp_path)
    assert not list(tmp_path.rglob("head.safetensors"))


def test_what_is_at_hand_is_not_loaded_again_and_gives_the_same_prompt(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from rag_frozen.reader.make import make_reader

    wanted = settings(folder, head=dependent(folder), steps=2)
    alone = train_prompt(wanted, tmp_path / "alone")
    reader = make_reader(wanted.reader)
    rows = load_prompt_rows(wanted.data, template=wanted.template, seed=wanted.seed)
    known = AtHand(
        reader,
        input_encoder(wanted.head, torch.device("cpu")),
        rows=lambda: rows,
        plain=lambda: [False] * len(rows.validation),
    )

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("loaded again")

    for name in ("make_reader", "load_prompt_rows", "input_encoder"):
        monkeypatch.setattr(prompt_training, name, refused)
    shared = train_prompt(wanted, tmp_path / "shared", at_hand=known)
    assert shared.folder.name == alone.folder.name
    weights = [(one.folder / "head.safetensors").read_bytes() for one in (alone, shared)]
    assert weights[0] == weights[1]
    assert reader.prompt_generator is None


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


def test_the_parts_of_a_file_share_no_row_and_miss_none(tmp_path: Path):
    lines = [json.dumps({"text": f"row {n}", "label": "a"}) + "\n" for n in range(1_020)]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    template = PromptTemplate(**TEMPLATE)
    found = {}
    for part in ("train", "test", None):
        task = TextTask(
            kind="text", name="r", file="rows.jsonl", input="{text}", target="label", part=part
        )
        rows = load_source(task, tmp_path, template=template, seed=0)
        found[part] = [row.context.prompt for row in rows]
    assert len(found["test"]) == 100
    assert not set(found["train"]) & set(found["test"])
    assert sorted([*found["train"], *found["test"]]) == sorted(found[None])


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
