"""Rows of token ids as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["padded"]


def padded(
    rows: Sequence[Sequence[int]], pad_id: int, *, left: bool = False
) -> tuple[Tensor, Tensor]:
    """Return ids ``[B, T]`` and mask ``[B, T]`` (1 at real tokens), padded on one side.

    >>> ids, mask = padded([[7], [8, 9]], 0, left=True)
    >>> ids.tolist(), mask.tolist()
    ([[0, 7], [8, 9]], [[0, 1], [1, 1]])
    """
    size = max(len(row) for row in rows)
    ids = torch.full((len(rows), size), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), size), dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(size - len(row), size) if left else slice(0, len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.long)
        mask[number, place] = 1
    return ids, mask
