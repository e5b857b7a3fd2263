"""Packing: the budget always holds, whole passages only, and a receipt that adds up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import InputError
from rag_frozen.packing.packer import GreedyPacker, PackingBudget
from rag_frozen.packing.template import PromptTemplate
from rag_frozen.types import Passage, Question, Quotable

TEMPLATE = PromptTemplate(
    with_passages="question: {question}\n{passages}",
    passage="passage: {title}. {text}\n",
    closed_book="question: {question}\n",
)
QUESTION = Question("q", "who wrote hamlet")


def count_words(texts: Sequence[str]) -> list[int]:
    """A tokenizer of words with two special tokens a prompt."""
    return [len(text.split()) + 2 for text in texts]


def count_merging(texts: Sequence[str]) -> list[int]:
    """A tokenizer whose pieces are shorter alone than together: one more token a line break."""
    return [len(text.split()) + 2 + max(0, text.count("\n") - 1) for text in texts]


def packer(window: int, **options: object) -> GreedyPacker:
    return GreedyPacker(
        TEMPLATE,
        PackingBudget(window, answer=4),
        count_tokens=count_words,
        **options,  # type: ignore[arg-type]
    )


def passage(name: str, n_words: int, *, sentence: int = 5) -> Passage:
    words = [f"{name}{i}" + ("." if i % sentence == sentence - 1 else "") for i in range(n_words)]
    return Passage(name, f"T{name}", " ".join(words))


words = st.lists(st.sampled_from(["red", "blue.", "green", "four five.", "six"]), max_size=40)
passages = st.lists(st.tuples(st.sampled_from("abcdefgh"), words.map(" ".join)), max_size=8).map(
    lambda rows: [Passage(name, "T", text) for name, text in rows]
)


@given(
    candidates=passages,
    window=st.integers(12, 120),
    limit=st.none() | st.integers(0, 4),
    order=st.sampled_from(["best_first", "best_last"]),
    counter=st.sampled_from([count_words, count_merging]),
)
def test_the_budget_always_holds_and_every_candidate_is_accounted_for(
    candidates, window, limit, order, counter
):
    budget = PackingBudget(window, soft_prompt=1, answer=2)
    packing = GreedyPacker(TEMPLATE, budget, count_tokens=counter, max_passages=limit, order=order)
    [context] = packing.pack([QUESTION], [candidates])
    assert context.n_tokens == counter([context.prompt])[0]
    assert context.n_tokens + budget.soft_prompt + budget.answer <= window
    assert limit is None or len(context.kept) <= limit
    told = sorted([*context.passage_ids, *(d.passage_id for d in context.dropped)])
    assert told == sorted(p.id for p in candidates)
    assert QUESTION.text in context.prompt
    for kept in context.kept:
        text = next(p.text for p in candidates if p.id == kept.passage_id and p.text.strip())
        assert kept.cut or text in context.prompt


def test_passages_are_kept_whole_in_descending_order_until_one_does_not_fit():
    # frame 4 + 2 special; each passage its words + 2
    context = packer(30).pack([QUESTION], [[passage("a", 8), passage("b", 9), passage("c", 1)]])[0]
    assert context.passage_ids == ("a",)
    assert [(d.passage_id, d.reason) for d in context.dropped] == [("b", "budget"), ("c", "budget")]
    context = packer(31).pack([QUESTION], [[passage("a", 8), passage("b", 9), passage("c", 1)]])[0]
    assert context.passage_ids == ("a", "b")


def test_the_first_passage_is_cut_at_a_sentence_when_it_alone_does_not_fit():
    context = packer(23).pack([QUESTION], [[passage("a", 50), passage("b", 2)]])[0]
    assert [(k.passage_id, k.cut) for k in context.kept] == [("a", True)]
    assert context.prompt.rstrip().endswith("a9.")
    assert context.n_tokens <= 19


def test_a_first_passage_of_one_endless_sentence_is_cut_between_words():
    context = packer(20).pack([QUESTION], [[passage("a", 50, sentence=99)]])[0]
    assert context.kept[0].cut
    assert context.n_tokens == 16


def test_duplicates_are_dropped_by_id_and_by_text():
    same = Passage("other-id", "Ta", passage("a", 8).text.upper())
    context = packer(200).pack([QUESTION], [[passage("a", 8), passage("a", 8), same]])[0]
    assert context.passage_ids == ("a",)
    assert [(d.passage_id, d.reason) for d in context.dropped] == [
        ("a", "duplicate"),
        ("other-id", "duplicate"),
    ]


def test_best_last_puts_the_best_passage_next_to_the_end():
    candidates = [passage("a", 3), passage("b", 3)]
    assert packer(99).pack([QUESTION], [candidates])[0].passage_ids == ("a", "b")
    assert packer(99, order="best_last").pack([QUESTION], [candidates])[0].passage_ids == ("b", "a")


def test_a_limit_drops_the_rest_and_says_so():
    context = packer(99, max_passages=1).pack([QUESTION], [[passage("a", 3), passage("b", 3)]])[0]
    assert [(d.passage_id, d.reason) for d in context.dropped] == [("b", "limit")]


def test_no_passage_gives_the_closed_book_prompt():
    assert packer(99).pack([QUESTION], [[]])[0].prompt == "question: who wrote hamlet\n"


def test_a_question_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="Shorten the question"):
        packer(20).pack([Question("q", "why " * 30)], [[passage("a", 3)]])


def test_a_window_without_room_is_refused():
    with pytest.raises(InputError, match="no room"):
        GreedyPacker(TEMPLATE, PackingBudget(10, soft_prompt=8, answer=4), count_tokens=count_words)


def test_tokens_of_candidates_that_cannot_be_kept_are_not_counted():
    counted: list[str] = []

    def count(texts: Sequence[str]) -> list[int]:
        counted.extend(texts)
        return [len(text.split()) for text in texts]

    passages = [Passage(f"p{n}", "t", f"word {n} " * 5) for n in range(100)]
    template = PromptTemplate(with_passages="{question} {passages}", passage="{title} {text} ")
    limited = GreedyPacker(template, PackingBudget(400), count_tokens=count, max_passages=2)
    [context] = limited.pack([Question("1", "who")], [passages])
    assert len(context.kept) == 2
    assert {(one.reason, one.n_tokens) for one in context.dropped} == {("limit", 0)}
    assert len(counted) == 3 + 2 + 1  # the frame, the two that are kept, the whole prompt
    counted.clear()
    unlimited = GreedyPacker(template, PackingBudget(80), count_tokens=count)
    [context] = unlimited.pack([Question("1", "who")], [passages])
    assert len(context.kept) == 5
    assert len(counted) < 20
    assert sum(one.n_tokens == 0 for one in context.dropped) == 92


def test_answers_are_free_unless_they_are_to_be_quoted():
    [context] = packer(60).pack([QUESTION], [[passage("a", 8)]])
    assert context.quotable is None
    [closed] = packer(60, quoted=("yes",)).pack([QUESTION], [[]])
    assert closed.quotable is None  # nothing to quote from


def test_what_may_be_quoted_is_what_was_packed_as_far_as_it_stands_in_the_prompt():
    first, second = passage("a", 8), passage("b", 5)
    untitled = Passage("c", "", "one two")
    quoting = packer(60, quoted=("yes", "no"), max_passages=3)
    [context] = quoting.pack([QUESTION], [[first, second, untitled, passage("d", 2)]])
    assert context.quotable == Quotable(
        ("Ta", first.text, "Tb", second.text, "one two"), ("yes", "no")
    )
    [cut] = packer(26, quoted=()).pack([QUESTION], [[passage("a", 20)]])
    assert cut.kept[0].cut
    assert cut.quotable is not None
    title, text = cut.quotable.texts
    assert title == "Ta"
    assert 0 < len(text) < len(passage("a", 20).text)
    assert text in cut.prompt
    assert cut.quotable.also == ()
