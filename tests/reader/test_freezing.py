"""Frozen means frozen: a training around the model proves that it did not touch it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rag_frozen.errors import FrozenWeightsChangedError
from rag_frozen.reader.freezing import freeze, frozen, verify_frozen, weights_digest


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_freezing_ends_training_mode_and_gradients():
    made = freeze(network())
    assert not any(module.training for module in made.modules())
    assert not any(parameter.requires_grad for parameter in made.parameters())


def test_what_is_trained_before_a_frozen_model_leaves_it_as_it_was():
    made, prompt = network(), nn.Parameter(torch.randn(5, 3))
    optimizer = torch.optim.SGD([prompt], lr=0.5)
    with frozen(made) as digest:
        before = made(prompt).square().sum()
        before.backward()
        optimizer.step()
    assert made(prompt).square().sum() < before
    assert digest == weights_digest(made)
    assert all(parameter.grad is None for parameter in made.parameters())


@pytest.mark.parametrize("name", ["0.weight", "3.bias", "2.running_mean"])
def test_a_training_that_writes_to_the_model_is_refused(name):
    made = network()

    def careless() -> None:
        with frozen(made):
            made.state_dict()[name].view(-1)[0].add_(1e-6)

    with pytest.raises(FrozenWeightsChangedError, match=r"digest .* at load it was"):
        careless()


def test_an_error_inside_passes_through():
    def failing() -> None:
        with frozen(network()):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()


def test_the_digest_knows_names_types_and_shapes():
    made = network()
    digest = weights_digest(made)
    assert digest == weights_digest(network())
    for other in (
        network().to(torch.bfloat16),
        nn.Sequential(*[nn.Identity(), *network()]),
    ):
        with pytest.raises(FrozenWeightsChangedError):
            verify_frozen(freeze(other), digest)
