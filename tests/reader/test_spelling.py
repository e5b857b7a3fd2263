"""Answers in the passage's own spelling, and where they stand in it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.reader.spelling import occurrences, passage_spelling, tidy
from tests.tiny import wordpiece

PROMPT = "question: who is rontgen? passage: In 1895 Röntgen, aged 50, sold 283,846 rays; rayson"


def spelled(answer: str, *, after: int = 0, prompt: str = PROMPT) -> str | None:
    made = wordpiece()
    encoding = made.encode(prompt)
    ids = made.encode(answer, add_special_tokens=False).ids
    return passage_spelling(ids, prompt, encoding.ids, encoding.offsets, after=after)


def test_accents_case_and_commas_come_back():
    after = PROMPT.index("passage")
    assert spelled("rontgen", after=after) == "Röntgen"
    assert spelled("283,846", after=after) == "283,846"


def test_the_question_does_not_count():
    assert spelled("rontgen") == "rontgen"
    assert spelled("rontgen", after=PROMPT.index("passage")) == "Röntgen"


def test_pieces_of_words_do_not_count():
    assert spelled("ray") is None
    assert spelled("zebra") is None


@given(st.lists(st.sampled_from(["Müller", "radium", "of", "1898", "Curie"]), min_size=1))
def test_any_run_of_whole_words_is_found(words):
    prompt = " ".join(words)
    assert spelled(prompt.upper(), prompt=prompt) == prompt


def test_tidying_joins_what_word_pieces_parted():
    assert tidy("283 , 846") == "283,846"
    assert tidy("jean - luc's  ( actor )") == "jean-luc's (actor)"
    assert tidy("u . s .") == "u. s."


@given(st.text("abcé ÉB\n", max_size=20), st.text("abcé ÉB\n", max_size=40))
def test_occurrences_are_ranges_in_order_that_hold_the_answer(answer, text):
    ranges = occurrences(answer, text)
    assert all(0 <= start < end <= len(text) for start, end in ranges)
    assert all(a[1] <= b[0] for a, b in pairwise(ranges))
    fold = str.maketrans("éÉ", "ee")
    for start, end in ranges:
        found = " ".join(text[start:end].lower().translate(fold).split())
        assert found == " ".join(answer.lower().translate(fold).split())


def test_occurrences_find_every_whole_word():
    assert occurrences("nile", "The Nile; nile, Niles") == ((4, 8), (10, 14))
    assert occurrences("", "text") == ()
