"""The prefix language model against transformers' BERT, and its weights on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import ArtifactDamagedError, FrozenWeightsChangedError, ModelError
from rag_frozen.models.rounding import dequantize_rows, quantize_rows
from rag_frozen.reader.freezing import freeze, verify_frozen, weights_digest
from rag_frozen.reader.prefix_lm import PrefixLMConfig, prefix_mask
from rag_frozen.reader.prefix_lm_weights import (
    as_bert,
    begin_from_minilm,
    load_prefix_lm,
    save_trained,
)
from rag_frozen.reader.weight_difference import pack_six_bits, unpack_six_bits
from tests.tiny import save_bert, wordpiece

CONFIG = PrefixLMConfig(wordpiece().get_vocab_size(), 32, 2, 4, 48, 300)


def test_a_source_alone_gets_the_encoders_own_states(tmp_path: Path):
    from transformers import BertModel

    save_bert(tmp_path)
    ours, theirs = begin_from_minilm(tmp_path, CONFIG).eval(), BertModel.from_pretrained(tmp_path)
    ids = torch.randint(5, 60, (3, 11))
    lengths = torch.tensor([11, 4, 7])
    real = (torch.arange(11)[None] < lengths[:, None]).long()
    mask = prefix_mask(lengths, lengths, 11)
    positions = torch.arange(11).expand(3, -1)
    with torch.inference_mode():
        states, _ = ours(
            ours.word_embeddings(ids), mask, position_ids=positions,
            type_ids=torch.zeros_like(ids),
        )  # fmt: skip
        wanted = theirs.eval()(input_ids=ids, attention_mask=real).last_hidden_state
    for row, length in enumerate(lengths):
        assert torch.allclose(states[row, :length], wanted[row, :length], atol=1e-5)


def test_the_head_begins_as_the_nearest_word(tmp_path: Path):
    model = begin_from_minilm(save_bert(tmp_path), CONFIG)
    words = torch.nn.functional.layer_norm(model.word_embeddings.weight, (32,))
    model.word_embeddings.weight = torch.nn.Parameter(words)
    assert torch.equal(model.logits(words[10:20]).argmax(dim=1), torch.arange(10, 20))


def test_positions_past_the_encoders_table_repeat_it(tmp_path: Path):
    table = begin_from_minilm(save_bert(tmp_path), CONFIG).position_embeddings.weight
    assert torch.equal(table[128:256], table[:128])


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=4))
def test_the_mask_shows_the_source_to_all_and_the_answer_backwards(rows):
    sources = torch.tensor([source for source, _ in rows])
    lengths = sources + torch.tensor([answer for _, answer in rows])
    size = int(lengths.max()) + 1
    mask = prefix_mask(sources, lengths, size)
    for row in range(len(rows)):
        for i in range(size):
            for j in range(size):
                seen = j < lengths[row] and (j < sources[row] or j <= i)
                assert bool(mask[row, 0, i, j]) == bool(seen)


def test_load_after_save_is_equal_and_words_are_never_written(tmp_path: Path):
    encoder = save_bert(tmp_path / "e")
    model = begin_from_minilm(encoder, CONFIG)
    save_trained(model, tmp_path / "m", int8=False)
    loaded = load_prefix_lm(tmp_path / "m", encoder)
    assert weights_digest(loaded) == weights_digest(model)
    assert not any(p.requires_grad for p in loaded.parameters())
    from safetensors import safe_open

    with safe_open(str(tmp_path / "m" / "model.safetensors"), "pt") as written:
        assert not any("word_embeddings" in name for name in written.keys())  # noqa: SIM118


@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 30))
def test_int8_is_at_most_half_a_step_away(seed, rows, columns):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    rounded, scale = quantize_rows(matrix)
    error = (dequantize_rows(rounded, scale) - matrix).abs()
    assert bool((error <= 0.5 * scale[:, None] * 1.001 + 1e-9).all())


def test_the_layers_go_to_bert_and_come_back(tmp_path: Path):
    from transformers import BertModel

    encoder = save_bert(tmp_path / "e")
    model = begin_from_minilm(encoder, CONFIG)
    config = BertModel.config_class.from_pretrained(
        str(encoder), max_position_embeddings=CONFIG.max_position_embeddings
    )
    bert = BertModel(config, add_pooling_layer=False)
    bert.load_state_dict(as_bert(model))
    bert.save_pretrained(str(tmp_path / "b"))
    again = begin_from_minilm(tmp_path / "b", CONFIG)
    assert weights_digest(again) == weights_digest(model)


def test_a_difference_restores_the_model_beside_its_base_alone(tmp_path: Path):
    encoder = save_bert(tmp_path / "e")
    model = begin_from_minilm(encoder, CONFIG)
    save_trained(model, tmp_path / "base", int8=True)
    chance = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.layers.parameters():
            weight += 0.002 * torch.randn(weight.shape, generator=chance)
        model.layers[0].qkv.weight[3] += 1.0  # out of reach
    save_trained(model, tmp_path / "m", int8=True, difference_to=str(tmp_path / "base"))
    save_trained(model, tmp_path / "whole", int8=True)
    loaded, whole = (load_prefix_lm(tmp_path / name, encoder) for name in ("m", "whole"))
    for name, weight in model.state_dict().items():
        error = (loaded.state_dict()[name] - weight).abs().max()
        assert error <= 1.6 * (whole.state_dict()[name] - weight).abs().max() + 1e-7, name
    sizes = [(tmp_path / f / "model.safetensors").stat().st_size for f in ("m", "whole")]
    assert sizes[0] < sizes[1]
    with torch.no_grad():
        model.head_bias += 1
    save_trained(model, tmp_path / "base", int8=True)
    with pytest.raises(ArtifactDamagedError, match="it is a difference to"):
        load_prefix_lm(tmp_path / "m", encoder)
    save_trained(model, tmp_path / "base", int8=False)
    with pytest.raises(ModelError, match="not int8"):
        save_trained(model, tmp_path / "n", int8=True, difference_to=str(tmp_path / "base"))


@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 8))
def test_six_bits_hold_what_they_are_given(seed, rows, fours):
    chance = torch.Generator().manual_seed(seed)
    values = torch.randint(-32, 32, (rows, 4 * fours), generator=chance).to(torch.int8)
    packed = pack_six_bits(values)
    assert packed.shape == (rows, 3 * fours)
    assert torch.equal(unpack_six_bits(packed), values)


def test_a_broken_or_foreign_file_is_told(tmp_path: Path):
    encoder = save_bert(tmp_path / "e")
    save_trained(begin_from_minilm(encoder, CONFIG), tmp_path / "m", int8=True)
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArtifactDamagedError, match="cannot be loaded"):
        load_prefix_lm(tmp_path / "m", encoder)
    with pytest.raises(ModelError, match="cannot begin"):
        begin_from_minilm(encoder, PrefixLMConfig(vocab_size=7))


def test_a_changed_weight_is_noticed(tmp_path: Path):
    model = freeze(begin_from_minilm(save_bert(tmp_path), CONFIG))
    digest = weights_digest(model)
    verify_frozen(model, digest)
    model.head_bias.data[3] += 1e-6
    with pytest.raises(FrozenWeightsChangedError, match="changed"):
        verify_frozen(model, digest)
    model.head_bias.data[3] -= 1e-6
    model.head_bias.requires_grad_(True)
    with pytest.raises(FrozenWeightsChangedError, match="would be trained"):
        verify_frozen(model, digest)
