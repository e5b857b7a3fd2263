"""What reranker and retriever are trained on: positives, negatives, the split, candidates."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from rag_frozen.errors import InputError, RecipeError
from rag_frozen.normalization import normalize_answer
from rag_frozen.recipes.loading import find_recipe, load_recipe
from rag_frozen.training.files import read_json_lines
from rag_frozen.training.ranking_data import load_ranking_data
from rag_frozen.training.ranking_rows import RankingRow, RankingSource, draw_rows, ranking_marks
from rag_frozen.training.ranking_settings import RankingData
from rag_frozen.training.reranker_settings import RerankerTraining
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.settings import ReaderTraining
from rag_frozen.training.sources import hold_out, read_rows
from tests.training.rankings import (
    KINGS,
    LEFT_OUT,
    PLACES,
    data,
    found,
    only_mined,
    passage,
    passages,
    write,
    write_world,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_world(tmp_path)


def load(fields: dict[str, Any]):
    return load_ranking_data(RankingData.model_validate(fields), examples=48, seed=5)


def answer_of(question: str) -> str:
    return normalize_answer(next(PLACES[n] for n, king in enumerate(KINGS) if king in question))


@pytest.mark.parametrize("fields", [data, only_mined])
def test_positives_answer_and_negatives_neither_answer_nor_are_left_out(folder: Path, fields):
    sources, _ = load(fields(folder))
    rows = [one for source in sources for one in source.rows]
    left_out = {passage(int(n))["text"] for n in LEFT_OUT}
    assert len(rows) > 20
    for one in rows:
        answer = answer_of(one.question)
        assert one.positives
        assert one.negatives
        assert all(answer in normalize_answer(p.text).split() for p in one.positives)
        assert not any(answer in normalize_answer(p.text).split() for p in one.negatives)
        assert left_out.isdisjoint(p.text for p in one.candidates)


def test_hard_negatives_of_the_files_come_before_searched_ones(folder: Path):
    sources, _ = load(data(folder))
    assert sources[0].rows
    for one in sources[0].rows:
        n = int(one.positives[0].id or one.question.split()[-1])
        if str(n + 1) not in LEFT_OUT:
            assert one.negatives[0].text == passage(n + 1)["text"]


@pytest.mark.parametrize("fields", [data, only_mined])
def test_held_out_questions_are_in_no_source(folder: Path, fields):
    sources, lists = load(fields(folder))
    held = {one.question for one in lists}
    asked = {one.question for source in sources for one in source.rows}
    assert len(held) == 8
    assert held.isdisjoint(asked)
    for one in lists:
        answer = answer_of(one.question)
        assert one.answering == tuple(
            answer in normalize_answer(p.text).split() for p in one.passages
        )


def test_rows_found_too_deep_are_left_out(folder: Path):
    sources, lists = load(data(folder))
    asked = {one.question for source in sources for one in source.rows}
    asked |= {one.question for one in lists}
    assert all(int(q.split()[-1]) % 7 < 5 for q in asked if q.startswith("home"))


def test_the_split_is_the_same_whatever_is_trained_on(folder: Path):
    _, searched = load(data(folder))
    _, stored = load(only_mined(folder))
    assert {one.question for one in searched} == {one.question for one in stored}


def test_questions_about_held_out_titles_leave_every_source(folder: Path):
    rows = {
        "a": [{"title": "X", "question": "one"}, {"title": "Y", "question": "two"}],
        "b": [{"title": "other", "question": q} for q in ("one", "two", "three", "four")],
    }
    held = hold_out(rows, titles_of="a", n_titles=1, rows_from="b", n_rows=1, seed=1)
    asked = {row["question"] for part in held.values() for row in part}
    assert len(asked) == 2
    assert all(row["question"] not in asked for part in rows.values() for row in part)


def test_mined_rows_need_no_corpus_and_bring_all_their_texts(folder: Path):
    (folder / "corpus.jsonl").unlink()
    sources, lists = load(only_mined(folder))
    row = next(r for r in sources[0].rows if r.question.endswith(" 11"))
    assert [p.text for p in row.positives] == [passage(n)["text"] for n in (11, 17)]
    assert [p.text for p in row.negatives] == [passage(n)["text"] for n in (12, 13, 19)]
    assert len(lists) == 8


def test_a_yes_or_no_question_keeps_its_mined_passages(folder: Path):
    rows = [
        {"question": f"is it so {n}", "answers": ["no"], "title": "T", "text": f"Text {n}.",
         "positives": [{"title": "T", "text": f"Text {n}."}],
         "negatives": [{"title": "T", "text": f"There is no text {n + 60}."}]}
        for n in range(20)
    ]  # fmt: skip
    write(folder / "yes_no.jsonl", rows)
    fields = only_mined(folder)
    fields["questions"].append({"name": "yes_no", "file": "yes_no.jsonl"})
    sources, _ = load(fields)
    kept = next(s.rows for s in sources if s.rows[0].question.startswith("is it so"))
    assert len(kept) == 20
    assert [p.text for p in kept[3].candidates] == ["Text 3.", "There is no text 63."]


def test_stored_candidates_stand_as_the_retriever_ranked_them(folder: Path):
    _, lists = load(only_mined(folder))
    for one in lists:
        n = int(one.question.split()[-1])
        left_out = [p for p in (found((n + k) % 60) for k in (1, 2, 8)) if p["pid"] in LEFT_OUT]
        if not left_out:
            assert one.answering.index(True) == n % 3


def test_stored_candidates_with_scores_stand_by_these(folder: Path):
    rows = list(read_json_lines(folder / "mined.jsonl"))
    for n, row in enumerate(rows):  # the best negative, the positives, the other negatives
        ones = [row["negatives"][0], *row["positives"], *row["negatives"][1:]]
        for place, one in enumerate(ones):
            one["score"] = 0.9 - 0.1 * place
        row["rank"] = 2 + n  # where spread negatives leave out others
    write(folder / "mined.jsonl", rows)
    _, lists = load(only_mined(folder))
    whole = [one for one in lists if len(one.passages) == 5]
    assert len(whole) > 3
    assert all(one.answering.index(True) == 1 for one in whole)


def test_a_later_rounds_negatives_come_first(folder: Path):
    asked = [f"home of {KINGS[n % 6]} {n}" for n in range(40)]
    write(
        folder / "second.jsonl",
        [{"question": q, "negatives": [found((n + 15) % 60)]} for n, q in enumerate(asked)],
    )
    sources, _ = load({**only_mined(folder), "harder": "second.jsonl", "most_negatives": 2})
    row = next(r for r in sources[0].rows if r.question.endswith(" 11"))
    assert [p.text for p in row.negatives] == [passage(n)["text"] for n in (26, 12)]


def test_two_files_of_one_name_are_refused(folder: Path):
    fields = data(folder)
    fields["questions"] = [{"name": "silver", "file": "mined.jsonl"}]
    with pytest.raises(RecipeError, match="Two sources are named silver"):
        load(fields)


def test_candidates_of_other_questions_are_refused(folder: Path):
    fields = only_mined(folder)
    write(folder / "other.jsonl", [{"question": "who", "answers": ["x"], **found(1)}])
    fields["held_out"]["candidates"] = "other.jsonl"
    with pytest.raises(InputError, match="none of the 8 held-out questions"):
        load(fields)


def test_rows_that_are_drawn_apart_share_no_passage():
    rows = [RankingRow(f"q{n}", ("a",), passages(n % 10), passages(50)) for n in range(30)]
    drawn = draw_rows(
        [RankingSource(1.0, tuple(rows))], 8, rng=random.Random(1), marks=ranking_marks
    )
    assert len(drawn) == 8
    assert len({row.positives[0].text for row in drawn}) == 8
    few = draw_rows(
        [RankingSource(1.0, tuple(rows[:3]))], 8, rng=random.Random(1), marks=ranking_marks
    )
    assert len(few) == 3


def test_every_training_holds_out_the_rows_that_the_reader_holds_out(real_data: Path):
    place, where = [f"data.path={real_data}"], "pipelines/train"
    held = []
    for name, kind in (
        ("pocket-reranker", RerankerTraining),
        ("pocket-reranker-mined", RerankerTraining),
        ("pocket-reranker-spread", RerankerTraining),
        ("pocket-reranker-average", RerankerTraining),
        ("pocket-retriever", RetrieverTraining),
    ):
        ranking = load_recipe(find_recipe(name, where), kind, folder=where, overrides=place).data
        split = ranking.held_out
        sources = {s.name: s for s in (split.titles, split.rows, *ranking.questions)}
        rows_of = {one.name: list(read_rows(one, real_data)) for one in sources.values()
                   if (real_data / one.file).exists()}  # fmt: skip
        held.append(
            hold_out(
                rows_of, titles_of=split.titles.name, n_titles=split.n_titles,
                rows_from=split.rows.name, n_rows=split.n_rows, seed=split.seed,
            )
        )  # fmt: skip
    reader = load_recipe(
        find_recipe("pocket-reader", where), ReaderTraining, folder=where, overrides=place
    )
    rows_of = {one.name: list(read_rows(one, real_data)) for one in reader.data.reading
               if (real_data / one.file).exists()}  # fmt: skip
    held.append(
        hold_out(
            rows_of, titles_of=reader.data.reading[0].name, n_titles=reader.data.validation_titles,
            rows_from=reader.data.validation_source, n_rows=reader.data.validation_rows,
            seed=reader.seed,
        )
    )  # fmt: skip
    ids = [{str(row["id"]) for part in one.values() for row in part} for one in held]
    assert len(held[0]["silver_nq"]) == 500
    assert all(one == ids[0] for one in ids)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pocket-reranker", RerankerTraining),
        ("pocket-reranker-mined", RerankerTraining),
        ("pocket-reranker-spread", RerankerTraining),
        ("pocket-reranker-average", RerankerTraining),
        ("pocket-retriever", RetrieverTraining),
    ],
)
def test_no_recipe_trains_on_what_is_kept_for_evaluation(name: str, kind: Any):
    recipe = load_recipe(find_recipe(name, "pipelines/train"), kind, folder="pipelines/train")
    kept = ("nq_dev", "qed", "retrieved_wiki18", "triviaqa_test", "hotpot_dev", "nq_gold")
    files = [*recipe.data.passages.files, *(s.file for s in recipe.data.questions)]
    assert not [file for file in files if any(name in file for name in kept)]
    assert recipe.data.passages.exclude is not None
