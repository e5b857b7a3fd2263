"""The pocket form of a reranker: rounding, hashes, and what ships with the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rag_frozen.artifacts import load_manifest, verify
from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError
from rag_frozen.models.rounding import (
    SCALE_SUFFIX,
    dequantize_rows,
    quantize_rows,
    restore_rounded,
    round_matrices,
)
from rag_frozen.models.source import resolve_model
from rag_frozen.reader.prefix_lm import PrefixLMConfig
from rag_frozen.reader.prefix_lm_weights import begin_from_minilm, load_prefix_lm, save_trained
from rag_frozen.rerank.pocket import (
    add_adapters,
    begin_classifier,
    load_pocket_classifier,
    save_pocket_classifier,
)
from tests.tiny import save_bert

LARGEST = 11_000_000
"""Bytes that the weights may take: they hold no embedding table at all."""


@given(
    st.integers(1, 6), st.integers(1, 9), st.sampled_from([1e-6, 1.0, 300.0]), st.integers(0, 999)
)
def test_rounding_is_off_by_at_most_half_a_scale(rows, columns, size, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    rounded, scale = quantize_rows(matrix)
    assert rounded.dtype is torch.int8
    assert rounded.abs().max() <= 127
    off = (dequantize_rows(rounded, scale) - matrix).abs()
    assert bool((off <= scale[:, None] * 0.5001).all())


def test_a_row_of_zeros_stays_zero():
    assert dequantize_rows(*quantize_rows(torch.zeros(2, 3))).abs().sum() == 0


def test_matrices_are_rounded_and_vectors_kept():
    tensors = {"w": torch.randn(3, 4), "b": torch.randn(4).bfloat16()}
    stored = round_matrices(tensors)
    assert stored["w"].dtype is torch.int8
    assert set(stored) == {"w", "w" + SCALE_SUFFIX, "b"}
    restored = restore_rounded(stored)
    assert set(restored) == {"w", "b"}
    assert torch.equal(restored["b"], tensors["b"].float())


def test_what_ships_is_small_whole_and_without_word_embeddings():
    folder = resolve_model("pocket/reranker").path
    manifest = verify(folder, kind="model")
    assert manifest.models["encoder"].name == "pocket/minilm"
    assert (folder / "model.safetensors").stat().st_size <= LARGEST
    tensors = load_file(str(folder / "model.safetensors"))
    assert not any("word_embeddings" in name for name in tensors)
    assert all(t.dtype is torch.int8 for t in tensors.values() if t.dim() == 2)


def test_changed_weights_of_the_right_size_are_refused(tmp_path: Path):
    folder = tmp_path / "reranker"
    shutil.copytree(resolve_model("pocket/reranker").path, folder)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    load_manifest(folder, kind="model")  # sizes alone do not tell
    with pytest.raises(ArtifactDamagedError, match=r"model\.safetensors has SHA-256"):
        load_pocket_classifier(folder, resolve_model("pocket/minilm").path)


def test_other_word_embeddings_are_refused(tmp_path: Path):
    minilm = resolve_model("pocket/minilm").path
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(minilm / name, tmp_path / name)
    tensors = load_file(str(minilm / "model.safetensors"))
    words = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    save_file({words: tensors[words] + 1e-3}, str(tmp_path / "model.safetensors"))
    with pytest.raises(ArtifactMismatchError, match="word embeddings"):
        load_pocket_classifier(resolve_model("pocket/reranker").path, tmp_path)


@pytest.mark.parametrize("lora", [None, (64, 128.0)], ids=["int8", "adapters"])
def test_what_is_written_is_small_and_scores_as_what_was_trained(tmp_path: Path, lora):
    minilm = resolve_model("pocket/minilm").path
    torch.manual_seed(0)
    classifier = begin_classifier(minilm).eval()
    with torch.no_grad():
        classifier.classifier.weight.mul_(100)
    if lora is not None:
        add_adapters(classifier, rank=lora[0], alpha=lora[1])
        with torch.no_grad():
            for name, parameter in classifier.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.03)
    save_pocket_classifier(classifier, tmp_path, lora=lora)
    assert (tmp_path / "model.safetensors").stat().st_size <= LARGEST
    assert not any("embeddings.weight" in n for n in load_file(str(tmp_path / "model.safetensors")))
    loaded = load_pocket_classifier(tmp_path, minilm)
    ids = torch.randint(1000, 20_000, (4, 30), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before, after = (model(input_ids=ids).logits for model in (classifier, loaded))
        plain = begin_classifier(minilm).eval()
        plain.classifier.load_state_dict(classifier.classifier.state_dict())
        without = plain(input_ids=ids).logits
    off = float((before - after).abs().max())
    assert off < 0.1
    if lora is not None:
        assert float((without - after).abs().max()) > 5 * off


@pytest.mark.parametrize("lora", [None, (4, 8.0)])
def test_a_reranker_over_a_language_model_begins_from_it_and_needs_that_very_one(
    tmp_path: Path, lora: tuple[int, float] | None
):
    minilm = save_bert(tmp_path / "minilm")
    size = json.loads((minilm / "config.json").read_text())
    config = PrefixLMConfig(
        size["vocab_size"], size["hidden_size"], size["num_hidden_layers"],
        size["num_attention_heads"], size["intermediate_size"], 300,
    )  # fmt: skip
    model = begin_from_minilm(minilm, config)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01
    save_trained(model, tmp_path / "lm", int8=True)
    torch.manual_seed(0)
    classifier = begin_classifier(minilm, tmp_path / "lm")
    begun = load_prefix_lm(tmp_path / "lm", minilm)
    key = classifier.bert.encoder.layer[1].attention.self.key
    assert torch.equal(key.weight, begun.layers[1].qkv.weight.chunk(3)[1])
    tables = classifier.bert.embeddings
    assert torch.equal(
        tables.position_embeddings.weight,
        begun.position_embeddings.weight[: len(tables.position_embeddings.weight)],
    )
    if lora is not None:
        add_adapters(classifier, rank=lora[0], alpha=lora[1])
    classifier.eval()
    pair = {"input_ids": torch.tensor([[2, 5, 6, 3, 7, 8, 3]])}
    wanted = classifier(**pair).logits
    save_pocket_classifier(classifier, tmp_path / "r", lora=lora, base=str(tmp_path / "lm"))
    loaded = load_pocket_classifier(tmp_path / "r", minilm)
    assert torch.allclose(loaded(**pair).logits, wanted, atol=0.02 if lora is None else 1e-5)
    save_trained(begin_from_minilm(minilm, config), tmp_path / "lm", int8=True)
    with pytest.raises(ArtifactMismatchError, match="was trained over"):
        load_pocket_classifier(tmp_path / "r", minilm)
