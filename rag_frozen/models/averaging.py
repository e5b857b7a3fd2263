"""The mean of several models' weights (model soups, Wortsman et al. 2022, arXiv 2203.05482)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["mean_state"]


def mean_state(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of tensors of the same names and shapes, name by name.

    Tensors that are equal in all of them, as frozen embeddings are, stay what they are to the bit.

    >>> mean_state([{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}])
    {'w': tensor([1., 3.])}
    """
    return {name: _mean([state[name] for state in states]) for name in states[0]}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    if all(torch.equal(tensor, tensors[0]) for tensor in tensors):
        return tensors[0]
    return torch.stack(list(tensors)).mean(dim=0)
