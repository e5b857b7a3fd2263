"""What cross-encoders read, beyond the contract of all rerankers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rag_frozen.errors import InputError
from rag_frozen.models.source import ModelFolder, resolve_model
from rag_frozen.rerank.cross_encoder import CrossEncoderReranker, pair_of
from rag_frozen.types import Passage, Question
from tests.tiny import save_bert

HAMLET = Passage("a", "Hamlet", "a play of shakespeare")


def reranker(folder: Path, **options: object) -> CrossEncoderReranker:
    model = save_bert(folder, kind="BertForSequenceClassification")
    settings = {"max_length": 40, "dtype": "float32", **options}
    return CrossEncoderReranker(ModelFolder("tiny", model), **settings)  # type: ignore[arg-type]


def test_the_passage_format_decides_what_is_scored(tmp_path: Path):
    question = Question("1", "who wrote hamlet")
    plain, other = (
        reranker(tmp_path, passage_format=written) for written in ("{title}. {text}", "{text}")
    )
    [[a]] = plain.rerank([question], [[HAMLET]])
    [[b]] = other.rerank([question], [[HAMLET]])
    [[c]] = plain.rerank([question], [[Passage("a", "", HAMLET.text)]])
    assert a.score != pytest.approx(b.score, abs=1e-6)
    assert b.score == pytest.approx(c.score, abs=1e-6)
    assert pair_of(question, HAMLET, passage_format="{text} ({title})")[1].endswith("(Hamlet)")


@pytest.mark.parametrize(
    "written", ["{title}", "{text} {id}", "{text.__class__}", "{text", "{}", "{text:{wide}}", ""]
)
def test_a_passage_format_with_wrong_fields_is_refused(tmp_path: Path, written: str):
    with pytest.raises(InputError, match="passage format"):
        reranker(tmp_path, passage_format=written)


def test_the_end_of_a_question_counts_and_the_end_of_a_long_passage_does_not(tmp_path: Path):
    made = reranker(tmp_path)
    long = "the river nile is long " * 20
    asked = "when was the king of france in the war of one two three four five moon star"
    [[base]] = made.rerank([Question("1", f"{asked} red")], [[Passage("p", "", long)]])
    [[other]] = made.rerank([Question("1", f"{asked} blue")], [[Passage("p", "", long)]])
    [[same]] = made.rerank([Question("1", f"{asked} red")], [[Passage("p", "", f"{long} blue")]])
    assert base.score != pytest.approx(other.score, abs=1e-6)
    assert base.score == pytest.approx(same.score, abs=1e-6)


def test_a_question_of_ten_thousand_words_is_answered_with_a_warning(tmp_path: Path, caplog):
    with caplog.at_level(logging.WARNING):
        [ranking] = reranker(tmp_path).rerank([Question("1", "moon " * 10_000)], [[HAMLET]])
    assert len(ranking) == 1
    assert "10000 tokens" in caplog.text


def test_the_pocket_reranker_prefers_the_passage_that_answers():
    made = CrossEncoderReranker(resolve_model("pocket/reranker"), max_length=192)
    passages = [
        Passage("a", "Denmark", "Denmark is a country in the north of Europe. Its capital is "
                "Copenhagen, where about 650,000 people live."),
        Passage("b", "Hamlet", "Hamlet is a tragedy that William Shakespeare wrote around 1600. "
                "It tells of a prince of Denmark who avenges his father."),
        Passage("c", "Theatre", "Many theatres in London stage old plays, and schools write "
                "about them."),
    ]  # fmt: skip
    questions = [
        Question("1", "who wrote hamlet"),
        Question("2", "what is the capital city of denmark"),
    ]
    rankings = made.rerank(questions, [passages, passages])
    assert [ranking[0].passage_id for ranking in rankings] == ["b", "a"]
