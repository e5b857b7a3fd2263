"""The main path over stages that we wrote for the test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from rag_frozen.absent_stages import KeepOrder, NoPassages, NoRetrieval
from rag_frozen.errors import InputError
from rag_frozen.normalization import normalize_answer
from rag_frozen.packing.each import EachPacker, PassagePrior
from rag_frozen.packing.packer import GreedyPacker, PackingBudget
from rag_frozen.packing.template import PromptTemplate
from rag_frozen.pipeline import Pipeline
from rag_frozen.questions import as_questions
from rag_frozen.reader.each import EachReader
from rag_frozen.rerank.interpolation import JoinedScores
from rag_frozen.types import Context, Generation, Hit, Passage, Question, Ranking

PASSAGES = {
    f"p{n}": Passage(f"p{n}", "Title", text)
    for n, text in enumerate(["Paris is in France.", "Rome, Rome and rome.", "Oslo."])
}


class Store:
    def __len__(self) -> int:
        return len(PASSAGES)

    def get(self, passage_ids: Sequence[str]) -> list[Passage]:
        return [PASSAGES[one] for one in passage_ids]


class Retriever:
    def retrieve(self, questions: Sequence[Question], *, k: int) -> list[Ranking]:
        ranking = (Hit("p0", 3.0), Hit("p1", 2.0), Hit("p2", 1.0))[:k]
        return [ranking for _ in questions]


class ByLength:
    """Longer passages first."""

    def rerank(
        self, questions: Sequence[Question], candidates: Sequence[Sequence[Passage]]
    ) -> list[Ranking]:
        return [
            tuple(
                Hit(p.id, float(len(p.text)))
                for p in sorted(passages, key=lambda p: (-len(p.text), p.id))
            )
            for passages in candidates
        ]


class Echo:
    """Answers with the first word of the first packed passage."""

    def __init__(self) -> None:
        self.calls = 0

    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        self.calls += 1
        return [
            Generation(c.prompt.split(". ", 1)[-1].split()[0].strip(",."), -0.5, 2, "end")
            if c.kept
            else Generation("", -3.0, 1, "end")
            for c in contexts
        ]


def pipeline(**changes: object) -> Pipeline:
    packer = GreedyPacker(
        PromptTemplate(with_passages="{question}? {passages}", passage="{title}. {text} "),
        PackingBudget(200),
        count_tokens=lambda texts: [len(text.split()) for text in texts],
        max_passages=2,
    )
    parts: dict[str, object] = {
        "name": "test", "store": Store(), "retriever": Retriever(), "reranker": ByLength(),
        "packer": packer, "reader": Echo(), "k": 3, "rerank_depth": 2,
    }  # fmt: skip
    return Pipeline(**{**parts, **changes})  # type: ignore[arg-type]


def test_the_retrievals_score_is_added_with_its_weight():
    # by length p1 leads with 20 against 19; the retrieval has p0 one ahead
    assert pipeline().ask("which city").hits[0].passage_id == "p1"
    answer = pipeline(join=JoinedScores(2.0)).ask("which city")
    assert answer.text == "Paris"
    assert [(hit.passage_id, hit.score) for hit in answer.hits[:2]] == [("p0", 25.0), ("p1", 24.0)]
    assert dict(answer.evidence[0].scores) == {"retrieve": 3.0, "rerank": 25.0}


def test_an_answer_names_its_evidence_with_every_stages_score():
    answer = pipeline().ask("which city")
    assert answer.text == "Rome"
    assert answer.confidence == pytest.approx(math.exp(-0.5))
    assert [e.passage.id for e in answer.evidence] == ["p1", "p0"]
    assert dict(answer.evidence[0].scores) == {"retrieve": 2.0, "rerank": 20.0}
    assert answer.evidence[0].offsets == ((0, 4), (6, 10), (15, 19))
    assert answer.evidence[1].offsets == ()
    assert [stage for stage, _ in answer.seconds] == ["retrieve", "fetch", "rerank", "pack", "read"]


def test_the_ranking_holds_the_reranked_hits_then_the_rest():
    hits = pipeline().ask("which city").hits
    assert [hit.passage_id for hit in hits] == ["p1", "p0", "p2"]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_without_a_reranker_the_retrievals_order_stands():
    answer = pipeline(reranker=KeepOrder(), rerank_depth=3).ask("which city")
    assert answer.text == "Paris"
    assert [name for name, _ in answer.evidence[0].scores] == ["retrieve"]


def test_closed_book_needs_no_passages():
    answer = pipeline(retriever=NoRetrieval(), store=NoPassages()).ask("which city")
    assert (answer.text, answer.evidence, answer.hits) == ("", (), ())


def test_a_batch_is_one_call_a_stage_and_keeps_order():
    reader = Echo()
    answers = pipeline(reader=reader).answer(["one", Question("x", "two"), "three"])
    assert [a.question.id for a in answers] == ["0", "x", "2"]
    assert reader.calls == 1
    assert pipeline().answer([]) == []


@pytest.mark.parametrize(
    ("question", "said"),
    [("", "is empty"), (" \n", "is empty"), ("?!", "is empty"), (7, "is int, not text"),
     (b"who", "is bytes, not text"), (None, "is NoneType"), ("why " * 10_000, "10,000 words")],
)  # fmt: skip
def test_a_question_that_cannot_be_asked_is_refused(question: object, said: str):
    with pytest.raises(InputError, match=said):
        pipeline().ask(question)  # type: ignore[arg-type]


def test_a_bare_string_is_no_list_of_questions():
    with pytest.raises(InputError, match="use ask"):
        as_questions("who wrote hamlet")


def reading_each(**changes: object) -> Pipeline:
    """Every passage is read alone; the reader says its text's first word."""
    plain = pipeline()
    assert isinstance(plain.packer, GreedyPacker)
    parts: dict[str, object] = {
        "packer": EachPacker(plain.packer),
        "reader": EachReader(Echo(), normalize=normalize_answer),
        "weigh": PassagePrior("retrieve", 2.0),
    }
    return pipeline(**{**parts, **changes})


