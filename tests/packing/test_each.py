"""Each passage in a prompt of its own, and what it counts beside the others."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import InputError
from rag_frozen.packing.each import EachPacker, PassagePrior, log_softmax
from rag_frozen.packing.packer import GreedyPacker, PackingBudget
from rag_frozen.packing.template import PromptTemplate
from rag_frozen.protocols import Packer
from rag_frozen.types import Context, Dropped, Hit, Kept, Passage, Question

TEMPLATE = PromptTemplate(with_passages="{question}? {passages}", passage="{title}: {text} ")
WHO = Question("q", "who")


def greedy(window: int = 40, max_passages: int | None = None) -> GreedyPacker:
    return GreedyPacker(
        TEMPLATE,
        PackingBudget(window, answer=0),
        count_tokens=lambda texts: [len(text.split()) for text in texts],
        max_passages=max_passages,
    )


def passage(name: str, text: str | None = None) -> Passage:
    return Passage(name, name.upper(), text or f"the text of {name}")


def context(*names: str) -> Context:
    alone = tuple(Context(WHO, name, 1, (Kept(name, 1),)) for name in names)
    return Context(WHO, "", 0, tuple(Kept(name, 1) for name in names), alone=alone)


def test_each_passage_has_the_prompt_that_it_has_when_packed_alone():
    passages = [passage(name) for name in "abc"]
    [made] = EachPacker(greedy(max_passages=3)).pack([WHO], [passages])
    assert list(made.alone) == [greedy().pack([WHO], [[one]])[0] for one in passages]
    assert made.passage_ids == ("a", "b", "c")
    assert made.n_tokens == sum(one.n_tokens for one in made.alone)
    assert made.question == WHO
    assert isinstance(EachPacker(greedy()), Packer)


def test_no_more_passages_are_read_than_packing_allows():
    names = "abcd"
    [made] = EachPacker(greedy(max_passages=2)).pack([WHO], [[passage(name) for name in names]])
    assert made.passage_ids == ("a", "b")
    assert made.dropped == (Dropped("c", "limit", 0), Dropped("d", "limit", 0))
    [whole] = EachPacker(greedy()).pack([WHO], [[passage(name) for name in names]])
    assert whole.passage_ids == tuple(names)


def test_a_window_for_one_passage_reads_them_all():
    assert greedy(9).pack([WHO], [[passage("a"), passage("b")]])[0].passage_ids == ("a",)
    [made] = EachPacker(greedy(9)).pack([WHO], [[passage("a"), passage("b")]])
    assert made.passage_ids == ("a", "b")


def test_what_is_empty_said_twice_or_too_long_for_any_prompt_is_not_read():
    said = [passage("a"), passage("b", "The text, of A!"), passage("c", " "), passage("d")]
    [made] = EachPacker(greedy(max_passages=2)).pack([WHO], [said])
    assert made.passage_ids == ("a", "d")
    assert {(one.passage_id, one.reason) for one in made.dropped} == {
        ("b", "duplicate"), ("c", "empty")
    }  # fmt: skip
    long = Passage("long", "a title of very many words", "and text")
    [made] = EachPacker(greedy(6)).pack([WHO], [[long, Passage("short", "T", "x")]])
    assert made.passage_ids == ("short",)
    assert [(one.passage_id, one.reason) for one in made.dropped] == [("long", "budget")]


def test_a_question_without_passages_is_closed_book_in_the_middle_of_a_batch():
    questions = [Question(str(n), f"who {n}") for n in range(3)]
    first, second, third = EachPacker(greedy()).pack(
        questions, [[passage("a")], [], [passage("b"), passage("c")]]
    )
    assert [one.question for one in (first, second, third)] == questions
    assert (second.alone, second.prompt) == ((), TEMPLATE.write(questions[1], ()))
    assert (first.passage_ids, third.passage_ids) == (("a",), ("b", "c"))


def test_a_question_that_does_not_fit_is_refused_as_ever():
    with pytest.raises(InputError, match="Question 'q' takes"):
        EachPacker(greedy(6)).pack([Question("q", "why " * 9)], [[passage("a")]])


def test_a_batch_packs_as_one_by_one():
    questions = [Question(str(n), f"who {n}") for n in range(4)]
    passages = [[passage(f"{n}{name}") for name in "abc"[:n]] for n in range(4)]
    packer = EachPacker(greedy(max_passages=2))
    alone = [packer.pack([q], [p])[0] for q, p in zip(questions, passages, strict=True)]
    assert packer.pack(questions, passages) == alone


def test_a_passage_counts_the_softmax_of_its_weighted_score():
    weighed = PassagePrior("dense", 20.0)(
        context("a", "b", "c"), {"dense": (Hit("b", 0.6), Hit("a", 0.5), Hit("x", 0.4))}
    )
    powers = [math.exp(20 * score) for score in (0.5, 0.6, 0.4)]  # c is not ranked: the lowest
    wanted = [power / sum(powers) for power in powers]
    assert [math.exp(one.logprior) for one in weighed.alone] == pytest.approx(wanted, abs=1e-12)
    assert [one.prompt for one in weighed.alone] == ["a", "b", "c"]


def test_without_weight_or_scores_all_passages_count_the_same():
    rankings = {"dense": (Hit("a", 9.0),), "bm25": ()}
    for prior in (PassagePrior("dense", 0.0), PassagePrior("bm25", 5.0)):
        weighed = prior(context("a", "b"), rankings)
        assert [math.exp(one.logprior) for one in weighed.alone] == pytest.approx([0.5, 0.5])


def test_one_passage_counts_all_whatever_scored_it():
    for made in (context("a"), replace(context("a"), alone=())):
        assert PassagePrior("dense", 20.0)(made, {}) == made


def test_a_stage_that_did_not_rank_is_told_with_those_that_did():
    rankings = {"retrieve": (Hit("a", 1.0),), "rerank": ()}
    with pytest.raises(InputError, match=r"no scores of the stage dense.*retrieve, rerank"):
        PassagePrior("dense", 1.0)(context("a", "b"), rankings)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.randoms())
def test_priors_sum_to_one_in_any_order_and_do_not_see_a_common_shift(values, random):
    made = log_softmax(values)
    assert math.fsum(map(math.exp, made)) == pytest.approx(1.0, abs=1e-12)
    shuffled = [*values]
    random.shuffle(shuffled)
    assert sorted(log_softmax(shuffled)) == sorted(made)
    assert log_softmax([value + 1e6 for value in values]) == pytest.approx(made, abs=1e-8)
