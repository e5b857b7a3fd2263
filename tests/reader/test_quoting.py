"""Only runs of whole words of the given texts can be written."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rag_frozen.errors import ModelError
from rag_frozen.reader.decoding import Decoding, decode
from rag_frozen.reader.prefix_lm import PrefixLM, PrefixLMConfig
from rag_frozen.reader.prompt_tokens import PromptTokens
from rag_frozen.reader.quoting import (
    QuotedAnswers,
    TokenPiece,
    allow_quoted,
    token_piece,
    whole_piece,
)

words = st.lists(st.lists(st.integers(5, 12), min_size=1, max_size=3), min_size=1, max_size=8)


def piece_of(text: list[list[int]]) -> TokenPiece:
    """A text of words of several tokens each."""
    ids = [token for word in text for token in word]
    begins = [place == 0 for word in text for place in range(len(word))]
    return TokenPiece(tuple(ids), tuple(begins), (*begins[1:], True), (True,) * len(ids))


def runs(text: list[list[int]]) -> set[tuple[int, ...]]:
    return {
        tuple(token for word in text[start:stop] for token in word)
        for start in range(len(text))
        for stop in range(start + 1, len(text) + 1)
    }


@given(st.lists(words, min_size=1, max_size=3), st.integers(0, 2**32))
def test_every_path_is_a_run_of_whole_words_and_every_run_a_path(texts, seed):
    answers = QuotedAnswers([piece_of(text) for text in texts])
    wanted = set().union(*(runs(text) for text in texts))
    rng = random.Random(seed)
    written: tuple[int, ...] = ()
    while True:
        tokens, may_end = answers.following(written)
        if written:
            assert may_end == (written in wanted)
        if not tokens:
            assert may_end
            break
        written = (*written, rng.choice(tokens))
    for run in wanted:
        assert all(run[at] in answers.following(run[:at])[0] for at in range(len(run)))
        assert answers.following(run)[1]


def test_an_answer_may_be_empty_and_what_is_no_quotation_can_only_end():
    answers = QuotedAnswers([whole_piece([7, 8])])
    assert answers.following(()) == ((7,), True)
    assert answers.following((7,)) == ((8,), False)
    assert answers.following((5, 5)) == ((), True)


def test_a_word_of_several_tokens_begins_and_ends_as_a_whole_with_its_accents():
    text = "Gödel's 283,846 café́s"
    offsets = [(0, 2), (2, 5), (5, 6), (6, 7), (8, 11), (11, 12), (12, 15), (16, 20), (21, 22)]
    piece = token_piece(text, range(9), offsets)
    assert piece.starts == (True, False, True, True, True, True, True, True, False)
    assert piece.ends == (False, True, True, True, True, True, True, False, True)


def test_a_full_stop_alone_is_no_answer_but_may_stand_before_or_behind_one():
    text = ". $ 5 ."
    piece = token_piece(text, [1, 2, 3, 1], [(0, 1), (2, 3), (4, 5), (6, 7)])
    answers = QuotedAnswers([piece])
    assert answers.following(()) == ((1, 2, 3), True)
    assert answers.following((1,)) == ((2,), False)
    assert answers.following((2, 3)) == ((1,), True)
    assert answers.following((3, 1)) == ((), True)
    assert QuotedAnswers([token_piece("...", [1], [(0, 3)])]).following(()) == ((), True)
    assert QuotedAnswers([whole_piece([1])]).following((1,)) == ((), True)


def test_tokens_that_share_a_character_stay_together():
    piece = token_piece("a 日b", [1, 2, 3, 4], [(0, 1), (1, 3), (2, 3), (3, 4)])
    assert piece.starts == (True, True, False, False)  # two tokens are the bytes of one letter
    assert piece.ends == (True, False, False, True)


def test_what_was_ruled_out_before_stays_so_but_a_quotation_can_always_end():
    scores = torch.arange(10.0)[None].repeat(3, 1)
    before = scores.clone()
    before[:, 3] = -torch.inf  # the end
    answers = QuotedAnswers([whole_piece([7, 8])])
    written = [(), (7, 8), ()]
    made = allow_quoted(scores, before, [answers, answers, None], written, ends=[3])
    assert made[0].isfinite().nonzero().tolist() == [[7]]
    assert made[1].isfinite().nonzero().tolist() == [[3]]
    assert torch.equal(made[2], before[2])
    assert torch.equal(before[0, 7:], scores[0, 7:])  # what was given is not written into


@pytest.mark.parametrize("kind", ["greedy", "beam", "sample"])
def test_quoted_rows_and_free_ones_share_a_batch_and_quotations_keep_the_models_probability(kind):
    torch.manual_seed(0)
    model = PrefixLM(PrefixLMConfig(60, 32, 2, 4, 48, 96)).eval()
    rows = [[2, 20, 21, 22, 23, 3], [2, 30, 3], [2, 20, 21, 22, 23, 3]]
    text = [[20, 21], [22], [23]]
    quoted = [QuotedAnswers([piece_of(text)]), None, QuotedAnswers([piece_of([[41], [42]])])]
    decoding = Decoding(kind, 6, n_beams=3, min_new_tokens=1)
    options = {"decoding": decoding, "start_id": 2, "end_id": 3, "pad_id": 0}
    together = decode(model, rows, quoted=quoted, seeds=[1, 2, 3], **options)
    assert together[0].token_ids in runs(text)
    assert together[2].token_ids in {(41,), (42,), (41, 42)}
    assert together[0].ended
    for row in range(3):
        [alone] = decode(
            model, rows[row : row + 1], quoted=[quoted[row]], seeds=[row + 1], **options
        )
        assert alone.token_ids == together[row].token_ids
        assert alone.logprob == pytest.approx(together[row].logprob, abs=1e-4)
    [free] = decode(model, rows[1:2], seeds=[2], **options)
    assert free.token_ids == together[1].token_ids
    # One token alone may be written: its probability is still that among all tokens.
    one = QuotedAnswers([whole_piece([41])])
    [forced] = decode(model, rows[:1], quoted=[one], seeds=[1], **options)
    assert forced.token_ids == (41,)
    assert forced.logprob < -1.0


def spaced_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, in which a word behind a space is another token than one without."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = ["the river Nile flows north to Cairo", "Nile Cairo river Röntgen 日本"]
    tokenizer.train_from_iterator(lines * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def test_where_tokens_hold_their_spaces_an_answer_may_begin_with_and_without_one():
    tokenizer = spaced_tokenizer()
    tokens = PromptTokens(tokenizer, name="tiny")
    answers = tokens.quoted(["the river Nile flows (north) to Röntgen 日本"], ["yes"])
    for text in (
        "Nile flows",
        " Nile flows",
        "north",
        "Röntgen",
        " Röntgen 日本",
        "日本",
        "yes",
        " yes",
    ):
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        for at in range(len(ids)):
            assert ids[at] in answers.following(ids[:at])[0], (text, at)
        assert answers.following(ids)[1], text
    space = tokenizer(" ", add_special_tokens=False)["input_ids"]
    assert not answers.following(tuple(space))[1] or not answers.following(tuple(space))[0]


def test_a_tokenizer_without_places_is_refused_with_what_to_do():
    class Slow:
        """A tokenizer of transformers that is written in Python."""

        is_fast = False

        def __init__(self) -> None:
            self.own = spaced_tokenizer()

        def __getattr__(self, name: str):
            return getattr(self.own, name)

        def __call__(self, *arguments, **options):
            return self.own(*arguments, **options)

    with pytest.raises(ModelError, match=r"cannot be quoted. Set answers=\{kind: free\}"):
        PromptTokens(Slow(), name="slow").quoted(["the Nile"], [])
