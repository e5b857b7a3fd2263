"""Adapters: attached they change nothing, merged they are what they were beside the layers."""

from __future__ import annotations

import builtins

import pytest
import torch
from torch import nn

from rag_frozen.errors import ArtifactMismatchError, MissingPackageError
from rag_frozen.models.lora import attach_lora, lora_weights, merge_lora, restore_lora


def stack() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.LayerNorm(5))


def test_fresh_adapters_change_nothing_and_are_all_that_is_trained():
    plain, adapted = stack(), stack()
    attach_lora(adapted, rank=2, alpha=4.0)
    inputs = torch.randn(3, 6)
    assert torch.equal(plain(inputs), adapted(inputs))
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 4
    assert all("lora_" in name for name in trained)


def test_merged_weights_compute_what_the_adapters_computed():
    adapted = stack()
    attach_lora(adapted, rank=3, alpha=6.0)
    with torch.no_grad():
        for tensor in lora_weights(adapted).values():
            tensor.normal_()
    merged = stack()
    state = merge_lora(merged.state_dict(), lora_weights(adapted), scale=2.0)
    merged.load_state_dict(state)
    inputs = torch.randn(4, 6)
    assert torch.allclose(merged(inputs), adapted(inputs), atol=1e-5)
    assert torch.equal(state["3.weight"], stack().state_dict()["3.weight"])


def test_layers_that_are_left_keep_out_of_it():
    adapted = stack()
    attach_lora(adapted, rank=2, alpha=2.0, leave=("2",))
    assert {name.split(".")[0] for name in lora_weights(adapted)} == {"0"}


def test_stored_adapters_come_back():
    first, second = stack(), stack()
    attach_lora(first, rank=2, alpha=2.0)
    attach_lora(second, rank=2, alpha=2.0)
    restore_lora(second, lora_weights(first))
    assert all(torch.equal(t, lora_weights(second)[n]) for n, t in lora_weights(first).items())
    wider = stack()
    attach_lora(wider, rank=3, alpha=2.0)
    with pytest.raises(ArtifactMismatchError, match=r"do not fit the model: 0\.lora_A"):
        restore_lora(wider, lora_weights(first))


@pytest.mark.parametrize("lost", ["x.lora_A", "x.lora_B"])
def test_adapters_of_another_model_are_refused(lost: str):
    adapter = {"x.lora_A": torch.zeros(1, 2), "x.lora_B": torch.zeros(3, 1)}
    with pytest.raises(ArtifactMismatchError, match="layer x does not fit"):
        merge_lora({"x.weight": torch.zeros(2, 2)}, adapter, scale=1.0)
    del adapter[lost]
    with pytest.raises(ArtifactMismatchError, match="layer x does not fit"):
        merge_lora({"x.weight": torch.zeros(3, 2)}, adapter, scale=1.0)


def test_a_missing_peft_is_told_with_the_command_that_installs_it(monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest, **named):
        if name == "peft":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r"pip install 'rag-frozen\[train\]'"):
        attach_lora(stack(), rank=2, alpha=2.0)
