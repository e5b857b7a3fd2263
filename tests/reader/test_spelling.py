"""Answers in the passage's own spelling, and where they stand in it."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
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


@pytest.mark.parametrize(
    ("decoded", "text"),
    [
        ("12 , 345 , 678", "12,345,678"),
        ("july 4 , 1776", "july 4, 1776"),
        ("in 1998 , 2000 and 2002", "in 1998, 2000 and 2002"),
        ("10 : 30 / 3 . 5 %", "10:30/3.5%"),
        ("don ' t", "don't"),
        ("shi ' ite", "shi'ite"),
        ("rock ' n ' roll", "rock'n'roll"),
        ("the ' beatles ' album", "the ' beatles' album"),
    ],
)
def test_tidying_guesses_what_stood_there(decoded, text):
    assert tidy(decoded) == text


@given(st.text("ab's1,3.–-( )%’", max_size=30))
def test_tidying_changes_white_space_alone_and_settles_at_once(text):
    tidied = tidy(text)
    assert tidied.replace(" ", "") == text.replace(" ", "")
    assert tidy(tidied) == tidied


def test_an_accent_of_its_own_belongs_to_its_letter():
    apart = unicodedata.normalize("NFD", "Café, cafés")
    assert [apart[start:end] for start, end in occurrences("café", apart)] == [apart[:5]]
    assert [apart[start:end] for start, end in occurrences("cafe", apart)] == [apart[:5]]
    assert spelled("cafe", prompt=apart) == apart[:5]


@given(st.text("xyz \n.(", max_size=9), st.lists(st.text("abÉß1", min_size=1), min_size=1))
def test_an_answer_between_spaces_is_found_in_any_case_and_spacing(around, words):
    text = f"{around} {'  '.join(words)}\n{around}"
    start = len(around) + 1
    wanted = (start, start + len("  ".join(words)))
    for answer in (" ".join(words), "\t".join(words).swapcase(), " ".join(words).casefold()):
        assert occurrences(answer, text) == (wanted,)


def test_a_sign_at_an_answers_edge_needs_no_space():
    assert occurrences("$5", "US$5 and $50") == ((2, 4),)
    assert occurrences("C++", "C++11, C++") == ((0, 3), (7, 10))


def test_occurrences_find_every_whole_word():
    assert occurrences("nile", "The Nile; nile, Niles") == ((4, 8), (10, 14))
    assert occurrences("", "text") == ()