def test_passages_read_one_by_one_are_evidence_with_their_own_answers():
    answer = reading_each().ask("which city")
    # p1 is first by the reranker, p0 by retrieval, whose scores count: e^(2 * 3) to e^(2 * 2).
    assert answer.text == "Paris"
    assert [e.passage.id for e in answer.evidence] == ["p0", "p1"]
    assert [e.own.generation.text for e in answer.evidence if e.own] == ["Paris", "Rome"]
    assert dict(answer.evidence[0].scores) == {"retrieve": 3.0, "rerank": 19.0}
    prior = math.exp(6) / (math.exp(6) + math.exp(4))
    assert answer.confidence == pytest.approx(prior * math.exp(-0.5), abs=1e-12)
    assert answer.context is not None
    assert answer.context.passage_ids == ("p1", "p0")
    assert answer.evidence[0].offsets == ((0, 5),)
    by_rerank = reading_each(weigh=PassagePrior("rerank", 1.0)).ask("which city")
    assert by_rerank.text == "Rome"


def test_of_one_passage_reading_alone_answers_as_packing_does():
    [packed], [alone] = (
        made.answer(["which city"])
        for made in (pipeline(rerank_depth=1), reading_each(rerank_depth=1))
    )
    assert (alone.text, alone.confidence, alone.hits) == (
        packed.text,
        packed.confidence,
        packed.hits,
    )
    assert [(e.passage, e.scores, e.offsets) for e in alone.evidence] == [
        (e.passage, e.scores, e.offsets) for e in packed.evidence
    ]


def test_a_batch_of_passages_read_one_by_one_is_one_call_and_closed_book_needs_none():
    reader = Echo()
    made = reading_each(reader=EachReader(reader, normalize=normalize_answer))
    answers = made.answer(["one", "two", "three"])
    assert reader.calls == 1
    assert [a.text for a in answers] == ["Paris"] * 3
    book = reading_each(retriever=NoRetrieval(), store=NoPassages()).ask("which city")
    assert (book.text, book.evidence) == ("", ())


def test_an_answer_over_all_passages_is_withheld_below_the_asked_confidence():
    sure = reading_each().ask("which city").confidence
    assert not reading_each().ask("which city", min_confidence=sure - 1e-9).abstained
    withheld = reading_each().ask("which city", min_confidence=sure + 1e-9)
    assert (withheld.text, withheld.abstained) == ("", True)
    assert withheld.generation is not None
    assert withheld.generation.text == "Paris"


def test_scores_that_no_stage_gives_are_told():
    with pytest.raises(InputError, match=r"no scores of the stage dense.*retrieve, rerank"):
        reading_each(weigh=PassagePrior("dense", 1.0)).ask("which city")
