"""Optimisers by name, and the learning rate at a step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from rag_frozen.training.settings import OptimiserSettings

__all__ = ["learning_rate_at", "make_optimiser"]

_ADAFACTOR_EPS = (1e-30, 1e-3)
_ADAFACTOR_DECAY = -0.8


def make_optimiser(
    settings: OptimiserSettings, parameters: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """Make an optimiser over named parameters.

    AdamW decays matrices alone. Adafactor is that of Lester et al. 2021 (section 3.1): no scaling
    by the parameters' size, no relative step, decay of the second moment 0.8.
    """
    if settings.kind == "adafactor":
        from transformers.optimization import Adafactor

        adafactor: torch.optim.Optimizer = Adafactor(
            list(parameters.values()),
            lr=settings.learning_rate,
            eps=_ADAFACTOR_EPS,
            decay_rate=_ADAFACTOR_DECAY,
            weight_decay=settings.weight_decay,
            scale_parameter=False,
            relative_step=False,
        )
        return adafactor
    decay = [p for p in parameters.values() if p.dim() > 1]
    plain = [p for p in parameters.values() if p.dim() <= 1]
    return torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=settings.betas,
        fused=True,
    )


def learning_rate_at(step: int, n_steps: int, settings: OptimiserSettings) -> float:
    """Warm up in a line, then fall in a line to zero at ``n_steps``, or stay (``constant``).

    >>> settings = OptimiserSettings(learning_rate=1.0, warmup_steps=10)
    >>> [round(learning_rate_at(s, 110, settings), 2) for s in (0, 9, 10, 60, 109)]
    [0.1, 1.0, 1.0, 0.5, 0.01]
    >>> constant = settings.model_copy(update={"schedule": "constant"})
    >>> learning_rate_at(100, 110, constant)
    1.0
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    left = (n_steps - step) / max(1, n_steps - settings.warmup_steps)
    return settings.learning_rate * max(0.0, left)
