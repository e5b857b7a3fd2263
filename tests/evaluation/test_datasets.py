"""Questions with answers are read strictly, whatever their form; errors name file and line."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import DataFormatError, InputError, ModelMissingError, RecipeError
from rag_frozen.evaluation.datasets import read_examples, read_hub_examples, read_pocket_examples
from rag_frozen.evaluation.load import load_examples
from rag_frozen.recipes.ablation import AblationRecipe
from rag_frozen.recipes.evaluation import EvalRecipe
from rag_frozen.recipes.loading import list_recipes, load_recipe

DATA = Path(os.environ.get("RAG_FROZEN_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_jsonl_takes_answer_and_answers_and_counts_lines_as_ids(tmp_path: Path):
    path = written(
        tmp_path / "q.jsonl",
        {"question": "who", "answer": ["a", "b"]},
        {"question": "what", "answers": "c", "id": "x"},
        {"question": "when", "answers": [1895, 2.5, " "], "answer": ["no"], "id": 7},
    )
    examples = read_examples(path).examples
    assert [one.question.id for one in examples] == ["1", "x", "7"]
    assert [one.answers for one in examples] == [("a", "b"), ("c",), ("1895", "2.5")]


def test_a_gzipped_file_is_known_by_its_bytes_and_hashed_as_its_text(tmp_path: Path):
    text = b'{"question": "who", "answers": ["a"]}\n'
    (tmp_path / "q.jsonl").write_bytes(text)
    (tmp_path / "unmarked").write_bytes(gzip.compress(text))
    plain, packed = read_examples(tmp_path / "q.jsonl"), read_examples(tmp_path / "unmarked")
    assert plain.examples == packed.examples
    assert plain.sha256 == packed.sha256
    assert (plain.name, len(plain.sha256)) == ("q.jsonl", 64)


def test_gold_passages_tags_and_line_separators_in_texts_are_kept(tmp_path: Path):
    row = {
        "id": "q1", "question": "wh\u2028o\x85", "answers": ["a"], "gold": "p1", "style": "search",
        "wording": None, "title": "T", "text": "A text.",
    }  # fmt: skip
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\r\n\r\n", encoding="utf-8-sig")
    (example,) = read_examples(path).examples
    assert example.question.text == "wh\u2028o\x85"
    assert (example.gold_passage_id, example.tags) == ("p1", (("style", "search"),))
    assert example.gold_passage is not None
    assert (example.gold_passage.id, example.gold_passage.title) == ("p1", "T")


@pytest.mark.parametrize(
    ("line", "question", "answers"),
    [
        ("who\t['a', \"b's\"]", "who", ("a", "b's")),
        ('who\t["a", "b"]', "who", ("a", "b")),
        ('who\t"[""O\'Brien"", \'x\']"', "who", ("O'Brien", "x")),
        ('"who said ""hi"""\t[\'me\']\r', 'who said "hi"', ("me",)),
        ("who\t('a',)", "who", ("a",)),
        ('who\t["\\u00e9", null][:0]', None, ()),
    ],
)
def test_dprs_tsv_is_read_as_data_never_evaluated(tmp_path: Path, line, question, answers):
    (tmp_path / "nq-test.csv").write_text(line + "\n", encoding="utf-8")
    if question is None:
        with pytest.raises(DataFormatError, match="expected question<TAB>"):
            read_examples(tmp_path / "nq-test.csv")
        return
    (example,) = read_examples(tmp_path / "nq-test.csv").examples
    assert (example.question.text, example.answers) == (question, answers)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1))
