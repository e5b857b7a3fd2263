"""The one place where embeddings are joined: padding never comes between prompt and tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import InputError
from rag_frozen.prompting.inject import (
    SoftPrompts,
    prepend_to_left_padded,
    prepend_to_right_padded,
)
from rag_frozen.reader.prefix_lm import PrefixLM, PrefixLMConfig, prefix_mask
from tests.tiny import save_bart, save_gpt2, save_llama, save_t5

shapes = st.tuples(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(0, 5))


def rows(lengths: list[int], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    size = max(lengths)
    embeds, mask = torch.full((len(lengths), size, 2), -9.0), torch.zeros(len(lengths), size).long()
    for row, length in enumerate(lengths):
        place = slice(size - length, size) if left else slice(0, length)
        embeds[row, place] = torch.arange(length).float()[:, None] + 10 * row
        mask[row, place] = 1
    return embeds, mask


@given(shapes)
def test_the_soft_prompt_touches_the_first_real_token(shape):
    lengths, n = shape
    soft = torch.rand(len(lengths), n, 2)
    embeds, mask = rows(lengths, left=True)
    joined, seen = prepend_to_left_padded(soft, embeds, mask)
    right, _ = rows(lengths, left=False)
    joined_right, new_lengths = prepend_to_right_padded(soft, right, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        wanted = torch.cat([soft[row], right[row, :length]])
        assert torch.equal(joined[row, -(n + length) :], wanted)
        assert seen[row].tolist() == [0] * (max(lengths) - length) + [1] * (n + length)
        assert torch.equal(joined_right[row, : n + length], wanted)
        assert int(new_lengths[row]) == n + length


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 5)), min_size=1, max_size=5))
def test_rows_may_carry_soft_prompts_of_different_lengths(pairs):
    lengths, own = [length for length, _ in pairs], [n for _, n in pairs]
    soft = torch.rand(len(pairs), max(own), 2)
    prompts = SoftPrompts(soft, torch.tensor(own))
    embeds, mask = rows(lengths, left=True)
    right, _ = rows(lengths, left=False)
    joined, seen = prepend_to_left_padded(prompts, embeds, mask)
    joined_right, new_lengths = prepend_to_right_padded(prompts, right, torch.tensor(lengths))
    for row, (length, n) in enumerate(pairs):
        wanted = torch.cat([soft[row, :n], right[row, :length]])
        assert torch.equal(joined[row, joined.shape[1] - n - length :], wanted)
        assert int(seen[row].sum()) == n + length
        assert seen[row].sort().values.tolist() == seen[row].tolist()
        assert torch.equal(joined_right[row, : n + length], wanted)
        assert int(new_lengths[row]) == n + length


def test_a_prompt_of_another_width_or_batch_is_refused():
    embeds, mask = rows([2, 3], left=True)
    for shape in ((2, 4, 3), (1, 4, 2)):
        with pytest.raises(InputError, match="does not fit"):
            prepend_to_left_padded(torch.zeros(shape), embeds, mask)


FRONT = [7, 9, 11]
ROWS = [[20], [21, 22, 23, 24, 25, 26], [30, 31, 32]]


def soft_prompt(table: torch.nn.Module) -> torch.Tensor:
    """``[3, 3, E]``: what the model's own tokens look like to it."""
    vectors: torch.Tensor = table(torch.tensor([FRONT] * len(ROWS)))
    return vectors


def padded(*, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = torch.full((3, 6), 40), torch.zeros(3, 6).long()
    for number, row in enumerate(ROWS):
        place = slice(6 - len(row), 6) if left else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    return ids, mask


@pytest.mark.parametrize("save", [save_llama, save_gpt2])
@pytest.mark.parametrize("left", [True, False])
@torch.inference_mode()
def test_a_decoder_reads_a_soft_prompt_of_real_embeddings_as_those_tokens(tmp_path, save, left):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(save(tmp_path)).eval()
    table = model.get_input_embeddings()
    ids, mask = padded(left=left)
    if left:
        embeds, seen = prepend_to_left_padded(soft_prompt(table), table(ids), mask)
    else:
        embeds, lengths = prepend_to_right_padded(soft_prompt(table), table(ids), mask.sum(dim=1))
        seen = (torch.arange(embeds.shape[1])[None] < lengths[:, None]).long()
    positions = (seen.cumsum(dim=1) - 1).clamp(min=0)
    logits = model(inputs_embeds=embeds, attention_mask=seen, position_ids=positions).logits
    for number, row in enumerate(ROWS):
        wanted = model(input_ids=torch.tensor([FRONT + row])).logits[0]
        assert torch.allclose(logits[number][seen[number] == 1], wanted, atol=1e-4)
        without = model(input_ids=torch.tensor([row])).logits[0]
        assert not torch.allclose(logits[number][seen[number] == 1][-1], without[-1], atol=1e-2)


@pytest.mark.parametrize("save", [save_t5, save_bart])
@torch.inference_mode()
def test_an_encoder_reads_a_soft_prompt_of_real_embeddings_as_those_tokens(tmp_path, save):
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(save(tmp_path)).eval()
    table = model.get_input_embeddings()
    ids, mask = padded(left=False)
    embeds, lengths = prepend_to_right_padded(soft_prompt(table), table(ids), mask.sum(dim=1))
    seen = (torch.arange(embeds.shape[1])[None] < lengths[:, None]).long()
    answer = torch.tensor([[0, 5, 6]])
    logits = model(
        inputs_embeds=embeds, attention_mask=seen, decoder_input_ids=answer.expand(3, -1)
    ).logits
    for number, row in enumerate(ROWS):
        wanted = model(input_ids=torch.tensor([FRONT + row]), decoder_input_ids=answer).logits[0]
        assert torch.allclose(logits[number], wanted, atol=1e-4)
        without = model(input_ids=torch.tensor([row]), decoder_input_ids=answer).logits[0]
        assert not torch.allclose(logits[number], without, atol=1e-2)


@torch.inference_mode()
def test_the_prefix_lm_reads_a_soft_prompt_of_real_embeddings_as_those_tokens():
    torch.manual_seed(0)
    model = PrefixLM(PrefixLMConfig(60, 32, 2, 4, 48, 64)).eval()

    def states(embeds: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(embeds.shape[1]).expand(len(embeds), -1)
        mask = prefix_mask(lengths, lengths, embeds.shape[1])
        types = torch.zeros_like(positions)
        return model.logits(model(embeds, mask, position_ids=positions, type_ids=types)[0])

    table = model.word_embeddings
    ids, real = padded(left=False)
    found = states(*prepend_to_right_padded(soft_prompt(table), table(ids), real.sum(dim=1)))
    for number, row in enumerate(ROWS):
        tokens = torch.tensor([FRONT + row])
        wanted = states(table(tokens), torch.tensor([tokens.shape[1]]))[0]
        assert torch.allclose(found[number, : tokens.shape[1]], wanted, atol=1e-4)


def test_a_soft_prompt_takes_the_embeddings_type_and_carries_gradients():
    soft = torch.randn(3, 2, 4, requires_grad=True)
    embeds, mask = torch.zeros(3, 6, 4, dtype=torch.bfloat16), padded(left=True)[1]
    joined, _ = prepend_to_left_padded(soft, embeds, mask)
    assert joined.dtype == torch.bfloat16
    joined.float().sum().backward()
    assert soft.grad is not None
    assert torch.equal(soft.grad, torch.ones_like(soft))
