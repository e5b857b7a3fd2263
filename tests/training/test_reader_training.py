"""Training the pocket reader: a tiny run, a kill, and the same weights to the bit."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from rag_frozen.artifacts import load_manifest
from rag_frozen.errors import ArtifactMismatchError, ModelError, RecipeError
from rag_frozen.models.digest import folder_digest
from rag_frozen.packing.template import PromptTemplate
from rag_frozen.reader.prefix_lm import PrefixLM, PrefixLMConfig
from rag_frozen.reader.prefix_lm_weights import begin_from_minilm, load_prefix_lm, save_trained
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.training.job import run_job
from rag_frozen.training.loop import run_loop
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.reader_job import reader_job
from rag_frozen.training.reader_task import ReaderTask, divergence
from rag_frozen.training.reading_data import Mixture, ReadingData, ReadingRow
from rag_frozen.training.settings import Distillation, ReaderTraining
from rag_frozen.training.sources import load_reading_data
from rag_frozen.types import Passage
from tests.tiny import save_bert, wordpiece

TEMPLATE = PromptTemplate(
    with_passages="question: {question}\n{passages}",
    passage="passage: {title}. {text}\n",
    closed_book="question: {question}\n",
)
NAMES = ["anna", "boris", "clara", "dmitri", "elena", "felix"]
PLACES = ["riga", "lyon", "quito", "osaka", "turin", "accra"]


def row(n: int) -> dict[str, object]:
    name, place = NAMES[n % 6].title(), PLACES[(n // 6 + n) % 6].title()
    text = f"The painter {name} lived in {place} for many years. The house of {name} stands there."
    return {
        "id": str(n), "question": f"where did {name.lower()} live", "answers": [place],
        "title": f"{name} {n % 4}", "text": text, "rank": n % 7, "q_overlap": 0.8,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps(row(n)) + "\n" for n in range(60)), encoding="utf-8"
    )
    (tmp_path / "silver.jsonl").write_text(
        "".join(
            json.dumps({**row(n), "question": f"{n} where was the home"}) + "\n" for n in range(40)
        ),
        encoding="utf-8",
    )
    (tmp_path / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"id": str(n), "title": row(n)["title"], "text": row(n)["text"]}) + "\n"
            for n in range(60)
        ),
        encoding="utf-8",
    )
    (tmp_path / "leave-out.txt").write_text("3\n4\n", encoding="utf-8")
    return tmp_path


def settings(folder: Path, **changes: object) -> ReaderTraining:
    hub = {"name": "none"}
    fields: dict[str, object] = {
        "kind": "pocket-reader",
        "name": "tiny",
        "seed": 5,
        "template": TEMPLATE.model_dump(),
        "data": {
            "path": str(folder),
            "passages": {"files": ["corpus.jsonl"], "exclude": "leave-out.txt", "hub": hub},
            "reading": [
                {"name": "rows", "file": "rows.jsonl", "hub": hub},
                {"name": "silver", "file": "silver.jsonl", "hub": hub, "max_rank": 5},
            ],
            "validation_titles": 3,
            "validation_rows": 10,
            "validation_source": "silver",
        },
        "optimiser": {"learning_rate": 1e-3, "warmup_steps": 2},
        "examples": 48,
        "batch_size": 4,
        "validate_every": 6,
        "checkpoint_every": 5,
        "validation_limit": 4,
    }
    return ReaderTraining.model_validate({**fields, **changes})


def tokenizer() -> Tokenizer:
    words = sorted({w for n in range(60) for w in str(row(n)).lower().replace("'", " ").split()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,:?"]
    pieces += [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"] + [w for w in words if w.isalpha()]
    made = Tokenizer(
        models.WordPiece({p: i for i, p in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def task(settings: ReaderTraining, *, seed: int = 0, share: Share = ALONE) -> ReaderTask:
    data, validation = load_reading_data(settings)
    made = tokenizer()
    torch.manual_seed(seed)
    model = PrefixLM(
        PrefixLMConfig(
            vocab_size=made.get_vocab_size(), hidden_size=32, num_hidden_layers=2,
            num_attention_heads=4, intermediate_size=48, max_position_embeddings=128,
        )
    )  # fmt: skip
    return ReaderTask(
        model, made, settings, data=data, validation=validation, bf16=False, share=share
    )


def train(task: ReaderTask, settings: ReaderTraining, folder: Path, identity: str = "one"):
    return run_loop(
        task, settings.optimiser, checkpoints=folder, identity=identity, batch_size=4,
        validate_every=settings.validate_every, checkpoint_every=settings.checkpoint_every,
        report=lambda progress: None,
    )  # fmt: skip


def test_the_shares_of_a_batch_have_its_loss_and_gradients_in_the_mean(folder: Path):
    recipe = settings(folder, mixture={"language_model": 0.4})
    whole, *shares = [task(recipe, share=share) for share in (ALONE, Share(0, 2), Share(1, 2))]
    tokens = {n: [len(one.batch(n).labels) for one in (whole, *shares)] for n in range(12)}
    # where both have as many tokens, the mean of means would do
    step = next(n for n, (_, first, second) in tokens.items() if first != second)
    assert tokens[step][0] == tokens[step][1] + tokens[step][2]

    def found(task: ReaderTask) -> tuple[torch.Tensor, torch.Tensor]:
        loss = task.loss(task.batch(step))
        loss.backward()
        gradients = [p.grad.flatten() for p in task.model.parameters() if p.grad is not None]
        return loss.detach(), torch.cat(gradients)

    for first, second, both in zip(*map(found, (*shares, whole)), strict=True):
        torch.testing.assert_close((first + second) / 2, both, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(folder, tmp_path, dropout):
    recipe = settings(folder, dropout=dropout)
    whole = task(recipe)
    result = train(whole, recipe, tmp_path / "whole")

    class Killed(Exception):
        pass

    broken = task(recipe)
    make_batch = broken.batch

    def dies(step: int):
        if step == 8:
            raise Killed
        return make_batch(step)

    broken.batch = dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        train(broken, recipe, tmp_path / "broken")
    resumed = task(recipe, seed=77)  # other weights at first: the checkpoint must bring them back
    resumed.model.word_embeddings.load_state_dict(whole.model.word_embeddings.state_dict())
    torch.manual_seed(999)
    again = train(resumed, recipe, tmp_path / "broken")
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    trained = {name for name, p in whole.model.named_parameters() if p.requires_grad}
    assert len(trained) > 20
    assert all(torch.equal(ours[name], theirs[name]) for name in trained)
    assert [m["step"] for m in again.metrics] == [m["step"] for m in result.metrics] == [6, 12]
    assert result.metrics[-1]["rows.exact_match"] == again.metrics[-1]["rows.exact_match"]


def test_dropout_acts_while_training_alone_and_as_the_step_and_the_process_say(folder):
    plain, dropped = (task(settings(folder, dropout=share)) for share in (0.0, 0.3))
    batches = [dropped.batch(step) for step in (0, 1)]
    assert batches[0].seed != batches[1].seed
    other = task(settings(folder, dropout=0.3), share=Share(1, 2))
    assert (
        other.batch(0).seed != task(settings(folder, dropout=0.3), share=Share(0, 2)).batch(0).seed
    )
    with torch.no_grad():
        losses = [float(dropped.loss(batches[0])) for _ in range(2)]
        assert losses[0] == losses[1] != float(plain.loss(batches[0]))
        for one in (plain, dropped):
            one.model.eval()
        assert float(plain.loss(batches[0])) == float(dropped.loss(batches[0])) not in losses


def test_validation_may_ask_the_reader_to_say_something(folder):
    def answers(least: int) -> list[str]:
        made = task(settings(folder, validation_min_new_tokens=least))
        with torch.no_grad():  # a reader that would rather end at once
            made.model.head_bias[3] = 100.0
        return made._answers(["question: where did anna go\n"] * 2)

    assert answers(0) == ["", ""]
    assert all(answers(1))


def test_word_embeddings_stay_and_the_rest_learns(folder, tmp_path):
    recipe = settings(folder, examples=160, batch_size=8)
    trained = task(recipe)
    words = trained.model.word_embeddings.weight.clone()
    result = train(trained, recipe, tmp_path / "run")
    assert torch.equal(words, trained.model.word_embeddings.weight)
    assert result.losses[-1]["loss"] < result.losses[0]["loss"] or len(result.losses) == 1
    with torch.no_grad():
        first = float(task(recipe).loss(trained.batch(0)))
        last = float(trained.loss(trained.batch(0)))
    assert last < first - 0.3


def test_a_checkpoint_of_other_data_is_refused(folder, tmp_path):
    recipe = settings(folder)
    train(task(recipe), recipe, tmp_path / "run", identity="one")
    with pytest.raises(ArtifactMismatchError, match="another recipe or other data"):
        train(task(recipe), recipe, tmp_path / "run", identity="two")


def test_validation_titles_and_rows_are_held_out_of_training(folder):
    data, validation = load_reading_data(settings(folder))
    titles = {row.passage.title for row in data.reading[0][1]}
    assert len(validation["silver"]) == 10
    assert not any(
        f"passage: {title}. " in v.source for v in validation["rows"] for title in titles
    )
    questions = {row.question for row in data.reading[1][1]}
    assert not any(v.source.split("\n")[0][10:] in questions for v in validation["silver"])
    assert {"3", "4"}.isdisjoint(p.id for p in data.passages)


def test_rows_found_too_deep_are_left_out(folder):
    data, validation = load_reading_data(settings(folder))
    assert len(data.reading[1][1]) + len(validation["silver"]) == sum(n % 7 < 5 for n in range(40))


def reading_data(**mixture: float) -> ReadingData:
    passages = [Passage(str(n), str(row(n)["title"]), str(row(n)["text"])) for n in range(40)]
    rows = [
        ReadingRow(str(row(n)["question"]), str(row(n)["answers"][0]), passages[n])  # type: ignore[index]
        for n in range(40)
    ]
    return ReadingData(
        passages, [(1.0, rows)], [], [("who", "anna")], TEMPLATE, replace(Mixture(), **mixture), 3
    )


def test_an_example_is_a_function_of_seed_and_number():
    data = reading_data()
    order = list(range(200))
    random.Random(0).shuffle(order)
    shuffled = {n: data.example(n, 200) for n in order}
    assert [shuffled[n] for n in range(200)] == [reading_data().example(n, 200) for n in range(200)]


def test_cloze_gives_way_to_reading_and_single_passages_to_several():
    data = reading_data(language_model=0.0, closed_book=0.0, yes_no=0.0)
    early = [data.example(n, 4_000) for n in range(400)]
    late = [data.example(n, 4_000) for n in range(3_600, 4_000)]
    asked = "question: where did"
    assert sum(e.source.startswith(asked) for e in early) < 120
    assert sum(e.source.startswith(asked) for e in late) > 280
    assert all(e.source.count("passage:") == 1 for e in early)
    assert sum(e.source.count("passage:") > 1 for e in late) > 80


def test_some_questions_have_no_answer_in_their_passages():
    plain = {"language_model": 0.0, "closed_book": 0.0, "yes_no": 0.0}
    plain |= {"several": 1.0, "several_from": 0.0}
    data = reading_data(**plain, no_answer=0.5)
    late = [data.example(n, 2_000) for n in range(1_200, 2_000)]
    empty = [e for e in late if e.target == ""]
    assert 200 < len(empty) < 600
    assert all("passage:" in e.source for e in empty)
    without = reading_data(**plain)
    assert all(without.example(n, 2_000).target for n in range(1_200, 2_000))


def test_a_passage_alone_may_hold_no_answer_either():
    plain = {"language_model": 0.0, "closed_book": 0.0, "yes_no": 0.0, "several": 0.0}
    plain |= {"cloze_start": 0.0, "cloze_end": 0.0, "crop": 0.0}
    made = [reading_data(**plain, no_answer_alone=1.0).example(n, 90) for n in range(90)]
    answered = [reading_data(**plain).example(n, 90) for n in range(90)]
    assert all(e.source.count("passage:") == 1 for e in made)
    assert {e.target for e in made} == {""}
    for silent, spoken in zip(made, answered, strict=True):  # the same draws before the passage
        assert spoken.target in spoken.source
        assert spoken.target not in silent.source
    some = reading_data(**plain, no_answer_alone=0.3)
    assert 60 < sum(not some.example(n, 400).target for n in range(400)) < 180


def test_a_language_model_sees_no_question_answer_label():
    shares = load_recipe("pocket-lm", ReaderTraining, folder="pipelines/train").mixture
    data = reading_data(**shares.model_dump())
    asked = {f"question: {row(n)['question']}\n" for n in range(40)}
    made = {data.example(n, 500).source.split("passage:")[0] for n in range(500)}
    assert not asked & made
    continued = sum("question:" not in data.example(n, 500).source for n in range(500))
    assert 60 < continued < 140


def test_a_reader_begins_from_a_language_model_that_was_trained_before(folder, tmp_path):
    encoder = save_bert(tmp_path / "encoder")
    sizes = PrefixLMConfig(wordpiece().get_vocab_size(), 32, 2, 4, 48, 128)
    before = begin_from_minilm(encoder, sizes)
    with torch.no_grad():
        before.head.bias.fill_(0.25)
    save_trained(before, tmp_path / "lm", int8=False)
    changes = {"encoder": str(encoder), "start_from": str(tmp_path / "lm"), "examples": 4}
    recipe = settings(folder, **changes, max_position_embeddings=128, int8=False)
    slow = recipe.model_copy(
        update={"optimiser": recipe.optimiser.model_copy(update={"learning_rate": 1e-9})}
    )
    done = run_job(reader_job(slow), tmp_path / "root", lambda progress: None)
    after = load_prefix_lm(done.folder, encoder)
    assert torch.allclose(after.head.bias, before.head.bias, atol=1e-6)
    assert "<svg" in (done.folder / "loss.svg").read_text()
    wide = slow.model_copy(update={"max_position_embeddings": 1_024})
    with pytest.raises(RecipeError, match="has 128 positions, the recipe says 1024"):
        run_job(reader_job(wide), tmp_path / "root", lambda progress: None)


def test_smaller_models_begin_from_the_first_layers_and_old_recipes_keep_their_identity(folder):
    from rag_frozen.models.source import resolve_model
    from rag_frozen.training.reader_job import _model

    minilm = resolve_model("pocket/minilm").path
    small = _model(settings(folder, layers=2), minilm)
    whole = _model(settings(folder), minilm)
    assert (len(small.layers), len(whole.layers)) == (2, 6)
    assert torch.equal(small.layers[1].qkv.weight, whole.layers[1].qkv.weight)
    later = {"layers", "distillation", "dropout", "validation_min_new_tokens"}
    assert not later & set(reader_job(settings(folder)).recipe)
    assert reader_job(settings(folder, layers=2)).recipe["layers"] == 2
    assert "substitute" not in reader_job(settings(folder)).recipe["mixture"]
    changed = settings(folder, mixture={"substitute": 0.5})
    assert reader_job(changed).recipe["mixture"]["substitute"] == 0.5
    deep = _model(settings(folder, layers=8), minilm)
    places = [0, 1, 2, 3, 4, 4, 5, 5]
    assert len(deep.layers) == len(places)
    for layer, place in zip(deep.layers, places, strict=True):
        assert torch.equal(layer.output.weight, whole.layers[place].output.weight)
    with pytest.raises(ModelError, match="6 layers can begin one of 6 to 12, not of 13"):
        _model(settings(folder, layers=13), minilm)


def test_a_start_is_deepened_and_never_made_shallower(folder, tmp_path):
    encoder = save_bert(tmp_path / "encoder")
    sizes = PrefixLMConfig(wordpiece().get_vocab_size(), 32, 2, 4, 48, 1_024)
    save_trained(begin_from_minilm(encoder, sizes), tmp_path / "lm", int8=False)
    changes = {"encoder": str(encoder), "start_from": str(tmp_path / "lm"), "examples": 4}
    with pytest.raises(RecipeError, match="has 2 layers, the recipe says 1"):
        run_job(
            reader_job(settings(folder, **changes, layers=1)), tmp_path / "root", lambda _: None
        )
    done = run_job(
        reader_job(settings(folder, **changes, layers=3)), tmp_path / "root", lambda _: None
    )
    assert len(load_prefix_lm(done.folder, encoder).layers) == 3


def test_a_start_that_held_other_rows_out_is_refused(folder, tmp_path):
    encoder = save_bert(tmp_path / "encoder")
    sizes = PrefixLMConfig(wordpiece().get_vocab_size(), 32, 2, 4, 48, 128)
    save_trained(begin_from_minilm(encoder, sizes), tmp_path / "lm", int8=False)
    short = {"encoder": str(encoder), "examples": 1, "batch_size": 1, "int8": False}
    short |= {"start_from": str(tmp_path / "lm"), "max_position_embeddings": 128}
    recipe = settings(folder, **short)  # a start without a manifest says nothing of its rows
    first = run_job(reader_job(recipe), tmp_path / "root", lambda progress: None)

    def going_on(**changes):
        data = {
            key: changes.pop(key) for key in ("split_seed", "validation_rows") if key in changes
        }
        again = recipe.model_copy(update={"start_from": str(first.folder), **changes})
        return again.model_copy(update={"data": again.data.model_copy(update=data)})

    reader_job(going_on())
    with pytest.raises(RecipeError, match=r"Hold out the same: --set data.split_seed=5$"):
        reader_job(going_on(seed=6))
    with pytest.raises(
        RecipeError, match=r"--set data.validation_rows=10 --set data.split_seed=5$"
    ):
        reader_job(going_on(split_seed=6, validation_rows=4))
    taught = Distillation(teacher=str(first.folder))
    with pytest.raises(RecipeError, match=r"--set data.split_seed=5$"):
        reader_job(going_on(start_from=None, seed=6, distillation=taught))
    other = going_on(seed=6, split_seed=5)
    reader_job(other)
    ours, theirs = (load_reading_data(one)[1] for one in (other, recipe))
    assert ours == theirs
    assert ours != load_reading_data(going_on(seed=6))[1]
    assert "split_seed" not in reader_job(recipe).recipe["data"]


def test_several_starts_are_averaged_where_they_are_of_one_size(folder, tmp_path):
    from rag_frozen.training.reader_job import _model

    encoder = save_bert(tmp_path / "encoder")
    sizes = PrefixLMConfig(wordpiece().get_vocab_size(), 32, 2, 4, 48, 128)
    for name, value in (("one", 0.5), ("two", 0.25), ("three", 0.375)):
        model = begin_from_minilm(encoder, sizes)
        with torch.no_grad():
            model.head.bias.fill_(value)
        save_trained(model, tmp_path / name, int8=False)
    all_three = [str(tmp_path / name) for name in ("one", "two", "three")]
    recipe = settings(
        folder, encoder=str(encoder), start_from=all_three, max_position_embeddings=128
    )
    made = _model(recipe, encoder)
    assert torch.allclose(made.head.bias, torch.tensor(0.375))
    assert made.layers[0].qkv.weight.requires_grad
    assert not made.word_embeddings.weight.requires_grad
    job = reader_job(recipe)
    assert [job.inputs[name] for name in ("start-1", "start-2", "start-3")] == [
        *map(folder_digest, map(Path, all_three))
    ]
    assert job.recipe["start_from"] == ["start-1", "start-2", "start-3"]
    whole = run_job(
        reader_job(recipe.model_copy(update={"examples": 0, "int8": False})),
        tmp_path / "root",
        lambda progress: None,
    )
    assert torch.allclose(load_prefix_lm(whole.folder, encoder).head.bias, torch.tensor(0.375))
    assert "rows.exact_match" in whole.metrics
    alone = run_job(
        reader_job(
            recipe.model_copy(update={"start_from": all_three[0], "examples": 1, "batch_size": 1})
        ),
        tmp_path / "root",
        lambda progress: None,
    )
    assert load_manifest(whole.folder).digests == load_manifest(alone.folder).digests
    with pytest.raises(ValidationError, match="start_from names no models to average"):
        settings(folder, examples=0, start_from=all_three[0])
    save_trained(
        begin_from_minilm(encoder, replace(sizes, num_hidden_layers=1)),
        tmp_path / "two",
        int8=False,
    )
    with pytest.raises(ModelError, match="Only models of one size have an average"):
        _model(recipe, encoder)


def test_the_divergence_is_that_of_the_softened_probabilities():
    torch.manual_seed(0)
    ours, theirs = torch.randn(5, 7), torch.randn(5, 7)
    p, q = (torch.softmax(one / 3, dim=-1) for one in (theirs, ours))
    by_hand = 9 * (p * (p / q).log()).sum(dim=-1).mean()
    assert torch.allclose(divergence(ours, theirs, temperature=3.0), by_hand, atol=1e-6)
    assert float(divergence(theirs, theirs, temperature=3.0)) == pytest.approx(0.0, abs=1e-6)


def test_a_reader_learns_from_a_teacher_that_stays_as_it_is(folder, tmp_path):
    encoder = save_bert(tmp_path / "encoder")
    sizes = PrefixLMConfig(wordpiece().get_vocab_size(), 32, 2, 4, 48, 128)
    teacher = begin_from_minilm(encoder, sizes)
    with torch.no_grad():
        teacher.head_bias.normal_(std=3.0)  # it likes some words much better than the data do
    save_trained(teacher, tmp_path / "teacher", int8=False)
    save_trained(begin_from_minilm(encoder, sizes), tmp_path / "start", int8=False)
    recipe = settings(
        folder, encoder=str(encoder), start_from=str(tmp_path / "start"), int8=False,
        max_position_embeddings=128, examples=160, batch_size=8, max_source_tokens=96,
        distillation={"teacher": str(tmp_path / "teacher"), "weight": 1.0, "temperature": 1.0},
        optimiser={"learning_rate": 1e-2, "warmup_steps": 2},
    )  # fmt: skip
    job = reader_job(recipe)
    assert job.inputs["teacher"] == folder_digest(tmp_path / "teacher")
    assert job.recipe["distillation"]["teacher"] == "teacher"
    done = run_job(job, tmp_path / "root", lambda progress: None)
    assert "teacher" in load_manifest(done.folder, kind="model").digests
    learned = load_prefix_lm(done.folder, encoder).head_bias
    begun = begin_from_minilm(encoder, sizes).head_bias
    wanted = teacher.head_bias.detach()
    seen = wanted.abs() > 2
    assert (learned - wanted)[seen].norm() < (begun - wanted)[seen].norm()
