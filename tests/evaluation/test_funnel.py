"""Each wrongly answered question is lost at one stage, and the bounds follow from the counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from rag_frozen.absent_stages import NoPassages, NoRetrieval
from rag_frozen.evaluation.funnel import funnel, lost_at, with_losses
from rag_frozen.evaluation.in_corpus import answers_in_corpus
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.evaluation.scoring import ScoredAnswer
from rag_frozen.types import Passage
from tests.evaluation import data
from tests.test_pipeline import PASSAGES, Store, pipeline


def row(
    name: str, *, retrieved: int | None, final: int | None, packed: bool, right: bool
) -> ScoredAnswer:
    return ScoredAnswer(
        id=name,
        question="who",
        answers=("he",),
        tags={},
        prediction="x",
        confidence=0.5,
        logprob=-1.0,
        answer_tokens=1,
        prompt_tokens=9,
        exact_match=right,
        f1=float(right),
        first_answering={"retrieve": retrieved, "final": final},
        depths={"retrieve": 100, "final": 100},
        reranked=5,
        evidence=(),
        dropped={},
        in_prompt=packed,
        gold_in_prompt=None,
    )


ROWS = (
    row("right", retrieved=1, final=1, packed=True, right=True),
    row("misread", retrieved=1, final=1, packed=True, right=False),
    row("unpacked", retrieved=7, final=4, packed=False, right=False),
    row("below the depth", retrieved=7, final=7, packed=False, right=False),
    row("missed", retrieved=None, final=None, packed=False, right=False),
    row("nowhere", retrieved=None, final=None, packed=False, right=False),
    row("lucky", retrieved=None, final=None, packed=False, right=True),
)


def test_a_question_is_lost_at_the_first_stage_that_it_does_not_pass():
    known = with_losses(ROWS, {"missed": True, "nowhere": False, "lucky": False})
    assert [one.lost_at for one in known] == [
        None, "reading", "packing", "reranking", "retrieval", "corpus", None,
    ]  # fmt: skip


def test_the_funnel_counts_and_bounds():
    known = with_losses(ROWS, {"missed": True, "nowhere": False, "lucky": False})
    stages = {stage.stage: stage for stage in funnel(known)}
    passed = {name: stage.passed for name, stage in stages.items()}
    assert passed == {"corpus": 5, "retrieval": 4, "reranking": 3, "packing": 2, "reading": 2}
    assert all(stage.lost == 1 for stage in stages.values())
    # two are right; of the four that retrieval found one is right: a quarter of one more
    assert stages["retrieval"].exact_match_if_lossless == pytest.approx(100 * 2.25 / 7, abs=1e-3)
    assert stages["reading"].exact_match_if_lossless == pytest.approx(100 * 3 / 7, abs=1e-3)


def test_without_a_search_of_the_corpus_retrieval_is_to_blame():
    known = with_losses(ROWS, {})
    assert [one.lost_at for one in known if one.id == "nowhere"] == ["retrieval"]
    assert next(stage.stage for stage in funnel(known)) == "retrieval"


def test_closed_book_questions_are_lost_by_the_reader():
    result = evaluate(pipeline(retriever=NoRetrieval(), store=NoPassages()), data())
    assert {one.lost_at for one in result.scored if one.answers} == {"reading"}


def test_questions_without_gold_answers_are_never_lost():
    result = evaluate(pipeline(), data())
    assert [one.lost_at for one in result.scored if not one.answers] == [None]
    assert lost_at(result.scored[-1], in_corpus=False) is None


class Whole(Store):
    def iter_passages(self) -> Sequence[list[Passage]]:
        return [list(PASSAGES.values())]


def test_the_corpus_is_searched_for_what_retrieval_missed():
    narrow = pipeline(store=Whole(), k=1, rerank_depth=1)
    result = evaluate(narrow, data(), search_corpus=True)
    (first, second, _) = result.scored
    assert (first.in_corpus, first.lost_at) == (True, "retrieval")  # rome stands in p1
    assert second.in_corpus is True
    assert next(stage.stage for stage in result.funnel) == "corpus"


def test_patterns_are_searched_as_patterns():
    passages = [[Passage("1", "", "born in 1895"), Passage("2", "", "R\u00f6ntgen")]]
    answers = {
        "a": [r"18\d\d"],
        "b": [r"19\d\d"],
        "c": ["x", "ro\u0308nt"],
        "d": ["[\u00e0-\u00fc]"],
    }
    found = answers_in_corpus(passages, answers, patterns=True)
    assert found == {"a": True, "b": False, "c": True, "d": False}


def test_the_funnel_looks_for_patterns_in_the_corpus():
    rows = tuple(
        replace(one, answers=("r[o]me$",) if one.answers else (), patterns=True)
        for one in data().examples
    )
    narrow = pipeline(store=Whole(), k=1, rerank_depth=1)
    result = evaluate(narrow, replace(data(), examples=rows), search_corpus=True)
    assert [one.in_corpus for one in result.scored if one.answers] == [False, False]
    assert {one.lost_at for one in result.scored if not one.exact_match} <= {"corpus", None}


def test_answers_are_found_by_whole_tokens_in_a_row():
    passages = [[Passage("1", "", "The New York Times"), Passage("2", "", "Röntgen")], []]
    answers = {"a": ["new york"], "b": ["york new"], "c": ["Rontgen", "röntgen"], "d": ["..."]}
    told: list[int] = []
    found = answers_in_corpus(passages, answers, progress=told.append)
    assert found == {"a": True, "b": False, "c": True, "d": False}
    assert told == [2, 2]
