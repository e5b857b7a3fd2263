"""Training a question encoder against an index: its rows, negatives, loss, a kill, its use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.nn import functional

from rag_frozen.artifacts import verify
from rag_frozen.build import load_pipeline
from rag_frozen.errors import ArtifactMismatchError, InputError, ModelError, RecipeError
from rag_frozen.evaluation.metrics import has_answer
from rag_frozen.indexing.build import build_index
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.source import ModelFolder
from rag_frozen.recipes.index import IndexRecipe
from rag_frozen.retrieval.dense_encoders import SentenceEncoder
from rag_frozen.retrieval.question_tower import QuestionTower
from rag_frozen.training import question_tower_job as question_tower_job_module
from rag_frozen.training.job import run_job
from rag_frozen.training.passage_bank import PassageBank, find_bank
from rag_frozen.training.question_tower_data import load_bank_data
from rag_frozen.training.question_tower_job import question_tower_job
from rag_frozen.training.question_tower_task import QuestionTowerTask
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.types import Passage
from tests.training.rankings import (
    KINGS,
    PLACES,
    data,
    mined,
    passage,
    sentence_encoder,
    write,
    write_world,
)

LEFT_OUT = ["5", "1*"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpus, questions, and an index over the corpus with a tiny encoder."""
    folder = write_world(tmp_path_factory.mktemp("world"))
    sentence_encoder(folder / "encoder")
    sentence_encoder(folder / "other", seed=9)
    (folder / "leave-out.txt").write_text("\n".join(LEFT_OUT), encoding="utf-8")
    free = [{"question": f"Town of {KINGS[n % 6]} {n}?", "answers": [PLACES[n % 6]]}
            for n in range(12)]  # fmt: skip
    write(folder / "free.jsonl", free)
    write(folder / "more.jsonl", [mined(20, "TOWN of anna 0"), mined(21, "who is boris")])
    recipe = {
        "kind": "index", "name": "tiny",
        "corpus": {"kind": "files", "path": str(folder / "corpus.jsonl")},
        "dense": {"kind": "flat", "encoder": {
            "kind": "sentence-transformers", "model": str(folder / "encoder")}},
    }  # fmt: skip
    (folder / "index.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    build_index(IndexRecipe.model_validate(recipe), root=folder / "root")
    return folder


def settings(folder: Path, **changes: Any) -> RetrieverTraining:
    rows = data(folder)
    rows["questions"] = [{"name": "mined", "file": "mined.jsonl"}, rows["questions"][0]]
    bank = {"index": str(folder / "index.yaml"), "mine_every": 4, "depth": 20, "pool": 4}
    asked = {"name": "free", "file": "free.jsonl"}
    fields: dict[str, Any] = {
        "kind": "pocket-retriever", "name": "tiny", "seed": 5,
        "encoder": str(folder / "encoder"), "towers": "question", "data": rows,
        "bank": {**bank, "questions": asked, "n_questions": 6},
        "lora": {"rank": 8, "alpha": 32},
        "optimiser": {"learning_rate": 3e-3, "warmup_steps": 2},
        "examples": 48, "batch_size": 4, "negatives": 2,
        "validate_every": 6, "checkpoint_every": 5,
    }  # fmt: skip
    return RetrieverTraining.model_validate({**fields, **changes})


def bank_of(world: Path) -> PassageBank:
    return PassageBank(find_bank(world / "index.yaml", world / "root"), exclude=LEFT_OUT)


def begun(world: Path, home: Path, **changes: Any) -> QuestionTowerTask:
    """The task as a job begins it, in fp32."""
    torch.manual_seed(5)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(question_tower_job_module, "choose_dtype", lambda device: torch.float32)
        job = question_tower_job(settings(world, **changes), root=world / "root")
        task = job.begin(home).task
    assert isinstance(task, QuestionTowerTask)
    return task


def train(world: Path, home: Path, **changes: Any):
    job = question_tower_job(settings(world, **changes), root=world / "root")
    return run_job(job, home, lambda progress: None)


def test_the_bank_finds_passages_by_id_or_text_and_leaves_out_what_must_not_be_trained_on(
    world: Path,
):
    bank = bank_of(world)
    assert len(bank) == 60
    asked = [Passage(**passage(7)), Passage("", "x", passage(8)["text"])]
    asked += [Passage(**passage(n)) for n in (5, 1, 13)] + [Passage("", "", "nowhere")]
    found = bank.rows_of(asked)
    assert {bank.passage(row).id for row in found.values()} == {"7", "8"}
    assert set(found) == set(asked[:2])
    usable = {bank.passage(row).id for row in range(60) if bank.usable[row]}
    assert usable == {str(n) for n in range(60)} - {"5", "1", *(str(n) for n in range(10, 20))}


def test_the_nearest_rows_are_those_of_the_greatest_product(world: Path):
    bank = bank_of(world)
    plain = SentenceEncoder(ModelFolder("plain", world / "encoder"), dtype="float32")
    vectors = plain.encode_questions(["who lived in riga", "the house"])
    against = bank.vectors(range(60))
    assert against.shape == (60, bank.width)
    for row, vector in zip(bank.nearest(vectors, k=7), vectors, strict=True):
        best = np.sort(against @ vector)[::-1][:7]
        assert np.allclose(against[row] @ vector, best, atol=1e-6)
    assert all(sorted(row) == list(range(60)) for row in bank.nearest(vectors, k=1_000))


def test_held_out_questions_are_in_no_source_however_they_are_written(world: Path):
    rows = data(world)
    rows["questions"] = [{"name": "more", "file": "more.jsonl"}]
    every = {
        "index": str(world / "index.yaml"),
        "questions": {"name": "free", "file": "free.jsonl"},
    }
    recipe = settings(world, data=rows, bank={**every, "n_questions": 12})
    sources, held = load_bank_data(recipe, bank_of(world))
    assert "Town of anna 0?" in {one.question for one in held["questions"]}
    assert [row.question for source in sources for row in source.rows] == ["who is boris"]
    assert len(held["rows"]) == 8
    _, held = load_bank_data(settings(world), bank_of(world))
    assert len(held["questions"]) == 6


def test_passages_that_are_not_in_the_bank_or_must_not_be_trained_on_are_no_positives(world: Path):
    bank = bank_of(world)
    sources, _ = load_bank_data(settings(world), bank)
    for source in sources:
        for row in source.rows:
            assert row.positives
            for place in row.positives:
                assert bank.usable[place]
                assert has_answer(bank.passage(place).text, row.answers)
    elsewhere = {
        **mined(20, "where"),
        "positives": [{"pid": "q", "title": "", "text": "Riga Lyon"}],
    }
    write(world / "elsewhere.jsonl", [{**elsewhere, "answers": ["Riga"]}])
    rows = {**data(world), "questions": [{"name": "else", "file": "elsewhere.jsonl"}]}
    with pytest.raises(InputError, match="None of the passages"):
        load_bank_data(settings(world, data=rows), bank)


def test_negatives_are_the_nearest_usable_passages_without_an_answer(world: Path, tmp_path: Path):
    task = begun(world, tmp_path)
    bank = bank_of(world)
    plain = SentenceEncoder(ModelFolder("plain", world / "encoder"), dtype="float32")
    batch = task.batch(0)
    stored = load_file(next(tmp_path.rglob("round-00000.safetensors")))["negatives"].tolist()
    answers = {row.question: row for source in task._sources for row in source.rows}
    for place, question in enumerate(batch.questions):
        row = answers[question]
        [near] = bank.nearest(plain.encode_questions([question]), k=20)
        wanted = [
            one for one in near
            if bank.usable[one] and one not in row.positives
            and not has_answer(bank.passage(one).text, row.answers)
        ][:4]  # fmt: skip
        pool = next(kept for kept in stored if set(wanted) <= set(kept))
        assert {column[place] for column in batch.negatives} <= set(pool)
        assert batch.positives[place] in row.positives
    assert len(set(batch.positives)) == 4


def test_the_loss_is_the_log_likelihood_among_stored_vectors(world: Path, tmp_path: Path):
    task = begun(world, tmp_path, scale=7.0)
    batch = task.batch(0)
    plain = SentenceEncoder(ModelFolder("plain", world / "encoder"), dtype="float32")
    asked = torch.from_numpy(plain.encode_questions(batch.questions))
    rows = [row for column in (batch.positives, *batch.negatives) for row in column]
    against = torch.from_numpy(bank_of(world).vectors(rows))
    wanted = functional.cross_entropy(7.0 * asked @ against.T, torch.arange(4))
    assert float(task.loss(batch).detach()) == pytest.approx(float(wanted), abs=1e-4)


def test_a_new_round_looks_again_with_the_encoder_as_it_is(world: Path, tmp_path: Path):
    task = begun(world, tmp_path / "one")
    task.batch(3)
    with torch.no_grad():
        for parameter in task.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5)
    changed = task.batch(4)
    other = begun(world, tmp_path / "other")
    assert other.batch(4).questions == changed.questions
    first, second = (
        load_file(next((tmp_path / name).rglob("round-00001.safetensors")))["negatives"]
        for name in ("one", "other")
    )
    assert not torch.equal(first, second)


