"""Mining: positives hold an answer, negatives hold none, what is excluded never appears."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.training import mining
from rag_frozen.training.files import read_json_lines
from rag_frozen.training.mined_rows import MiningSettings, question_overlap
from rag_frozen.training.mining import HoldOut, mine
from rag_frozen.training.sources import map_rows
from rag_frozen.types import Hit, Passage, Question, Ranking

PASSAGES = {
    p.id: p
    for p in (
        Passage("a:1", "Hamlet", "Hamlet is a play that William Shakespeare wrote about 1600."),
        Passage("a:2", "Hamlet", "The prince of Denmark sees the ghost of his father."),
        Passage("a:3", "Theatre", "Shakespeare owned a share of the Globe."),
        Passage("gold:1", "Hamlet", "Shakespeare wrote Hamlet, says the kept passage."),
        Passage("b:1", "William Shakespeare", "He was born in Stratford."),
        Passage("b:2", "Nile", "The Nile is 6,650 km long."),
    )
}


class Everything:
    """Returns all passages in the order given, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def retrieve(self, questions: list[Question], *, k: int) -> list[Ranking]:
        self.asked.append((len(questions), k))
        order = ("gold:1", "a:2", "a:1", "a:3", "b:1", "b:2")
        ranking = tuple(Hit(one, float(9 - place)) for place, one in enumerate(order[:k]))
        return [ranking for _ in questions]


class Store:
    def __len__(self) -> int:
        return len(PASSAGES)

    def get(self, passage_ids: list[str]) -> list[Passage]:
        return [PASSAGES[one] for one in passage_ids]


