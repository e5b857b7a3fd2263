"""Static soft prompts (Lester et al. 2021, arXiv 2104.08691): a matrix of trained vectors.

A module for training and inference alike; knows nothing about readers, files or tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rag_frozen.errors import InputError

__all__ = ["MOST_FREQUENT", "SoftPrompt", "from_labels", "from_tokens", "random_vectors", "sampled"]

MOST_FREQUENT = 5_000
"""Vectors are sampled from so many of the most frequent tokens (Lester et al., section 3.2)."""
_RANDOM_RANGE = 0.5
"""Random vectors are uniform in [-0.5, 0.5] (same place)."""


class SoftPrompt(nn.Module):
    """The same ``P`` vectors before every input."""

    def __init__(self, vectors: Tensor) -> None:
        """Begin with ``vectors: [P, E]``, in fp32.

        Raises:
            InputError: when they are no matrix of at least one vector.
        """
        super().__init__()
        if vectors.dim() != 2 or vectors.shape[0] < 1:
            raise InputError(
                f"A soft prompt is a matrix [P, E] of at least one vector, not "
                f"{tuple(vectors.shape)}."
            )
        self.vectors = nn.Parameter(vectors.detach().clone().float())

    @property
    def length(self) -> int:
        """Number of vectors, P."""
        return int(self.vectors.shape[0])

    @property
    def width(self) -> int:
        """Width of the vectors, E."""
        return int(self.vectors.shape[1])

    def forward(self, n_rows: int) -> Tensor:
        """Return ``[n_rows, P, E]``."""
        return self.vectors.expand(n_rows, -1, -1)


def random_vectors(length: int, width: int, *, generator: torch.Generator) -> Tensor:
    """Return ``[P, E]``, uniform in [-0.5, 0.5]."""
    _check_length(length)
    return (torch.rand(length, width, generator=generator) * 2 - 1) * _RANDOM_RANGE


def sampled(
    embeddings: Tensor, token_ids: Sequence[int], length: int, *, generator: torch.Generator
) -> Tensor:
    """Return ``[P, E]``: embeddings of tokens drawn from ``token_ids`` without repetition.

    Args:
        embeddings: ``[V, E]``, the reader's.
        token_ids: the most frequent ones, ``MOST_FREQUENT`` of them in the paper.
        length: P.
        generator: seeded.

    Raises:
        InputError: when there are fewer tokens than vectors.
    """
    _check_length(length)
    if len(token_ids) < length:
        raise InputError(
            f"{length} vectors cannot be drawn from {len(token_ids)} tokens without repetition. "
            "Choose a shorter prompt, or begin at random."
        )
    chosen = torch.randperm(len(token_ids), generator=generator)[:length]
    rows = torch.tensor([token_ids[int(i)] for i in chosen], device=embeddings.device)
    return embeddings.detach()[rows].float().cpu()


def from_labels(
    embeddings: Tensor,
    labels: Sequence[Sequence[int]],
    length: int,
    *,
    fill: Sequence[int],
    generator: torch.Generator,
) -> Tensor:
    """Return ``[P, E]``: the labels' embeddings (a label's tokens averaged), then sampled ones.

    Args:
        embeddings: ``[V, E]``, the reader's.
        labels: token ids of each label's words.
        length: P; labels beyond it are left out.
        fill: token ids to sample the rest from.
        generator: seeded.
    """
    _check_length(length)
    if not labels or any(not label for label in labels):
        raise InputError("Beginning from labels needs at least one label, each with a token.")
    table = embeddings.detach().float().cpu()
    means = torch.stack([table[torch.tensor(list(label))].mean(dim=0) for label in labels])
    if len(means) >= length:
        return means[:length]
    return torch.cat([means, sampled(table, fill, length - len(means), generator=generator)])


def from_tokens(embeddings: Tensor, token_ids: Sequence[int], length: int | None = None) -> Tensor:
    """Return ``[P, E]``: the embeddings of a written text, cut or repeated to ``length``.

    Raises:
        InputError: when the text has no token.
    """
    if not token_ids:
        raise InputError("Beginning from a text needs a text with at least one token.")
    length = len(token_ids) if length is None else length
    _check_length(length)
    rows = [token_ids[i % len(token_ids)] for i in range(length)]
    return embeddings.detach()[torch.tensor(rows, device=embeddings.device)].float().cpu()


def _check_length(length: int) -> None:
    if length < 1:
        raise InputError(f"A soft prompt has at least one vector, not {length}.")
