"""What a soft prompt's vectors look like in words: the nearest tokens by cosine.

Lester et al. 2021, section 7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Neighbour", "nearest_tokens"]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A token, its id and its cosine with a vector."""

    token: str
    token_id: int
    cosine: float


@torch.inference_mode()
def nearest_tokens(
    vectors: Tensor, embeddings: Tensor, *, token: Callable[[int], str], k: int = 5
) -> list[tuple[Neighbour, ...]]:
    """Return each vector's ``k`` nearest tokens, nearest first.

    Args:
        vectors: ``[P, E]``.
        embeddings: ``[V, E]``, the reader's.
        token: gives a token's text by its id.
        k: how many.
    """
    table = functional.normalize(embeddings.float(), dim=1)
    cosines = functional.normalize(vectors.float().to(table.device), dim=1) @ table.T
    best, ids = cosines.topk(min(k, len(embeddings)), dim=1)
    return [
        tuple(Neighbour(token(int(i)), int(i), float(c)) for c, i in zip(row, row_ids, strict=True))
        for row, row_ids in zip(best.tolist(), ids.tolist(), strict=True)
    ]
