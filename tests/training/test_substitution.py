"""Other answers in passages: what is written stands there, and the old answer does not."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from rag_frozen.packing.template import PromptTemplate
from rag_frozen.training.reading_data import Mixture, ReadingData, ReadingRow
from rag_frozen.training.substitution import Substitutes
from rag_frozen.types import Passage

TEMPLATE = PromptTemplate(
    with_passages="question: {question}\n{passages}",
    passage="passage: {title}. {text}\n",
    closed_book="question: {question}\n",
)
PAINTERS = [f"Painter {letter}" for letter in "ABCDEFGHIJKL"]
YEARS = [str(year) for year in range(1801, 1813)]
ROWS = [
    row
    for painter, year in zip(PAINTERS, YEARS, strict=True)
    for row in (
        ReadingRow(f"who painted the wall in {year}", painter, Passage(
            "", painter, f"{painter} painted the wall in {year}. The wall of {painter} is red."
        ), (Passage("n", "A wall", "The wall stands."),)),
        ReadingRow(f"when did {painter} paint the wall", year, Passage(
            "", "The wall", f"It was painted in {year} by {painter}; in {year}5 it fell."
        ), (Passage("n", "A wall", "The wall stands."),)),
    )
]  # fmt: skip


def standing(answer: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text) is not None


def known() -> Substitutes:
    return Substitutes.of((row.question, row.answer) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.answer)
def test_another_answer_of_the_kind_takes_every_place_of_the_old_one(row: ReadingRow):
    kind = PAINTERS if row.answer in PAINTERS else YEARS
    for seed in range(5):
        passage, answer = known().put_in(row.question, row.answer, row.passage, random.Random(seed))
        assert answer in kind
        assert answer != row.answer
        assert standing(answer, passage.text)
        assert not standing(row.answer, f"{passage.title} {passage.text}")
        if row.answer in YEARS:  # part of a longer number is another word
            assert f"{row.answer}5" in passage.text
        else:
            assert passage.title == answer
        assert passage.text.replace(answer, row.answer) == row.passage.text


@pytest.mark.parametrize(
    ("question", "answer", "text"),
    [
        ("who is Painter A", "Painter A", "Painter A lives."),  # the question says it
        ("who painted it", "Painter", "Painters lived there."),  # no word of its own
        ("who painted it", "Painter A", "Nobody did."),
        ("what is it", "Painter A", "Painter A it is."),  # what is asked for is not told
        ("which river is it", "Rhine", "The Rhine."),  # no other river is known
        ("when did it open", "every day", "It opens every day."),
    ],
)
def test_what_cannot_be_exchanged_stays(question: str, answer: str, text: str):
    passage = Passage("", "A title", text)
    assert known().put_in(question, answer, passage, random.Random(0)) == (passage, answer)


def test_an_answer_that_the_passage_has_already_is_not_put_in():
    crowded = Passage("", "All", f"{', '.join(PAINTERS[:-1])} met.")
    chosen = {
        known().put_in("who came first", PAINTERS[0], crowded, random.Random(seed))[1]
        for seed in range(60)
    }
    assert chosen == {PAINTERS[0], PAINTERS[-1]}


def test_characters_that_patterns_know_stay_as_they_are():
    odd = [rf"{letter}\1 (C++) \g<0>" for letter in "abcdefghij"]
    others = Substitutes.of([("who wrote it", one) for one in odd])
    text = f"It was {odd[0]} who wrote it."
    passage, answer = others.put_in("who wrote it", odd[0], Passage("", "", text), random.Random(2))
    assert passage.text == f"It was {answer} who wrote it."
    assert answer in odd[1:]


def data(**mixture: float) -> ReadingData:
    plain = Mixture(
        cloze_start=0.0, cloze_end=0.0, language_model=0.0, closed_book=0.0, yes_no=0.0,
        several=0.5, several_from=0.0,
    )  # fmt: skip
    return ReadingData(
        passages=[Passage("p", "A wall", "The wall stands.")], reading=[(1.0, ROWS)], yes_no=[],
        closed_book=[], template=TEMPLATE, mixture=replace(plain, **mixture), seed=3,
    )  # fmt: skip


def test_examples_show_the_answer_that_is_to_be_written():
    made = [data(substitute=0.5, no_answer_alone=0.1).example(n, 400) for n in range(400)]
    answered = [example for example in made if example.target]
    assert all(standing(example.target, example.source) for example in answered)
    own = {(row.question, row.answer) for row in ROWS}
    kept = sum(
        (example.source.split("\n")[0].removeprefix("question: "), example.target) in own
        for example in answered
    )
    assert 0.4 < kept / len(answered) < 0.6
    silent = [example for example in made if not example.target]
    assert silent
    assert all("The wall stands." in example.source for example in silent)
