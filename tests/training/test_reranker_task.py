"""Training the pocket reranker: its data, its loss, a tiny run, a kill."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import BertForSequenceClassification

from rag_frozen.evaluation.metrics import normalize_answer
from rag_frozen.recipes.loading import find_recipe, load_recipe
from rag_frozen.training.loop import run_loop
from rag_frozen.training.reranker_settings import RerankerTraining
from rag_frozen.training.reranker_task import (
    RankingRow,
    RerankerTask,
    ValidationList,
    load_ranking_data,
)
from rag_frozen.training.settings import ReaderTraining
from rag_frozen.training.sources import hold_out, read_rows
from tests.tiny import save_bert, wordpiece

KINGS = ["anna", "boris", "clara", "dmitri", "elena", "felix"]
PLACES = ["Riga", "Lyon", "Quito", "Osaka", "Turin", "Accra"]
LEFT_OUT = {"3", "4"}


def passage(n: int) -> dict[str, str]:
    name, place = KINGS[n % 6], PLACES[n % 6]
    text = f"The painter {name} lived in {place} in {1500 + n}. The house stands there."
    return {"id": str(n), "title": f"{name} {n % 4}", "text": text}


def row(n: int, asked: str) -> dict[str, object]:
    fields: dict[str, object] = {**passage(n), "question": asked, "answers": [PLACES[n % 6]]}
    return {**fields, "rank": n % 7, "q_overlap": 0.8, "neg_pids": [str(n + 1), "3", str(n + 6)]}


def write(path: Path, rows: list[dict[str, object]] | list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "corpus.jsonl", [passage(n) for n in range(60)])
    write(tmp_path / "rows.jsonl", [row(n, f"where did {KINGS[n % 6]} live") for n in range(50)])
    write(tmp_path / "silver.jsonl", [row(n, f"home of {KINGS[n % 6]} {n}") for n in range(40)])
    (tmp_path / "leave-out.txt").write_text("\n".join(sorted(LEFT_OUT)), encoding="utf-8")
    return tmp_path


def settings(folder: Path, **changes: object) -> RerankerTraining:
    hub = {"name": "none"}
    fields: dict[str, object] = {
        "kind": "pocket-reranker",
        "name": "tiny",
        "seed": 5,
        "data": {
            "path": str(folder),
            "passages": {"files": ["corpus.jsonl"], "exclude": "leave-out.txt", "hub": hub},
            "questions": [
                {"name": "rows", "file": "rows.jsonl"},
                {"name": "silver", "file": "silver.jsonl", "max_rank": 5, "min_overlap": 0.6},
            ],
            "validation_titles": 2,
            "validation_source": "silver",
            "validation_rows": 8,
        },
        "optimiser": {"learning_rate": 3e-3, "warmup_steps": 2},
        "examples": 48,
        "batch_size": 4,
        "negatives": 3,
        "max_length": 48,
        "validate_every": 6,
        "checkpoint_every": 5,
    }
    return RerankerTraining.model_validate({**fields, **changes})


def classifier(folder: Path, *, seed: int = 0) -> nn.Module:
    made = save_bert(folder / f"bert-{seed}", kind="BertForSequenceClassification", seed=seed)
    model: nn.Module = BertForSequenceClassification.from_pretrained(made)
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)  # type: ignore[union-attr]
    return model


def task(settings: RerankerTraining, folder: Path, *, seed: int = 0) -> RerankerTask:
    sources, validation = load_ranking_data(settings)
    return RerankerTask(
        classifier(folder, seed=seed), wordpiece(), settings,
        sources=sources, validation=validation, bf16=False,
    )  # fmt: skip


def train(task: RerankerTask, settings: RerankerTraining, folder: Path):
    return run_loop(
        task, settings.optimiser, checkpoints=folder, identity="one", batch_size=4,
        validate_every=settings.validate_every, checkpoint_every=settings.checkpoint_every,
        report=lambda progress: None,
    )  # fmt: skip


def answer_of(question: str) -> str:
    return next(PLACES[n] for n, king in enumerate(KINGS) if king in question)


def test_positives_answer_and_negatives_neither_answer_nor_are_left_out(folder: Path):
    sources, _ = load_ranking_data(settings(folder))
    rows = [one for _, source in sources for one in source]
    left_out = {passage(int(n))["text"] for n in LEFT_OUT}
    assert len(rows) > 20
    for one in rows:
        answer = normalize_answer(answer_of(one.question))
        assert answer in normalize_answer(one.positive).split()
        assert one.negatives
        for negative in one.negatives:
            assert answer not in normalize_answer(negative).split()
            assert not any(negative.endswith(text) for text in left_out)


def test_hard_negatives_of_the_files_come_before_mined_ones(folder: Path):
    sources, _ = load_ranking_data(settings(folder))
    for one in sources[0][1]:
        n = int(one.positive.split(" in ")[2].split(".")[0]) - 1500
        if str(n + 1) not in LEFT_OUT:
            assert one.negatives[0].endswith(passage(n + 1)["text"])


def test_held_out_questions_are_in_no_source_and_found_too_deep_rows_neither(folder: Path):
    sources, lists = load_ranking_data(settings(folder))
    held = {one.question for one in lists}
    asked = {one.question for _, source in sources for one in source}
    assert len(held) == 8
    assert held.isdisjoint(asked)
    assert all(int(q.split()[-1]) % 7 < 5 for q in held | asked if q.startswith("home"))
    for one in lists:
        answer = answer_of(one.question)
        assert one.answering == tuple(answer in text for text in one.passages)


def test_a_list_of_few_negatives_counts_no_copies(folder: Path, tmp_path: Path):
    recipe = settings(folder, batch_size=1)
    source = [RankingRow("who wrote hamlet", "shakespeare", ("king of france",))]
    made = RerankerTask(
        classifier(tmp_path), wordpiece(), recipe,
        sources=[(1.0, source)], validation=[], bf16=False,
    )  # fmt: skip
    batch = made.batch(0)
    assert batch.real.tolist() == [[True, True, False, False]]
    with torch.inference_mode():
        scores = [
            float(
                made.model(
                    input_ids=torch.tensor([encoding.ids]),
                    token_type_ids=torch.tensor([encoding.type_ids]),
                ).logits
            )
            for encoding in wordpiece().encode_batch(
                [("who wrote hamlet", "shakespeare"), ("who wrote hamlet", "king of france")]
            )
        ]
        loss = float(made.loss(batch))
    wanted = math.log(1 + math.exp(scores[1] - scores[0]))
    assert loss == pytest.approx(wanted, abs=1e-5)


def test_batches_are_functions_of_the_step(folder: Path):
    recipe = settings(folder)
    first, second = task(recipe, folder), task(recipe, folder)
    later = second.batch(7)
    assert torch.equal(first.batch(3).input_ids, second.batch(3).input_ids)
    assert torch.equal(first.batch(7).input_ids, later.input_ids)
    assert not torch.equal(later.input_ids[:1, :20], first.batch(3).input_ids[:1, :20])


def test_recall_counts_the_first_passages_by_score(folder: Path, tmp_path: Path):
    lists = [
        ValidationList("q", ("a b c d", "a", "a b", "a b c"), (False, False, False, True)),
        ValidationList("q", ("a", "a b", "a b c", "a b c d"), (True, False, False, False)),
        ValidationList("q", ("a", "b"), (False, False)),
        ValidationList("q", (), ()),
    ]
    made = RerankerTask(
        classifier(tmp_path), wordpiece(), settings(folder),
        sources=[], validation=lists, bf16=False,
    )  # fmt: skip

    class Longest(nn.Module):
        """Scores a pair by its length."""

        def forward(self, attention_mask: torch.Tensor, **rest: torch.Tensor):
            return type("Output", (), {"logits": attention_mask.sum(dim=1, keepdim=True)})()

    made.model = Longest()
    assert made.validate() == {
        "bm25@1": 25.0, "bm25@3": 25.0, "bm25@5": 50.0,
        "reranked@1": 0.0, "reranked@3": 25.0, "reranked@5": 50.0, "reachable": 50.0,
    }  # fmt: skip


def test_training_ranks_better_and_leaves_word_embeddings(folder: Path, tmp_path: Path):
    recipe = settings(folder, examples=240, batch_size=8)
    wrong = ("the king of france", "a river in germany", "the war in london")
    source = [
        RankingRow(f"who wrote the {what}", f"shakespeare wrote {what}", wrong)
        for what in ("play", "text", "title", "passage")
    ]
    validation = [
        ValidationList("who wrote hamlet", (*wrong, "shakespeare"), (False,) * 3 + (True,))
    ]
    trained = RerankerTask(
        classifier(tmp_path), wordpiece(), recipe,
        sources=[(1.0, source)], validation=validation, bf16=False,
    )  # fmt: skip
    words = trained.model.bert.embeddings.word_embeddings.weight.clone()
    with torch.inference_mode():
        first = float(trained.loss(trained.batch(0)))
    train(trained, recipe, tmp_path / "run")
    with torch.inference_mode():
        last = float(trained.loss(trained.batch(0)))
    assert last < first - 0.5
    assert trained.validate()["reranked@1"] == 100
    assert torch.equal(words, trained.model.bert.embeddings.word_embeddings.weight)


def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(folder, tmp_path):
    recipe = settings(folder)
    whole = task(recipe, folder)
    train(whole, recipe, tmp_path / "whole")

    class Killed(Exception):
        pass

    broken = task(recipe, folder)
    make_batch = broken.batch

    def dies(step: int):
        if step == 8:
            raise Killed
        return make_batch(step)

    broken.batch = dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        train(broken, recipe, tmp_path / "broken")
    resumed = task(recipe, folder, seed=7)  # other weights: the checkpoint must bring them back
    ours = whole.model.bert.embeddings.word_embeddings
    resumed.model.bert.embeddings.word_embeddings.load_state_dict(ours.state_dict())
    train(resumed, recipe, tmp_path / "broken")
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_unknown_fields_and_empty_lists_are_refused(folder: Path):
    with pytest.raises(ValidationError, match="negative_count"):
        settings(folder, negative_count=3)
    with pytest.raises(ValidationError, match="negatives"):
        settings(folder, negatives=0)


def test_the_reranker_is_validated_on_rows_that_the_reader_holds_out(real_data: Path):
    place = [f"data.path={real_data}"]
    where = "pipelines/train"
    ranking = load_recipe(
        find_recipe("pocket-reranker", where), RerankerTraining, folder=where, overrides=place
    )
    reading = load_recipe(
        find_recipe("pocket-reader", where), ReaderTraining, folder=where, overrides=place
    )
    held = [
        {
            str(one["id"])
            for one in hold_out(
                {source.name: list(read_rows(source, real_data)) for source in sources},
                titles_of=sources[0].name,
                n_titles=data.validation_titles,
                rows_from=data.validation_source,
                n_rows=data.validation_rows,
                seed=seed,
            )[data.validation_source]
        }
        for data, sources, seed in (
            (ranking.data, ranking.data.questions, ranking.data.validation_seed),
            (reading.data, reading.data.reading, reading.seed),
        )
    ]
    assert len(held[0]) == 500
    assert held[0] == held[1]


def test_no_recipe_trains_on_what_is_kept_for_evaluation():
    where = "pipelines/train"
    recipe = load_recipe(find_recipe("pocket-reranker", where), RerankerTraining, folder=where)
    kept = ("nq_dev", "qed", "retrieved_wiki18", "triviaqa_test", "hotpot_dev", "nq_gold")
    files = [*recipe.data.passages.files, *(s.file for s in recipe.data.questions)]
    assert not [file for file in files if any(name in file for name in kept)]
    assert recipe.data.passages.exclude is not None