def test_answers_survive_the_tsv_as_python_and_as_json_write_them(tmp_path_factory, answers):
    kept = tuple(answer for answer in answers if answer.strip())
    for number, listed in enumerate([repr(answers), json.dumps(answers)]):
        path = tmp_path_factory.mktemp("tsv") / f"{number}.tsv"
        path.write_text(f"who\t{listed}\n", encoding="utf-8", newline="\n")
        if kept:
            assert read_examples(path).examples[0].answers == kept
        else:
            with pytest.raises(DataFormatError, match="has no answer"):
                read_examples(path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.jsonl", '{"question": "a", "answers": ["x"]}\n{"question"\n', "line 2: not JSON"),
        ("q.jsonl", '\n{"question": "a", "answers": []}\n', "line 2: the question has no answer"),
        ("q.jsonl", '{"question": "a", "answers": null}\n', "line 1: the question has no answer"),
        ("q.jsonl", '{"question": "a", "answers": [" "]}\n', "line 1: the question has no answer"),
        ("q.jsonl", '{"question": "a", "answers": [null]}\n', "the answer None is neither"),
        ("q.jsonl", '{"question": "a", "answers": [true]}\n', "the answer True is neither"),
        ("q.jsonl", '{"question": "a", "answers": {"x": 1}}\n', "neither text nor a number"),
        ("q.jsonl", '{"question": "  ", "answers": ["x"]}\n', "line 1: no question"),
        ("q.jsonl", '{"question": 5, "answers": ["x"]}\n', "line 1: no question"),
        ("q.jsonl", '{"q": "a"}\n', r"line 1: no question \(fields: q\)"),
        ("q.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("q.jsonl", "[" * 100_000 + "\n", "line 1: not JSON"),
        ("q.jsonl", 2 * '{"id": 1, "question": "a", "answers": ["x"]}\n', "line 2: the id '1'"),
        ("q.jsonl", '{"id": "a b", "question": "a", "answers": ["x"]}\n', "holds white space"),
        ("q.jsonl", '{"id": "", "question": "a", "answers": ["x"]}\n', "is empty or holds"),
        ("q.jsonl", '{"id": [1], "question": "a", "answers": ["x"]}\n', "neither text nor a whole"),
        ("q.jsonl", '{"question": "\\ud800", "answers": ["x"]}\n', "no valid Unicode"),
        ("q.jsonl", '{"question": "a", "answers": ["\\ud800"]}\n', "no valid Unicode"),
        ("q.tsv", "who\t__import__('os')\n", "line 1: expected question<TAB>"),
        ("q.tsv", "who\n", "line 1: expected question<TAB>"),
        ("q.tsv", "who\t'a'\n", "line 1: expected question<TAB>"),
        ("q.tsv", "who\t" + "(" * 100_000 + "\n", "line 1: expected question<TAB>"),
        ("q.tsv", "who\t[]\n", "line 1: the question has no answer"),
    ],
)
def test_malformed_rows_are_told_with_file_and_line(tmp_path: Path, name, text, said):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataFormatError, match=said) as caught:
        read_examples(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_other_encodings_name_the_line(tmp_path: Path):
    rows = '{"question": "a", "answers": ["x"]}\n{"question": "é"}'
    (tmp_path / "latin.jsonl").write_bytes(rows.encode("latin-1"))
    with pytest.raises(DataFormatError, match=r"line 2: not UTF-8 .*iconv"):
        read_examples(tmp_path / "latin.jsonl")
    (tmp_path / "utf16.jsonl").write_bytes(rows.encode("utf-16"))
    with pytest.raises(DataFormatError, match="line 1: not UTF-8"):
        read_examples(tmp_path / "utf16.jsonl")


def test_empty_missing_and_broken_files_are_told(tmp_path: Path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no question"):
        read_examples(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_examples(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_examples(tmp_path)
    packed = bytearray(gzip.compress(b'{"question": "a", "answers": ["x"]}\n' * 500))
    for broken in (bytes(packed[:-20]), bytes(packed[:20] + b"\xff\xff" * 9 + packed[38:])):
        (tmp_path / "broken.gz").write_bytes(broken)
        with pytest.raises(InputError, match="cannot be read"):
            read_examples(tmp_path / "broken.gz")


def test_questions_without_an_answer_are_taken_only_where_they_are_expected(tmp_path: Path):
    path = written(tmp_path / "q.jsonl", {"question": "a", "answers": []})
    values = {"kind": "eval", "name": "mine", "pipeline": "pocket"}
    data = {"kind": "file", "path": path}
    with pytest.raises(DataFormatError, match=r"data\.unanswerable=true"):
        load_examples(EvalRecipe.model_validate({**values, "data": data}))
    taken = EvalRecipe.model_validate({**values, "data": {**data, "unanswerable": True}})
    assert load_examples(taken).examples[0].answers == ()


def test_a_recipes_data_carry_its_name_and_limit(tmp_path: Path):
    path = written(tmp_path / "q.jsonl", *[{"question": f"q{n}", "answer": ["x"]} for n in "abc"])
    values = {"kind": "eval", "name": "mine", "pipeline": "pocket"}
    file = {"kind": "file", "path": path}
    hub = {"kind": "hub", "name": "owner/set", "split": "test", "path": path}
    for data in (file, hub):
        recipe = EvalRecipe.model_validate({**values, "data": data, "limit": 2})
        loaded = load_examples(recipe)
        assert (loaded.name, len(loaded.examples)) == ("mine-first-2", 2)
        whole = load_examples(recipe.model_copy(update={"limit": 3}))
        assert (whole.name, whole.sha256) == ("mine", loaded.sha256)
    with pytest.raises(RecipeError, match=r"--set data\.path=FILE"):
        load_examples(EvalRecipe.model_validate({**values, "data": {"kind": "file"}}))


RECIPES = [
    name
    for name in list_recipes("eval")
    if not name.startswith(("task-", "prompt-"))  # rows of other fields
]


@pytest.mark.parametrize("name", RECIPES)
def test_the_data_file_of_every_recipe_can_be_replaced(tmp_path: Path, name: str):
    path = written(tmp_path / "mine.jsonl", {"id": "x", "question": "who", "answers": ["he"]})
    kind = AblationRecipe if name.startswith("ablation-") else EvalRecipe
    recipe = load_recipe(name, kind, folder="eval", overrides=[f"data.path={path}"])
    loaded = load_examples(recipe)
    assert [one.question.id for one in loaded.examples] == ["x"]
    assert loaded.name == name
    forced = ["data.kind=hub", "data.name=a/b", "data.split=c", "data.format=kilt"]
    if recipe.data.kind == "hub":
        forced = [f"data.path={path}", *forced]
        with pytest.raises(DataFormatError, match="no question"):
            load_examples(load_recipe(name, kind, folder="eval", overrides=forced))


def test_hub_rows_are_numbered_and_hashed_by_content(monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    rows = [{"question": "who", "answer": ["a"]}, {"question": "what", "answer": ["b", "c"]}]
    asked = []

    def load_dataset(*arguments, **settings):
        asked.append((arguments, settings))
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = read_hub_examples("owner/nq", split="validation", revision="abc")
    assert asked == [(("owner/nq", None), {"split": "validation", "revision": "abc"})]
    assert [one.question.id for one in data.examples] == ["validation:0", "validation:1"]
    assert data.examples[1].answers == ("b", "c")
    rows[0]["answer"] = ["other"]
    assert read_hub_examples("owner/nq", split="validation").sha256 != data.sha256
    rows[0]["answer"] = []
    with pytest.raises(DataFormatError, match="data set owner/nq, row 0: the question has no"):
        read_hub_examples("owner/nq", split="validation")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "holds no question"),
        ([{"id": "7", "question": "a", "answer": ["x"]}] * 2, "row 1: the id '7' stands in row 0"),
    ],
)
def test_a_hubs_wrong_data_are_told(monkeypatch: pytest.MonkeyPatch, rows, said: str):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    with pytest.raises(InputError, match=said):
        read_hub_examples("owner/nq", split="test")


@pytest.mark.parametrize("error", [ConnectionError(), ValueError("no split test\nmore"), OSError()])
def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*arguments, **settings):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ModelMissingError, match=r"owner/nq .*--set data\.path=FILE"):
        read_hub_examples("owner/nq", split="test")


