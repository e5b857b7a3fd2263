"""Tasks in texts are read as their recipe says, and what does not fit is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from rag_frozen.errors import DataFormatError, InputError, RecipeError
from rag_frozen.evaluation.load import load_examples
from rag_frozen.evaluation.text_rows import read_text_rows
from rag_frozen.recipes.evaluation import EvalRecipe, TextRows
from rag_frozen.recipes.loading import load_recipe

FILES = {
    "task-choice": "copa",
    "task-nli": "rte_val",
    "task-paraphrase": "mrpc_train",
    "task-sentiment": "sst2_dev",
    "task-structure-to-text": "e2e_nlg_dev",
    "task-summary": "dialogsum_dev",
    "task-topic": "dbpedia14_train",
}


def write(folder: Path, *rows: object) -> Path:
    path = folder / "rows.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def settings(**changes: object) -> TextRows:
    plain = {"kind": "text", "input": "review: {text}", "target": "label"}
    return TextRows.model_validate({**plain, **changes})


def test_rows_become_questions_with_answers(tmp_path: Path):
    path = write(tmp_path, {"text": "bad", "label": 0, "id": "r1"}, {"text": "fine", "label": 1})
    labels = {"0": "negative", "1": "positive"}
    found = read_text_rows(settings(labels=labels, tags=("label",)), path)
    assert [(e.question.id, e.question.text, e.answers) for e in found.examples] == [
        ("r1", "review: bad", ("negative",)),
        ("2", "review: fine", ("positive",)),
    ]
    assert found.examples[0].tags == (("label", "0"),)


def test_a_zipped_file_is_the_same_data_and_another_prompt_is_other_data(tmp_path: Path):
    path = write(tmp_path, {"text": "a", "label": "x"})
    zipped = tmp_path / "rows.jsonl.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    plain = read_text_rows(settings(), path)
    assert read_text_rows(settings(), zipped).sha256 == plain.sha256
    assert read_text_rows(settings(input="{text}"), path).sha256 != plain.sha256


def test_the_target_may_be_a_place_among_choices_or_a_list(tmp_path: Path):
    row = {"premise": "It rained.", "choices": ["wet", "dry"], "label": 1, "refs": ["a", "b", "a"]}
    chosen = settings(input="{premise} {choices[0]} or {choices[1]}", choices="choices")
    found = read_text_rows(chosen, write(tmp_path, row)).examples[0]
    assert (found.question.text, found.answers) == ("It rained. wet or dry", ("dry",))
    several = settings(input="{choices}", target="refs")
    found = read_text_rows(several, write(tmp_path, row)).examples[0]
    assert (found.question.text, found.answers) == ("wet; dry", ("a", "b"))


def test_rows_of_one_input_are_one_example_with_all_their_targets(tmp_path: Path):
    rows = [{"text": "m", "label": one} for one in ("x", "y", "x")] + [{"text": "n", "label": "z"}]
    found = read_text_rows(settings(group=True), write(tmp_path, *rows)).examples
    assert [(e.question.id, e.answers) for e in found] == [("1", ("x", "y")), ("4", ("z",))]
    assert len(read_text_rows(settings(), write(tmp_path, *rows)).examples) == 4


@pytest.mark.parametrize(
    ("rows", "changes", "error", "said"),
    [
        ([{"text": "a"}], {}, RecipeError, r"line 1: no 'label' in this row \(fields: text\)"),
        ([{"label": "a"}], {}, RecipeError, "no 'text'"),
        ([{"text": "a", "label": "x"}], {"labels": {"0": "no"}}, RecipeError, "not said in words"),
        ([{"text": "a", "label": 2, "c": ["x"]}], {"choices": "c"}, RecipeError, "out of range"),
        ([{"text": "a", "label": "x", "c": []}], {"choices": "c"}, DataFormatError, "no place"),
        ([{"text": "a", "label": ""}], {}, DataFormatError, "neither a text nor a number"),
        ([{"text": "a", "label": None}], {}, DataFormatError, "neither a text nor a number"),
        (['{"text": "a"'], {}, DataFormatError, "line 1: not JSON"),
        ([[1]], {}, DataFormatError, "not a JSON object"),
        ([], {}, InputError, "holds no row"),
        (
            [{"text": "a", "label": "x", "id": 7}, {"text": "b", "label": "x", "id": "7"}],
            {},
            DataFormatError,
            "line 2: the id '7' stands in it twice",
        ),
        ([{"text": "a", "label": "x", "id": "a b"}], {}, DataFormatError, "white space"),
    ],
)
def test_what_does_not_fit_is_told(
    tmp_path: Path, rows: list[object], changes: dict[str, object], error: type, said: str
):
    with pytest.raises(error, match=said):
        read_text_rows(settings(**changes), write(tmp_path, *rows))


def test_another_encoding_is_told_with_its_line(tmp_path: Path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"text": "a", "label": "x"}\n{"text": "é", "label": "x"}\n'.encode("latin-1"))
    with pytest.raises(DataFormatError, match=r"line 2: not UTF-8.*iconv"):
        read_text_rows(settings(), path)


@pytest.mark.parametrize("written", ["{text.__class__}", "{text!r}", "{text:>10}", "{}", "{0}"])
def test_an_input_of_anything_but_fields_is_refused(written: str):
    with pytest.raises(ValidationError, match="plain fields"):
        settings(input=written)


def test_labels_and_choices_exclude_each_other():
    with pytest.raises(ValidationError, match="not both"):
        settings(labels={"0": "a"}, choices="c")


@pytest.mark.parametrize("name", FILES)
def test_the_shipped_tasks_read_the_public_files(name: str, real_data: Path):
    path = real_data / "tasks" / f"{FILES[name]}.jsonl.gz"
    recipe = load_recipe(name, EvalRecipe, folder="eval", overrides=[f"data.path={path}"])
    found = load_examples(recipe)
    assert len(found.examples) > 80
    assert all(example.answers for example in found.examples)
    assert not any("{" in example.question.text[:10] for example in found.examples)


def test_a_task_without_a_file_says_how_to_name_one():
    recipe = load_recipe("task-topic", EvalRecipe, folder="eval")
    with pytest.raises(RecipeError, match=r"--set data\.path=FILE"):
        load_examples(recipe)
