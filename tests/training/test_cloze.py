"""Cloze questions: the answer stands in the text and not in the question."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.training.cloze import crop_around, make_cloze

TEXT = (
    "Marie Curie was born in Warsaw on 7 November 1867. She discovered polonium and radium with "
    "Pierre Curie in 1898. The Sorbonne made her its first woman professor. Her laboratory held "
    "more than 1,500 flasks, and it stood in the Rue Cuvier near the gardens of Paris."
)


@given(st.integers(0, 5_000))
def test_a_cloze_answer_stands_in_the_text_and_not_in_the_question(seed):
    made = make_cloze("Marie Curie", TEXT, random.Random(seed))
    if made is None:
        return
    assert TEXT[made.start : made.start + len(made.answer)] == made.answer
    assert made.answer.lower() not in made.question.lower()
    assert len(made.question.split()) >= 3


def test_the_same_seed_gives_the_same_cloze_and_seeds_differ():
    made = [make_cloze("Marie Curie", TEXT, random.Random(seed)) for seed in range(30)]
    assert made == [make_cloze("Marie Curie", TEXT, random.Random(seed)) for seed in range(30)]
    answers = {cloze.answer for cloze in made if cloze}
    assert len(answers) > 5
    assert answers & {"1898", "7 November 1867", "Warsaw", "Pierre Curie"}


def test_a_text_without_sentences_gives_none():
    assert make_cloze("X", "too short.", random.Random(0)) is None


@given(
    words=st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=60),
    data=st.data(),
    n_words=st.integers(1, 70),
)
def test_a_crop_holds_the_answer_and_is_a_piece_of_the_text(words, data, n_words):
    text = " ".join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    start = len(" ".join(words[:first])) + (first > 0)
    end = start + len(" ".join(words[first : last + 1]))
    cropped = crop_around(text, start, end, n_words=n_words, rng=random.Random(1))
    assert cropped in text
    assert text[start:end] in cropped
    assert len(cropped.split()) == max(min(n_words, len(words)), last - first + 1)
