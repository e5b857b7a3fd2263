"""A prompt study trains what is missing, measures every method, and goes on after a stop."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rag_frozen.build import build_index
from rag_frozen.evaluation.statistics import sign_flip_p
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.studies import cells, evaluations, methods
from rag_frozen.studies.confidence import confidence_row
from rag_frozen.studies.evaluations import Evaluation, open_questions
from rag_frozen.studies.methods import with_shots
from rag_frozen.studies.prompt_study import run_study
from rag_frozen.studies.settings import (
    PromptStudy,
    QuestionsEvaluation,
    RowsEvaluation,
    TrainedMethod,
    WrittenMethod,
)
from rag_frozen.studies.table import Measured, make_table
from rag_frozen.training.prompt_data import PromptRow
from rag_frozen.types import Context, Question
from tests.tiny import save_reader_and_rows

SOURCE = {
    "kind": "text",
    "name": "colours",
    "file": "labels.jsonl",
    "input": "text: {text}\n",
    "target": "label",
}
METHODS = ("plain", "most-frequent", "written", "few-shot", "static", "ensemble", "full")
ADAM = {"learning_rate": 1e-2, "warmup_steps": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    save_reader_and_rows(folder)
    (folder / "text.txt").write_text("the king of france is long " * 4 + "\nshort line\n")
    return folder


def recipe(home: Path, **changes: object) -> PromptStudy:
    reader = {
        "kind": "prefix-lm",
        "model": str(home / "reader"),
        "encoder": str(home / "encoder"),
        "decoding": {"max_new_tokens": 4},
    }
    values: dict[str, Any] = {
        "kind": "prompt-study",
        "name": "tiny",
        "data_path": str(home),
        "seeds": [0, 1],
        "template": {
            "with_passages": "question: {question}\n{passages}",
            "passage": "passage: {title}. {text}\n",
            "closed_book": "question: {question}\n",
        },
        "readers": {"tiny": reader},
        "tasks": [
            {
                "name": "colours",
                "data": {"sources": [SOURCE], "validation_rows": 8},
                "steps": 2,
                "batch_size": 4,
                "validate_every": 2,
                "evaluations": [
                    {"kind": "rows", "name": "all", "source": SOURCE, "limit": 12},
                    {
                        "kind": "perplexity",
                        "name": "text",
                        "file": "text.txt",
                        "source_words": 6,
                        "target_words": 5,
                    },
                ],
            }
        ],
        "methods": [
            {"kind": "plain", "name": "plain"},
            {"kind": "most-frequent", "name": "most-frequent"},
            {"kind": "written", "name": "written", "texts": ["red blue", "one two"]},
            {"kind": "few-shot", "name": "few-shot", "shots": 2},
            {
                "kind": "trained",
                "name": "static",
                "head": {"kind": "static", "length": 3},
                "optimiser": ADAM,
            },
            {"kind": "ensemble", "name": "ensemble", "of": "static"},
            {
                "kind": "trained",
                "name": "full",
                "head": {"kind": "full"},
                "seeds": [0],
                "optimiser": ADAM,
            },
        ],
        "comparisons": [{"ours": "static", "theirs": "plain"}],
        "lower": "plain",
        "upper": "full",
    }
    return PromptStudy.model_validate({**values, **changes})


def test_a_study_measures_every_method_and_a_second_run_trains_and_reads_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    done = run_study(recipe(home), root=home / "root", tell=told.append)
    assert sum("training static" in line for line in told) == 2
    assert sum("training full" in line for line in told) == 1
    rows = {(row.evaluation, row.method): row for row in done.table.methods}
    assert set(rows) == {
        *(("all", m) for m in METHODS),
        *(("text", m) for m in ("plain", "static", "full")),
    }
    assert rows["all", "static"].seeds == 2
    assert rows["all", "static"].questions == 12
    assert rows["all", "static"].trained_parameters == 3 * 32
    assert rows["all", "plain"].trained_parameters == 0
    assert rows["all", "full"].trained_share > 50
    plain, static, full = (rows["text", m].perplexity for m in ("plain", "static", "full"))
    assert plain is not None
    assert plain > 1
    assert len({plain, static, full}) == 3
    assert "validation exact match" in rows["all", "written"].note
    always = rows["all", "most-frequent"]
    measured_on = evaluations.open_rows(recipe(home).tasks[0].evaluations[0], recipe(home))
    share = sum(repr(gold) == always.note for (gold,) in measured_on.golds) / 12
    assert share > 0
    assert always.exact_match == pytest.approx(100 * share)
    assert always.milliseconds is None
    [compared] = done.table.compared
    assert (compared.ours, compared.theirs) == ("static", "plain")
    assert 0 < compared.p <= 1
    text = (done.folder / "table.md").read_text()
    assert "| static - plain |" in text
    assert "perplexity" in text

    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("a finished cell was read again")

    for name in ("answer", "perplexity"):
        monkeypatch.setattr(cells, name, nothing)
    stored = (done.folder / "table.json").read_bytes()
    again = run_study(recipe(home), root=home / "root")
    assert again.table == done.table
    assert (again.folder / "table.json").read_bytes() == stored


def test_questions_are_retrieved_and_packed_once_for_a_reader_and_kept(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    texts = ["hamlet was written by shakespeare", "radium was discovered by curie", "the nile"]
    rows = [{"id": str(n), "title": "t", "text": text} for n, text in enumerate(texts)]
    asked = [
        {"id": "a", "question": "who wrote hamlet", "answers": ["shakespeare"]},
        {"id": "b", "question": "who discovered radium", "answers": ["curie"]},
        {"id": "c", "question": "what is long", "answers": ["the nile"]},
    ]
    for name, lines in (("rows", rows), ("asked", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    index = {"kind": "index", "name": "few", "bm25": {"kind": "tantivy"}}
    index["corpus"] = {"kind": "files", "path": str(tmp_path / "rows.jsonl")}
    study = recipe(home, data_path=str(tmp_path))
    [reader] = study.readers.values()
    pipeline = {
        "kind": "pipeline",
        "name": "few",
        "index": str(tmp_path / "index.yaml"),
        "retrieval": {"kind": "bm25", "k": 3},
        "packing": {"template": study.template.model_dump(), "max_passages": 2},
        "reader": {"kind": "prefix-lm"},
    }
    evaluation = {"kind": "eval", "name": "few", "pipeline": str(tmp_path / "pipeline.yaml")}
    evaluation |= {"data": {"kind": "file"}, "metrics": {"exact_match": {"expected": None}}}
    for name, values in (("index", index), ("pipeline", pipeline), ("evaluation", evaluation)):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(values))
    build_index(tmp_path / "index.yaml", root=tmp_path / "root")

    def opened(**changes: object) -> Evaluation:
        values = {"kind": "questions", "name": "few", "recipe": str(tmp_path / "evaluation.yaml")}
        values |= {"file": "asked.jsonl", "limit": 2}
        return open_questions(
            QuestionsEvaluation.model_validate({**values, **changes}),
            study,
            reader,
            reader_digest="d",
            cache=tmp_path / "contexts",
            root=tmp_path / "root",
        )

    first = opened(pipeline_overrides=["packing.max_passages=1"])
    assert first.golds == (("shakespeare",), ("curie",))
    made = first.contexts()
    assert [one.question.id for one in made] == ["a", "b"]
    assert texts[0] in made[0].prompt
    assert [one.prompt.count("passage:") for one in made] == [1, 1]
    assert opened().identity != first.identity
    again = opened(pipeline_overrides=["packing.max_passages=1"])
    assert again.identity == first.identity

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("retrieved again")

    monkeypatch.setattr(evaluations, "load_pipeline", refused)
    assert again.contexts() == made


class Killed(Exception):
    pass


def test_a_killed_study_has_a_table_of_what_is_finished_and_goes_on_to_the_same(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = run_study(recipe(home), root=tmp_path / "whole").table
    kept = cells.answer
    calls: list[int] = []

    def dies(*arguments: Any) -> Any:  # Any: whatever answer takes and gives
        calls.append(1)
        if len(calls) == 8:  # plain, two texts, written, few-shot, static 0, full 0, static 1
            raise Killed
        return kept(*arguments)

    monkeypatch.setattr(cells, "answer", dies)
    with pytest.raises(Killed):
        run_study(recipe(home), root=tmp_path / "killed")
    left = json.loads((tmp_path / "killed" / "studies" / "tiny" / "table.json").read_text())
    seeds = {row["method"]: row["seeds"] for row in left["methods"] if row["evaluation"] == "all"}
    assert seeds == {
        "plain": 1,
        "most-frequent": 1,
        "written": 1,
        "few-shot": 1,
        "static": 1,
        "full": 1,
    }
    monkeypatch.undo()
    told: list[str] = []
    resumed = run_study(recipe(home), root=tmp_path / "killed", tell=told.append).table
    assert not any("training" in line for line in told)
    assert len(told) == 2  # the cell that died, and its perplexity
    for ours, theirs in zip(resumed.methods, whole.methods, strict=True):
        assert (ours.method, ours.exact_match, ours.f1, ours.perplexity) == (
            theirs.method, theirs.exact_match, theirs.f1, theirs.perplexity,
        )  # fmt: skip
    assert resumed.compared == whole.compared


def searching(home: Path) -> PromptStudy:
    """A task that tries two learning rates, and one that takes over the one that was chosen, with
    seeds of its own."""
    plain = recipe(home)
    [task] = plain.tasks
    rows = [one for one in task.evaluations if one.kind == "rows"]
    first = task.model_copy(update={"evaluations": tuple(rows), "methods": ("static",)})
    second = first.model_dump(mode="json") | {
        "name": "again",
        "rates_from": {"task": "colours"},
        "seeds": [1, 2],
        "methods": ["plain", "written", "static"],
        "texts": ["the only text"],
        "readers": ["tiny"],
    }
    values = plain.model_dump(mode="json")
    values["tasks"] = [first.model_dump(mode="json"), second]
    values["name"] = "searching"
    values["methods"][4]["learning_rates"] = [1e-2, 2e-2]
    return PromptStudy.model_validate(values)


def test_the_rate_that_answers_most_validation_rows_is_used_for_every_seed_and_taken_over(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from rag_frozen.studies import bench

    trained: list[tuple[str, int, float]] = []
    kept = bench.train_prompt

    def scores(recipe: Any, *arguments: Any, **more: Any) -> Any:  # Any: as train_prompt
        done = kept(recipe, *arguments, **more)
        rate = recipe.optimiser.learning_rate
        trained.append((recipe.name.split("-")[-2], recipe.seed, rate))
        return replace(done, metrics={**done.metrics, "exact_match": 1e3 * rate})

    monkeypatch.setattr(bench, "train_prompt", scores)
    table = run_study(searching(home), root=tmp_path).table
    assert trained == [
        ("colours", 0, 1e-2),
        ("colours", 0, 2e-2),
        ("colours", 1, 2e-2),
        ("again", 1, 2e-2),
        ("again", 2, 2e-2),
    ]
    notes = {(row.task, row.method): row.note for row in table.methods}
    assert notes["colours", "static"] == (
        "learning rate 0.02 (validation exact match 0.01: 10.0, 0.02: 20.0)"
    )
    assert notes["again", "static"] == "learning rate as on colours"
    assert notes["again", "written"].startswith("'the only text'")
    assert set(notes) == {("colours", "static"), *(("again", m) for m in table_methods())}


def table_methods() -> tuple[str, ...]:
    return ("plain", "written", "static")


def test_all_trainings_of_a_task_share_data_steps_and_validation_rows(home: Path):
    study = recipe(home, split_seed=5)
    task, [(name, reader)] = study.tasks[0], study.readers.items()
    made = [
        methods.training_of(method, study, task, (name, reader), seed=seed)
        for method in study.methods
        if isinstance(method, TrainedMethod)
        for seed in (0, 1)
    ]
    assert len({one.data.model_dump_json() for one in made}) == 1
    assert {one.data.split_seed for one in made} == {5}
    assert {(one.steps, one.batch_size) for one in made} == {(2, 4)}
    assert len({(one.name, one.seed) for one in made}) == len(made)


class Words:
    """Counts words as tokens."""

    def encode_prompts(self, texts: list[str]) -> list[list[int]]:
        return [[0] * len(text.split()) for text in texts]


def test_shots_stand_before_the_prompt_as_many_as_fit():
    shot = PromptRow(Context(Question("s", "q"), "one two three\n", 0), "four", ("four",))
    short = Context(Question("a", "q"), "five six\n", 0)
    long = Context(Question("b", "q"), "five " * 18 + "\n", 0)
    made = with_shots(
        [short, long],
        [shot, shot],
        reader=Words(),  # type: ignore[arg-type]
        window=32,
        answer_tokens=4,
    )
    assert made[0].prompt == "one two three\nanswer: four\n" * 2 + "five six\n"
    assert made[1].prompt == long.prompt  # 18 + 4 + 8 leave room for two words, a shot has five


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": [{"kind": "plain", "name": "a"}] * 2}, "one name"),
        ({"methods": [{"kind": "ensemble", "name": "e", "of": "x"}]}, "no trained method"),
        ({"upper": "fuller"}, "no method is called"),
        ({"comparisons": [{"ours": "static", "theirs": "nothing"}]}, "no method is called"),
        ({"tasks": [{"name": "a", "methods": ["none"]}]}, "no method is called"),
        ({"tasks": [{"name": "a", "methods": ["ensemble"]}]}, "ensemble without static"),
        ({"tasks": [{"name": "a", "readers": ["large"]}]}, "names readers"),
        ({"tasks": [{"name": "a", "methods": ["plain"], "lower": "full"}]}, "none of its methods"),
        ({"tasks": [{"name": "a", "rates_from": {"task": "b"}}]}, "no task that searches"),
        ({"tasks": [{"name": "a"}, {"name": "a"}]}, "two tasks have one name"),
    ],
)
def test_a_recipe_whose_names_do_not_fit_is_refused(home: Path, changes, said):
    if "tasks" in changes:
        [task] = recipe(home).model_dump(mode="json")["tasks"]
        changes = {"tasks": [{**task, **change} for change in changes["tasks"]]}
    with pytest.raises(ValidationError, match=said):
        recipe(home, **changes)


def measured(
    method: str, seed: int | None, scores: list[float], f1: list[float] | None = None
) -> Measured:
    return Measured(
        "r", "t", "e", method, seed, tuple(scores), tuple(f1 or scores), 1.0, 0.0, 10, 1_000
    )  # fmt: skip


def test_the_table_averages_seeds_and_says_what_share_of_the_gap_is_closed(home: Path):
    study = recipe(home)
    table = make_table(
        study,
        [
            measured("plain", None, [0.0] * 10),
            measured("static", 0, [1.0] * 4 + [0.0] * 6, f1=[1.0] * 4 + [0.5] * 6),
            measured("static", 1, [1.0] * 2 + [0.0] * 8, f1=[1.0] * 4 + [0.5] * 6),
            measured("full", 0, [1.0] * 6 + [0.0] * 4),
        ],
    )
    rows = {row.method: row for row in table.methods}
    assert rows["static"].exact_match == pytest.approx(30)
    assert rows["static"].exact_match_sd == pytest.approx(14.142, abs=0.01)
    assert rows["static"].gap_closed == pytest.approx(50)
    assert rows["full"].exact_match_sd is None
    assert rows["static"].milliseconds == pytest.approx(100)
    assert table.compared[0].difference == pytest.approx(30)
    assert table.compared[0].f1_difference == pytest.approx(70)
    assert table.compared[0].f1_interval[0] > 50
    assert "| +30.0 [" in table.to_markdown()
    assert "| +70.0 [" in table.to_markdown()
    [task] = study.tasks
    other = study.model_copy(
        update={"tasks": (task.model_copy(update={"name": "t", "lower": "written"}),)}
    )
    runs = [
        measured("plain", None, [0.0] * 10),
        measured("written", None, [1.0] * 2 + [0.0] * 8),
        measured("full", 0, [1.0] * 6 + [0.0] * 4),
    ]
    gaps = {row.method: row.gap_closed for row in make_table(other, runs).methods}
    assert gaps == pytest.approx({"plain": -50.0, "written": 0.0, "full": 100.0})
    uncertain = [1.0] + [0.0] * 9
    table = make_table(study, [measured("plain", None, [0.0] * 10), measured("full", 0, uncertain)])
    assert [row.gap_closed for row in table.methods] == [None, None]


def test_sign_flips_see_a_difference_and_none():
    assert sign_flip_p([1.0] * 12, [0.0] * 12) < 0.01
    assert sign_flip_p([1.0, 0.0] * 6, [0.0, 1.0] * 6) > 0.5


def test_confidences_are_judged_on_the_answers_that_no_temperature_was_fitted_on():
    chance = random.Random(1)
    right = [float(chance.random() < 0.5) for _ in range(400)]
    # nine times in ten it knows which are right, and it is far too sure of the others
    sure = [0.99 if one == (chance.random() < 0.9) else 0.97 for one in right]
    place = ("r", "t", "e", "m")
    row = confidence_row(place, [(sure, right)])
    assert row is not None
    share = sum(right) / len(right)
    assert row.error == pytest.approx(100 * (0.98 - share), abs=6)
    assert row.error_calibrated < 10
    assert row.risk_at[0] == pytest.approx(10, abs=6)
    assert row.risk_at[-1] == pytest.approx(100 * (1 - share))
    assert confidence_row(place, [(sure, [1.0] * 400)]) is None
    assert confidence_row(place, [(sure[:9], right[:9])]) is None


@pytest.mark.parametrize("name", ["prompt-table", "prompt-table-cpu"])
def test_every_shipped_study_tries_ten_written_prompts_and_holds_out_what_it_measures(name: str):
    study = load_recipe(name, PromptStudy, folder="eval")
    [written] = [one for one in study.methods if isinstance(one, WrittenMethod)]
    for task in study.tasks:
        if written in study.methods_of(task):
            assert len(set(task.texts or written.texts)) >= 10
        trained = {(one.file, one.part) for one in task.data.sources}
        for one in task.evaluations:
            if isinstance(one, RowsEvaluation) and one.source.part is None:
                assert one.source.file not in {file for file, _ in trained}
            elif isinstance(one, RowsEvaluation):
                assert (one.source.file, one.source.part) not in trained
                assert (one.source.file, None) not in trained


def test_the_study_for_one_core_differs_in_sizes_and_in_a_longer_reading_alone():
    def compared(name: str) -> list[object]:
        study = load_recipe(name, PromptStudy, folder="eval")
        tasks = [task for task in study.tasks if task.name != "reading-longer"]
        sources = [[one.model_dump() for one in task.data.sources] for task in tasks]
        return [
            [(task.name, task.readers, task.methods, task.texts) for task in tasks],
            [[one.name for one in task.evaluations] for task in tasks],
            [(one.kind, one.name) for one in study.methods],
            [one.head for one in study.methods if isinstance(one, TrainedMethod)],
            (study.readers, study.comparisons, study.seeds, study.split_seed, study.template),
            sources,
        ]

    assert compared("prompt-table-cpu") == compared("prompt-table")


def test_the_shipped_study_loads_and_names_its_files_below_one_folder():
    study = load_recipe("prompt-table", PromptStudy, folder="eval")
    files = [source.file for task in study.tasks for source in task.data.sources]
    assert files
    assert not any(Path(file).is_absolute() for file in files)
    assert json.loads(study.model_dump_json())["seeds"] == [0, 1, 2]
