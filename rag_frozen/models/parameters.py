"""How many weights a model has."""

from __future__ import annotations

from torch import nn

__all__ = ["ParameterCounts", "parameter_counts"]

ParameterCounts = tuple[int, int]
"""All weights, and those that every token passes through: embedding tables left out."""


def parameter_counts(module: nn.Module) -> ParameterCounts:
    """Count a module's weights, shared ones once.

    >>> parameter_counts(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)))
    (50, 10)
    """
    total = {id(weight): weight.numel() for weight in module.parameters()}
    tables = {
        id(weight)
        for part in module.modules()
        if isinstance(part, nn.Embedding)
        for weight in part.parameters(recurse=False)
    }
    return sum(total.values()), sum(n for key, n in total.items() if key not in tables)
