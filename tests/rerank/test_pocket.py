"""The pocket form of a reranker: rounding, hashes, and what ships with the package."""

from __future__ import annotations

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
from rag_frozen.rerank.pocket import load_pocket_classifier

LARGEST = 11 * 2**20
"""Bytes that the shipped weights may take."""


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