def test_the_embedded_questions_are_as_promised():
    examples = read_pocket_examples().examples
    answerable = [example for example in examples if example.answers]
    tags = [dict(example.tags) for example in answerable]
    assert len(answerable) >= 800
    assert len(examples) - len(answerable) >= 60
    assert 0.45 < sum(tag["style"] == "search" for tag in tags) / len(tags) < 0.6
    assert sum(tag["wording"] == "other" for tag in tags) >= 60
    assert all(
        one.gold_passage and one.gold_passage.id == one.gold_passage_id for one in answerable
    )


def test_natural_questions_with_gold_passages_are_read():
    path = DATA / "qa" / "nq_dev_gold.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no {path}: set RAG_FROZEN_TEST_DATA to a folder that holds it")
    data = read_examples(path)
    assert len(data.examples) == 1_000
    assert all(one.gold_passage is not None and one.answers for one in data.examples)


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        ({"answers": {"text": ["he", "he"], "answer_start": [1, 2]}}, ("he",)),
        ({"answer": {"value": "he", "aliases": ["him", "he"]}}, ("he", "him")),
        ({"possible_answers": '["he", "him"]'}, ("he", "him")),
        ({"answers": ["he"], "question_id": "tc_1"}, ("he",)),
        ({"answer": ["he", "him"]}, ("he", "him")),  # NQ-open
    ],
)
def test_hub_rows_are_read_as_the_data_sets_name_them(
    monkeypatch: pytest.MonkeyPatch, row: dict[str, object], answers: tuple[str, ...]
):
    import datasets

    rows = [{"question": "who", **row}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    [example] = read_hub_examples("any", split="test").examples
    assert example.answers == answers
    assert example.question.id == row.get("question_id", "test:0")
