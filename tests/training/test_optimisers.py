"""Adafactor as Lester et al. 2021 used it: a constant rate, no scaling by the parameters' size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rag_frozen.training.optimisers import make_optimiser
from rag_frozen.training.settings import OptimiserSettings

LESTER = OptimiserSettings(
    kind="adafactor", schedule="constant", learning_rate=0.3, warmup_steps=0, weight_decay=0.0
)


@pytest.mark.parametrize("size", [0.0, 1.0, 100.0])
def test_a_step_of_adafactor_is_as_long_as_its_rate_whatever_the_parameters_size(size: float):
    weights = nn.Parameter(torch.full((4, 6), size))
    optimiser = make_optimiser(LESTER, {"w": weights})
    for steps in (1, 2, 3):
        (weights * 1e-3).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        assert torch.allclose(weights, torch.full((4, 6), size - 0.3 * steps), atol=1e-3)


def test_a_jump_of_the_gradient_does_not_make_a_long_step():
    weights = nn.Parameter(torch.zeros(4, 6))
    optimiser = make_optimiser(LESTER, {"w": weights})
    for scale in (1e-3, 1e3):
        before = weights.detach().clone()
        (weights * scale).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        step = (weights.detach() - before).pow(2).mean().sqrt()
        assert float(step) <= 0.3 * 1.001


def test_adamw_decays_matrices_alone():
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    settings = OptimiserSettings(learning_rate=0.1, weight_decay=0.5)
    optimiser = make_optimiser(settings, {"m": matrix, "v": vector})
    for parameter in (matrix, vector):
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    assert torch.allclose(matrix, torch.full((2, 2), 0.95))
    assert torch.equal(vector.detach(), torch.ones(2))
