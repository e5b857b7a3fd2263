"""Batches, devices, digests and sources of models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from rag_frozen.errors import ArtifactDamagedError, InputError, ModelMissingError
from rag_frozen.models import device, source
from rag_frozen.models.batching import padded_length, token_budget_batches
from rag_frozen.models.digest import folder_digest, module_digest, tensors_digest


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 600), st.sampled_from([1, 8, 16]))
def test_every_row_is_in_one_batch_and_batches_keep_the_budget(lengths, budget, multiple):
    batches = token_budget_batches(lengths, budget=budget, multiple=multiple)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        width = padded_length(max(lengths[row] for row in batch), multiple)
        assert len(batch) == 1 or len(batch) * width <= budget
    flat = [lengths[row] for batch in batches for row in batch]
    assert flat == sorted(flat, reverse=True)


def test_bf16_is_used_where_the_instruction_set_makes_it_pay(monkeypatch):
    cpu = torch.device("cpu")
    for flags, expected in (
        ({"avx2"}, torch.float32),
        ({"avx512f", "avx512_bf16"}, torch.bfloat16),
        ({"amx_bf16"}, torch.bfloat16),
    ):
        monkeypatch.setattr(device, "instruction_sets", lambda flags=flags: frozenset(flags))
        assert device.choose_dtype(cpu) is expected
    assert device.choose_dtype(cpu, "float32") is torch.float32


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(InputError, match="use cpu"):
        device.choose_device("quantum")
    assert device.choose_device("cpu").type == "cpu"


def test_the_digest_is_the_same_in_memory_on_disk_and_in_shards(tmp_path: Path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2).bfloat16())
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    for folder, shards in (("one", [state]), ("two", [{k: state[k]} for k in state])):
        (tmp_path / folder).mkdir()
        for number, shard in enumerate(shards):
            save_file(shard, str(tmp_path / folder / f"model-{number}.safetensors"))
        assert folder_digest(tmp_path / folder) == module_digest(module)
    before = tensors_digest(state)
    module[0].weight.data[0, 0] += 1e-3
    assert module_digest(module) != before


def test_a_folder_without_safetensors_is_told(tmp_path: Path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelMissingError, match="safetensors only"):
        folder_digest(tmp_path)


def test_models_are_found_by_name_or_told_how_to_get(tmp_path: Path):
    assert source.resolve_model(str(tmp_path)).path == tmp_path
    assert source.resolve_model("pocket/reader").path.is_dir()
    with pytest.raises(ModelMissingError, match="The package ships: pocket/minilm"):
        source.resolve_model("pocket/nothing")
    with pytest.raises(ModelMissingError, match="no folder"):
        source.resolve_model("./nowhere")
    with pytest.raises(ModelMissingError, match="hf download owner/model"):
        source.resolve_model("owner/model")
    names = {model.name for model in source.models_at_hand()}
    assert {"pocket/minilm", "pocket/reader", "pocket/reranker"} <= names


def test_an_encoder_that_is_not_the_official_file_is_refused(tmp_path: Path, monkeypatch):
    real = source.resolve_model("pocket/minilm").path
    shutil.copytree(real, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    monkeypatch.setattr(source, "_package_folder", lambda: tmp_path / "model")
    source._minilm.cache_clear()
    try:
        with pytest.raises(ArtifactDamagedError, match="force-reinstall"):
            source.resolve_model("pocket/minilm")
    finally:
        source._minilm.cache_clear()