def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = train(world, tmp_path / "whole")

    class Killed(Exception):
        pass

    make_batch = QuestionTowerTask.batch

    def dies(self: QuestionTowerTask, step: int):
        if step == 7:  # in the middle of a round, two steps after a checkpoint
            raise Killed
        return make_batch(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(QuestionTowerTask, "batch", dies)
        with pytest.raises(Killed):
            train(world, tmp_path / "broken")
    torch.manual_seed(999)
    again = train(world, tmp_path / "broken")
    for name in ("model.safetensors", "config.json"):
        assert (whole.folder / name).read_bytes() == (again.folder / name).read_bytes()
    assert whole.metrics == again.metrics
    assert not list((tmp_path / "broken").rglob("round-*"))


def test_training_retrieves_better_and_a_pipeline_searches_the_index_with_it(
    world: Path, tmp_path: Path
):
    done = train(world, world / "root", examples=480, batch_size=8)
    curves = json.loads((done.folder / "curves.json").read_text(encoding="utf-8"))
    assert curves["metrics"][0]["step"] == 0
    assert done.metrics["rows.mrr"] > curves["metrics"][0]["rows.mrr"] + 5
    assert done.metrics["rows@100"] == 100.0
    verify(done.folder, kind="model")
    pipeline = {
        "kind": "pipeline", "name": "tuned", "index": str(world / "index.yaml"),
        "retrieval": {"kind": "dense", "k": 5, "question_encoder": str(done.folder)},
        "reader": {"kind": "prefix-lm"},
    }  # fmt: skip
    (tmp_path / "tuned.yaml").write_text(json.dumps(pipeline), encoding="utf-8")
    loaded = load_pipeline(tmp_path / "tuned.yaml", root=world / "root", until="retrieve")
    assert loaded.artifacts["question encoder"] == folder_digest(done.folder)
    question = "home of anna 3"
    [ranking] = loaded.retrieve([question])
    bank = bank_of(world)
    tuned = SentenceEncoder(ModelFolder("tuned", done.folder), questions=True)
    [near] = bank.nearest(tuned.encode_questions([question]), k=5)
    assert {hit.passage_id for hit in ranking} == {bank.passage(row).id for row in near}


def test_a_question_encoder_keeps_the_plain_vectors_of_passages(world: Path, tmp_path: Path):
    done = train(world, tmp_path)
    plain = ModelFolder("plain", world / "encoder")
    pair = QuestionTower(ModelFolder("tuned", done.folder), plain, dtype="float32")
    alone = SentenceEncoder(plain, dtype="float32")
    assert pair.digest == alone.digest
    assert pair.width == alone.width
    passages = [Passage(**passage(n)) for n in range(3)]
    assert np.allclose(pair.encode_passages(passages), alone.encode_passages(passages))
    asked = ["home of anna", "home of boris"]
    assert not np.allclose(pair.encode_questions(asked), alone.encode_questions(asked), atol=1e-3)


def test_a_question_encoder_is_refused_where_it_does_not_belong(world: Path, tmp_path: Path):
    done = train(world, tmp_path)
    tuned = ModelFolder("tuned", done.folder)
    with pytest.raises(ModelError, match="encodes questions alone"):
        SentenceEncoder(tuned)
    with pytest.raises(ArtifactMismatchError, match="trained against vectors of an encoder"):
        QuestionTower(tuned, ModelFolder("other", world / "other"))
    with pytest.raises(ModelError, match="is no question encoder"):
        QuestionTower(ModelFolder("plain", world / "encoder"), tuned)
    with pytest.raises(ArtifactMismatchError, match="was built with"):
        train(world, tmp_path, encoder=str(world / "other"))


def test_towers_and_bank_go_together(world: Path, tmp_path: Path):
    with pytest.raises(ValidationError, match="go together"):
        settings(world, bank=None)
    with pytest.raises(ValidationError, match="go together"):
        settings(world, towers="shared")
    with pytest.raises(ValidationError, match="negatives is 9"):
        settings(world, negatives=9)
    no_dense = {"kind": "index", "name": "x", "corpus": {"kind": "pocket"}}
    (tmp_path / "x.yaml").write_text(
        json.dumps({**no_dense, "bm25": {"kind": "tantivy"}}), encoding="utf-8"
    )
    with pytest.raises(RecipeError, match="has no dense part"):
        find_bank(tmp_path / "x.yaml", tmp_path)