def questions(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


HAMLET = {"id": "q", "question": "who wrote hamlet", "answers": ["Shakespeare"]}


def test_a_mined_row_holds_the_best_passage_that_answers_and_negatives_that_do_not(tmp_path):
    search = Everything()
    done = mine(
        questions(tmp_path, HAMLET),
        tmp_path / "mined.jsonl",
        search,
        Store(),
        exclusions=["gold:*"],
    )
    (row,) = read_json_lines(tmp_path / "mined.jsonl")
    assert (row["pid"], row["rank"], row["q_overlap"]) == ("a:1", 1, 1.0)
    # a:3 holds the answer but no word of the question; b:1 holds it in its title alone
    assert [p["pid"] for p in row["positives"]] == ["a:1"]
    assert row["neg_pids"] == ["a:2", "b:2"]
    assert [p["score"] for p in (*row["positives"], *row["negatives"])] == [7.0, 8.0, 4.0]
    assert [p["text"] for p in row["negatives"]] == [
        PASSAGES["a:2"].text,
        PASSAGES["b:2"].text,
    ]
    assert (done.questions, done.mined, done.excluded, done.ranks) == (1, 1, 1, {1: 1})
    assert search.asked == [(1, 50)]


def test_a_question_that_nothing_answers_is_left_out(tmp_path):
    other = {"id": "z", "question": "who painted the moon", "answers": ["Nobody"]}
    done = mine(questions(tmp_path, other, HAMLET), tmp_path / "mined.jsonl", Everything(), Store())
    rows = list(read_json_lines(tmp_path / "mined.jsonl"))
    assert [row["id"] for row in rows] == ["q"]
    assert (done.questions, done.mined) == (2, 1)
    assert rows[0]["pid"] == "gold:1"  # nothing was excluded here


def test_a_copy_of_an_excluded_passage_is_excluded_under_its_own_id(tmp_path, monkeypatch):
    monkeypatch.setitem(PASSAGES, "a:1", Passage("a:1", "Copy", PASSAGES["gold:1"].text))
    told = {**HAMLET, "answers": ["Shakespeare", "Nile"], "question": "how long is the nile"}
    settings = MiningSettings(min_overlap=0.0)
    done = mine(questions(tmp_path, told), tmp_path / "mined.jsonl", Everything(), Store(),
                settings=settings, exclusions=["gold:*"])  # fmt: skip
    (row,) = read_json_lines(tmp_path / "mined.jsonl")
    assert [p["pid"] for p in row["positives"]] == ["a:3", "b:2"]
    assert done.excluded == 2


def test_nothing_is_written_where_no_question_is_answered(tmp_path):
    target = tmp_path / "mined.jsonl"
    target.write_text("what was there\n")
    other = {"question": "who painted the moon", "answers": ["Nobody"]}
    with pytest.raises(InputError, match="No passage answers any of the 1 questions"):
        mine(questions(tmp_path, other), target, Everything(), Store())
    assert target.read_text() == "what was there\n"


def test_a_row_without_answers_is_named(tmp_path):
    path = questions(tmp_path, HAMLET, {"question": "who"})
    with pytest.raises(DataFormatError, match=r"questions.jsonl, row 2: .*answers"):
        mine(path, tmp_path / "mined.jsonl", Everything(), Store())


@pytest.mark.parametrize("wrong", [{"k": 0}, {"positives": 0}, {"min_overlap": 1.5}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError):
        MiningSettings(**wrong)


def test_wrong_files_are_told_before_the_work(tmp_path):
    path = questions(tmp_path, HAMLET)
    with pytest.raises(InputError, match=r"is a folder. Name the file to write, such as .*mined"):
        mine(path, tmp_path, Everything(), Store())
    path.write_text("\n")
    with pytest.raises(InputError, match="holds no question"):
        mine(path, tmp_path / "mined.jsonl", Everything(), Store())


def test_overlap_counts_the_questions_own_words():
    passage = Passage("1", "Nile", "The river Nile is long.")
    assert question_overlap("how long is the river nile", passage) == 1.0
    assert question_overlap("how long is the amazon river", passage) == pytest.approx(2 / 3)
    assert question_overlap("who", passage) == 1.0


def test_each_positive_of_a_mined_row_becomes_a_reading_row_with_its_negatives(tmp_path):
    mine(questions(tmp_path, HAMLET), tmp_path / "mined.jsonl", Everything(), Store())
    rows = map_rows(read_json_lines(tmp_path / "mined.jsonl"), {}, {"gold:1"})
    assert rows == []  # the row's best passage must not be trained on
    rows = map_rows(read_json_lines(tmp_path / "mined.jsonl"), {}, set())
    assert [row.passage.text for row in rows] == [PASSAGES["gold:1"].text, PASSAGES["a:1"].text]
    assert {p.id for row in rows for p in row.negatives} == {"a:2", "b:2"}
    assert {row.answer for row in rows} == {"Shakespeare"}


OWN = {**HAMLET, "title": "Hamlet", "text": PASSAGES["a:1"].text}


def test_a_questions_own_passage_is_its_only_positive(tmp_path):
    told = {**OWN, "id": "t", "text": "Shakespeare wrote it, says a text that no corpus holds."}
    wrong = {**OWN, "id": "w", "text": "A text without the answer."}
    done = mine(
        questions(tmp_path, OWN, told, wrong),
        tmp_path / "mined.jsonl",
        Everything(),
        Store(),
        settings=MiningSettings(own_passages=True),
    )
    found, unknown = read_json_lines(tmp_path / "mined.jsonl")
    assert done.mined == 2
    assert (found["pid"], found["rank"]) == ("a:1", 2)
    assert [p["pid"] for p in found["positives"]] == ["a:1"]
    assert found["positives"][0]["score"] == 7.0
    # gold:1 and a:3 hold the answer: neither positive nor negative
    assert found["neg_pids"] == unknown["neg_pids"] == ["a:2", "b:2"]
    assert (unknown["pid"], unknown["rank"]) == ("", 6)
    assert [p["text"] for p in unknown["positives"]] == [told["text"]]
    assert "score" not in unknown["positives"][0]


def test_a_yes_or_no_question_has_all_but_its_passages_likes_as_negatives(tmp_path):
    text = "Hamlet is a play by William Shakespeare of about 1600."  # nearly a:1
    asked = {"question": "is hamlet a play", "answers": ["yes"], "title": "Hamlet", "text": text}
    near = {**asked, "question": "is hamlet long", "near_nq_eval_passage": True}
    target = tmp_path / "mined.jsonl"
    settings = MiningSettings(own_passages=True)
    mine(questions(tmp_path, asked, near), target, Everything(), Store(), settings=settings)
    (row,) = read_json_lines(target)
    assert row["text"] == text
    with pytest.raises(InputError, match="No passage answers"):  # its own passage is left out
        mine(
            questions(tmp_path, {**asked, "text": PASSAGES["a:1"].text}),
            target, Everything(), Store(), settings=settings, exclusions=["a:1"],
        )  # fmt: skip
    assert row["neg_pids"] == ["gold:1", "a:2", "a:3", "b:1", "b:2"]


def test_a_mining_that_is_stopped_goes_on_and_ends_in_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(mining, "_CHUNK", 2)
    path = questions(tmp_path, *({**HAMLET, "id": str(n)} for n in range(7)))
    whole = mine(path, tmp_path / "whole.jsonl", Everything(), Store(), exclusions=["gold:*"])
    target = tmp_path / "mined.jsonl"

    class Stopped(Everything):
        def retrieve(self, asked: list[Question], *, k: int) -> list[Ranking]:
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().retrieve(asked, k=k)

    def again(search: Everything, **changes: object) -> mining.MiningReport:
        given = {"exclusions": ["gold:*"], "retrieval": "index 1", **changes}
        return mine(path, target, search, Store(), **given)

    with pytest.raises(KeyboardInterrupt):
        again(Stopped())
    assert not target.exists()
    other = Everything()
    again(other, retrieval="index 2")  # another index begins anew
    assert len(other.asked) == 4
    search = Everything()
    assert again(search) == whole
    assert [n for n, _ in search.asked] == [2, 1]
    assert target.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {
        "questions.jsonl", "whole.jsonl", "mined.jsonl",
    }  # fmt: skip


@pytest.mark.parametrize(("spread", "kept"), [(False, ["a:2", "a:3"]), (True, ["a:2", "b:2"])])
def test_negatives_are_the_first_or_spread_over_the_hits(tmp_path, spread, kept):
    asked = {**HAMLET, "answers": ["Stratford"], "question": "where was he born"}
    settings = MiningSettings(negatives=2, spread=spread, min_overlap=0.0)
    target = tmp_path / "mined.jsonl"
    mine(questions(tmp_path, asked), target, Everything(), Store(), settings=settings,
         exclusions=["gold:*", "a:1"])  # fmt: skip
    (row,) = read_json_lines(target)
    assert row["neg_pids"] == kept


def test_every_nth_row_is_held_out_in_a_file_of_its_own(tmp_path):
    asked = [{**HAMLET, "id": str(n)} for n in range(10)]
    asked[3] = {**HAMLET, "id": "3", "answers": ["nobody"]}  # not mined, so not counted
    path = questions(tmp_path, *asked)
    target, apart = tmp_path / "mined.jsonl", tmp_path / "new" / "apart.jsonl"
    whole = mine(path, tmp_path / "whole.jsonl", Everything(), Store())
    done = mine(path, target, Everything(), Store(), hold_out=HoldOut(apart, 4))
    assert (whole.held_out, done.mined, done.held_out) == (0, 9, 2)
    assert [row["id"] for row in read_json_lines(apart)] == ["4", "8"]
    both = [row["id"] for row in read_json_lines(target)] + ["4", "8"]
    assert sorted(both) == [row["id"] for row in read_json_lines(tmp_path / "whole.jsonl")]
    with pytest.raises(InputError, match="Name two files"):
        mine(path, target, Everything(), Store(), hold_out=HoldOut(tmp_path / "new/../mined.jsonl"))
    with pytest.raises(InputError, match="is a folder"):
        mine(path, target, Everything(), Store(), hold_out=HoldOut(tmp_path))
    with pytest.raises(InputError, match="take 2 or more"):
        HoldOut(apart, 1)


def test_too_few_rows_to_hold_one_out_are_told_and_kept_for_another_try(tmp_path):
    path, target = questions(tmp_path, HAMLET, HAMLET), tmp_path / "mined.jsonl"

    def held_out(every, search):
        apart = HoldOut(tmp_path / "apart.jsonl", every)
        return mine(path, target, search, Store(), retrieval="it", hold_out=apart)

    with pytest.raises(InputError, match=r"2 rows mined every 8th .* too few"):
        held_out(8, Everything())
    assert not target.exists()
    search = Everything()
    assert held_out(2, search).held_out == 1
    assert not search.asked
