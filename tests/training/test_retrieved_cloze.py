"""Retrieved cloze questions: another passage answers them, in other words."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag_frozen.errors import InputError
from rag_frozen.normalization import normalize_answer
from rag_frozen.training import retrieved_cloze
from rag_frozen.training.cloze_rows import RetrievedClozeSettings
from rag_frozen.training.files import read_json_lines
from rag_frozen.training.retrieved_cloze import write_retrieved_clozes
from rag_frozen.training.sources import map_rows
from rag_frozen.types import Hit, Passage, Question, Ranking

RIVERS = (
    ("Volga", "Caspian Sea", "Valdai Hills", "Astrakhan"),
    ("Danube", "Black Sea", "Black Forest", "Budapest"),
    ("Rhone", "Gulf of Lion", "Saint Gotthard", "Avignon"),
    ("Ganges", "Bay of Bengal", "Gangotri Glacier", "Varanasi"),
)


def passages() -> list[Passage]:
    made = []
    for river, mouth, source, city in RIVERS:
        made.append(
            Passage(
                f"a:{river}",
                river,
                f"The {river} rises in the {source} and ends in the {mouth}. Ships carry grain and "
                f"timber down the river past the old harbour city of {city} every summer.",
            )
        )
        made.append(
            Passage(
                f"b:{river}",
                f"Trade on the {river}",
                f"Every summer grain and timber went down the {river} river in ships; past {city}, "
                f"an old harbour city, they reached the {mouth}. It rises far away, in {source}.",
            )
        )
        made.append(
            Passage(f"c:{river}", "Timber", f"Grain and timber need ships, says the {river} guild.")
        )
    return made


class Store:
    def __init__(self, held: list[Passage], deleted: tuple[int, ...] = ()) -> None:
        self._held = held
        self.deleted_rows = np.array(deleted, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def n_rows(self) -> int:
        return len(self._held)

    def row(self, row: int) -> Passage:
        return self._held[row]

    def get(self, passage_ids: list[str]) -> list[Passage]:
        by_id = {p.id: p for p in self._held}
        return [by_id[one] for one in passage_ids]


class Everything:
    """Returns all passages in their order."""

    def __init__(self, held: list[Passage]) -> None:
        self._ids = [p.id for p in held]

    def retrieve(self, questions: list[Question], *, k: int) -> list[Ranking]:
        ranking = tuple(Hit(one, float(99 - n)) for n, one in enumerate(self._ids[:k]))
        return [ranking for _ in questions]


SETTINGS = RetrievedClozeSettings(rows=40, seed=3)


def write(path: Path, settings: RetrievedClozeSettings = SETTINGS, **more: object):
    held = passages()
    done = write_retrieved_clozes(
        path,
        Everything(held),
        Store(held),
        settings=settings,
        **more,  # type: ignore[arg-type]
    )
    return done, list(read_json_lines(path))


def runs(text: str) -> set[tuple[str, ...]]:
    words = normalize_answer(text).split()
    return {tuple(words[n : n + 6]) for n in range(len(words) - 5)}


def test_another_passage_answers_in_other_words(tmp_path):
    done, rows = write(tmp_path / "rows.jsonl")
    by_id = {p.id: p for p in passages()}
    assert (done.rows, len(rows)) == (40, 40)
    assert done.drawn >= done.asked >= 40
    assert len({row["answers"][0] for row in rows}) >= 6
    for row in rows:
        (answer,) = row["answers"]
        assert row["pid"] != row["asked_of"]
        assert row["text"] == by_id[row["pid"]].text
        assert re.search(rf"\b{re.escape(answer)}\b", row["text"])
        assert answer in by_id[row["asked_of"]].text
        assert answer.lower() not in row["question"].lower()
        assert row["asked_of"].split(":")[1] == row["pid"].split(":")[1]  # the same river
        sentence = next(
            s for s in re.split(r"(?<=\.) ", by_id[row["asked_of"]].text) if answer in s
        )
        assert not runs(sentence) & runs(row["text"])
        assert 0.45 <= row["q_overlap"] <= 1
        assert row["negatives"]
        assert all(answer.lower() not in (n["title"] + n["text"]).lower() for n in row["negatives"])
        assert [n["pid"] for n in row["negatives"]] == row["neg_pids"]


def test_training_reads_what_is_written(tmp_path):
    _, rows = write(tmp_path / "rows.jsonl")
    made = map_rows(rows, {}, set())
    assert len(made) == 40
    assert all(row.answer in row.passage.text and row.negatives for row in made)
    left_out = {str(row["pid"]) for row in rows[:1]}
    assert len(map_rows(rows, {}, left_out)) < 40


def test_the_same_settings_give_the_same_file_and_another_seed_another(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name)
    write(tmp_path / "three", replace(SETTINGS, seed=4))
    one, two, three = ((tmp_path / name).read_bytes() for name in ("one", "two", "three"))
    assert one == two != three


def test_passages_that_are_excluded_or_not_asked_for_appear_nowhere(tmp_path):
    _, rows = write(tmp_path / "rows.jsonl", exclusions=["*:Volga", "a:Danube", "c:*"])
    seen = {pid for row in rows for pid in (row["pid"], row["asked_of"], *row["neg_pids"])}
    assert seen == {"a:Rhone", "b:Rhone", "a:Ganges", "b:Ganges", "b:Danube"}
    _, rows = write(tmp_path / "rows.jsonl", replace(SETTINGS, only=("*:Ganges", "*:Rhone")))
    named = {pid for row in rows for pid in (row["pid"], row["asked_of"], *row["neg_pids"])}
    assert {name.split(":")[1] for name in named} == {"Ganges", "Rhone"}


def test_where_nothing_is_found_the_error_says_so_and_nothing_is_written(tmp_path):
    target = tmp_path / "rows.jsonl"
    with pytest.raises(InputError, match="is answered by another passage: the corpus is too small"):
        write(target, replace(SETTINGS, rows=1, only=("a:*",)))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="is a folder"):
        write(tmp_path)
    with pytest.raises(InputError, match="need rows >= 1"):
        RetrievedClozeSettings(rows=0)


def test_a_passage_that_repeats_the_sentence_is_no_answer(tmp_path):
    river, mouth, source, _ = RIVERS[0]
    told = f"The {river} rises in the {source} and ends in the {mouth}."
    held = [Passage("1", river, told), Passage("2", "Copy", f"People say: {told} It is long.")]
    with pytest.raises(InputError, match="is answered by another passage"):
        write_retrieved_clozes(
            tmp_path / "rows.jsonl",
            Everything(held),
            Store(held),
            settings=replace(SETTINGS, rows=1),
        )


def test_rows_are_json_lines_with_ids_of_their_own(tmp_path):
    write(tmp_path / "rows.jsonl")
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"cloze:3:{n}" for n in range(40)]


def test_a_writing_that_is_stopped_goes_on_and_ends_in_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(retrieved_cloze, "_CHUNK", 8)
    whole, _ = write(tmp_path / "whole.jsonl")
    target = tmp_path / "rows.jsonl"
    held = passages()

    class Stopped(Everything):
        chunks = 0

        def retrieve(self, asked, *, k):
            if self.chunks == 3:
                raise KeyboardInterrupt
            self.chunks += 1
            return super().retrieve(asked, k=k)

    class Counted(Everything):
        chunks = 0

        def retrieve(self, asked, *, k):
            self.chunks += 1
            return super().retrieve(asked, k=k)

    def again(search, retrieval="index 1"):
        return write_retrieved_clozes(
            target, search, Store(held), settings=SETTINGS, retrieval=retrieval
        )

    with pytest.raises(KeyboardInterrupt):
        again(Stopped(held))
    assert not target.exists()
    first, other = Counted(held), Counted(held)
    again(other, retrieval="index 2")  # another index begins anew
    assert again(first) == whole
    assert first.chunks == other.chunks - 3 > 0
    assert target.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"whole.jsonl", "rows.jsonl"}


def test_a_month_alone_is_not_asked_for(tmp_path):
    held = [
        Passage("1", "Nile", "Egyptian farmers along the Nile sowed their wheat again in October."),
        Passage("2", "Wheat", "In October wheat was sowed again by Egyptian farmers of the Nile."),
    ]
    near = replace(SETTINGS, min_overlap=0.0, min_near=0.0)
    for word, asked in (("October", False), ("Memphis", True)):
        told = [replace(p, text=p.text.replace("October", word)) for p in held]
        target = tmp_path / word
        write_retrieved_clozes(target, Everything(told), Store(told), settings=near)
        answers = {row["answers"][0] for row in read_json_lines(target)}
        assert len(answers) > 1
        assert (word in answers) is asked


def test_deleted_passages_are_not_asked_about(tmp_path):
    held = passages()
    gone = tuple(n for n, p in enumerate(held) if p.id.startswith("a:"))
    for deleted in ((), gone):
        target = tmp_path / f"{len(deleted)}.jsonl"
        store = Store(held, deleted)
        write_retrieved_clozes(target, Everything(held), store, settings=replace(SETTINGS, rows=9))
        asked = {str(row["asked_of"])[0] for row in read_json_lines(target)}
        assert asked
        assert ("a" in asked) is not bool(deleted)
