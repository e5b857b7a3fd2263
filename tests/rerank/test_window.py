"""Pairs that fit a window: passages are cut, questions are not."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.rerank.window import fit_pairs
from tests.tiny import WORDS, wordpiece

TOKENIZER = wordpiece()
WINDOW = 40
ROOM = WINDOW - 3  # [CLS], [SEP], [SEP]

texts = st.lists(st.sampled_from([*WORDS, "zebra", "won't", "3,14"]), min_size=1, max_size=90)


def as_read(pair: tuple[str, str]) -> tuple[list[str], list[str]]:
    """Tokens of question and passage as a cross-encoder's tokenizer cuts them."""
    cutting = wordpiece()
    cutting.enable_truncation(WINDOW)
    encoding = cutting.encode(*pair)
    assert len(encoding.ids) <= WINDOW
    rows = list(zip(encoding.tokens, encoding.type_ids, strict=True))
    question = [token for token, kind in rows if kind == 0][1:-1]
    return question, [token for token, kind in rows if kind == 1][:-1]


def tokens(text: str) -> list[str]:
    return TOKENIZER.encode(text, add_special_tokens=False).tokens


@given(texts, texts)
def test_a_question_of_up_to_three_quarters_is_read_whole_and_the_window_is_filled(ask, say):
    question, passage = " ".join(ask), " ".join(say)
    [fitted] = fit_pairs([(question, passage)], TOKENIZER, window=WINDOW)
    read_question, read_passage = as_read(fitted)
    limit = ROOM - ROOM // 4
    assert read_question == tokens(question)[: len(read_question)]
    assert read_passage == tokens(passage)[: len(read_passage)]
    if len(tokens(question)) <= limit:
        assert read_question == tokens(question)
    whole = len(tokens(passage)) == len(read_passage)
    assert whole or len(read_question) + len(read_passage) > ROOM - 10  # cuts fall between words


def test_short_questions_leave_their_pairs_as_they_are():
    pairs = [("who wrote hamlet", "the nile is long " * 30), ("when", "")]
    assert fit_pairs(pairs, TOKENIZER, window=WINDOW) == pairs
    assert fit_pairs([], TOKENIZER, window=WINDOW) == []


def test_a_question_of_ten_thousand_words_is_cut_once_with_a_warning(caplog):
    question = "who wrote hamlet " * 3_334
    pairs = [(question, "a play of shakespeare"), (question, "the river nile"), ("who", "king")]
    with caplog.at_level(logging.WARNING):
        fitted = fit_pairs(pairs, TOKENIZER, window=WINDOW)
    assert [record.getMessage().split(" is longer")[0] for record in caplog.records] == [
        "A question of 10002 tokens"
    ]
    assert fitted[2] == pairs[2]
    for (_, passage), pair in zip(pairs[:2], fitted[:2], strict=True):
        assert as_read(pair) == (tokens(question)[: ROOM - ROOM // 4], tokens(passage))


def test_one_endless_word_is_cut_within(caplog):
    [(question, _)] = fit_pairs([("z" * 90, "king")], TOKENIZER, window=WINDOW)
    assert question == "z" * (ROOM - ROOM // 4)


@pytest.mark.parametrize("window", [5, 8, 16])
def test_even_a_tiny_window_keeps_some_of_both(window):
    pair = ("who wrote the play of the king", "shakespeare wrote the play in london")
    [(question, passage)] = fit_pairs([pair], TOKENIZER, window=window)
    assert question.startswith("who")
    assert passage.startswith("shakespeare")
    assert len(TOKENIZER.encode(question, passage).ids) <= window
