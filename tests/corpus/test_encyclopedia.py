"""The embedded encyclopedia keeps what it promises."""

from __future__ import annotations

import json

from rag_frozen.corpus import read_passages
from rag_frozen.evaluation.metrics import normalize_answer
from rag_frozen.models.source import pocket_folder

FOLDER = pocket_folder() / "encyclopedia"


def test_there_are_enough_articles_and_passages_of_about_a_hundred_words():
    reader = read_passages(FOLDER / "passages.jsonl", strict=True)
    passages = list(reader)
    assert len({p.title for p in passages}) >= 250
    assert len(passages) >= 900
    assert all(75 <= len(p.text.split()) <= 125 for p in passages)


def test_every_answer_stands_in_its_gold_passage_and_not_in_the_question():
    texts = {p.id: normalize_answer(p.text) for p in read_passages(FOLDER / "passages.jsonl")}
    rows = [json.loads(line) for line in (FOLDER / "questions.jsonl").open(encoding="utf-8")]
    assert len({row["question"].lower() for row in rows}) == len(rows)
    wrong = []
    for row in rows:
        if row["answers"]:
            stands = f" {normalize_answer(row['answers'][0])} " in f" {texts[row['gold']]} "
            asked = f" {normalize_answer(row['question'])} "
            told = any(f" {normalize_answer(answer)} " in asked for answer in row["answers"])
            if not stands or told:
                wrong.append(row["id"])
        else:
            assert row["gold"] is None
    assert wrong == []
