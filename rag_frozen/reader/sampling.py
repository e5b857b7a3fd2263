"""Sampling that does not depend on the batch: each row draws from a seed of its own.

A token is drawn by adding Gumbel noise to log-probabilities and taking the largest (Gumbel 1954;
Maddison et al. 2014); the noise of a row at a step is a function of the row's seed and the step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from rag_frozen.types import Context

__all__ = ["gumbel_noise", "row_seed"]

_SEEDS = 2**63
_TINY = 1e-20


def row_seed(seed: int, context: Context) -> int:
    """A row's seed: of the decoding's seed, the question's id and the soft prompt's name."""
    text = f"{seed}\0{context.question.id}\0{context.soft_prompt or ''}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % _SEEDS


def gumbel_noise(seeds: Sequence[int], step: int, size: int) -> Tensor:
    """Return ``[B, size]`` on the CPU, the same for a row in whatever batch it stands.

    >>> alone, together = gumbel_noise([5], 2, 3), gumbel_noise([4, 5], 2, 3)
    >>> bool((together[1] == alone[0]).all())
    True
    """
    rows = []
    for seed in seeds:
        mixed = hashlib.sha256(f"{seed}:{step}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(mixed, "big") % _SEEDS)
        rows.append(torch.rand(size, generator=generator))
    uniform = torch.stack(rows).clamp(min=_TINY)
    return -torch.log((-torch.log(uniform)).clamp(min=_TINY))
