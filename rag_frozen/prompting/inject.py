"""The one place where soft prompts and input embeddings are joined.

A soft prompt goes before the real tokens of each row, in every architecture; masks, lengths and
positions follow. Rows may carry soft prompts of different lengths (tasks of one batch), and may be
padded on the right (the prefix language model, encoder-decoders) or on the left (decoder-only
models in generation): padding stays outside, so that the soft prompt always touches the first real
token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rag_frozen.errors import InputError
from rag_frozen.protocols import SoftPrompts

__all__ = ["SoftPrompts", "prepend_to_left_padded", "prepend_to_right_padded"]


def prepend_to_right_padded(
    soft_prompt: Tensor | SoftPrompts, inputs_embeds: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Put a soft prompt before right-padded rows.

    Args:
        soft_prompt: ``[B, P, E]``, or rows of different lengths.
        inputs_embeds: ``[B, T, E]``, real tokens first.
        lengths: ``[B]``, real tokens of each row.

    Returns:
        ``[B, P + T, E]`` and the new lengths ``[B]``.

    Raises:
        InputError: when batch or width differ.
    """
    vectors, n_prompt = _checked(soft_prompt, inputs_embeds)
    if n_prompt is None:
        joined = torch.cat([vectors.to(inputs_embeds), inputs_embeds], dim=1)
        return joined, lengths + vectors.shape[1]
    n_prompt = n_prompt.to(lengths)
    nothing = torch.zeros_like(lengths)
    return _joined(vectors, inputs_embeds, n_prompt, before=nothing, skip=nothing), (
        lengths + n_prompt
    )


def prepend_to_left_padded(
    soft_prompt: Tensor | SoftPrompts, inputs_embeds: Tensor, attention_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Put a soft prompt between the padding and the first real token of left-padded rows.

    Args:
        soft_prompt: ``[B, P, E]``, or rows of different lengths.
        inputs_embeds: ``[B, T, E]``, padding first.
        attention_mask: ``[B, T]``, 1 at real tokens.

    Returns:
        ``[B, P + T, E]`` and the new mask ``[B, P + T]``, padding still first.

    Raises:
        InputError: when batch or width differ.
    """
    vectors, n_prompt = _checked(soft_prompt, inputs_embeds)
    longest, size = vectors.shape[1], inputs_embeds.shape[1]
    if longest == 0:
        return inputs_embeds, attention_mask
    padding = size - attention_mask.sum(dim=1)
    n_prompt = torch.full_like(padding, longest) if n_prompt is None else n_prompt.to(padding)
    before = padding + longest - n_prompt
    joined = _joined(vectors, inputs_embeds, n_prompt, before=before, skip=padding)
    column = torch.arange(longest + size, device=inputs_embeds.device)[None]
    return joined, (column >= before[:, None]).to(attention_mask.dtype)


def _joined(
    vectors: Tensor, inputs_embeds: Tensor, n_prompt: Tensor, *, before: Tensor, skip: Tensor
) -> Tensor:
    """``[B, P + T, E]``: in each row ``before`` columns of padding, the ``n_prompt`` vectors, and
    the inputs from their column ``skip`` on; what follows is the inputs' last column."""
    longest, size = vectors.shape[1], inputs_embeds.shape[1]
    column = torch.arange(longest + size, device=inputs_embeds.device)[None]
    in_prompt = (column >= before[:, None]) & (column < (before + n_prompt)[:, None])
    from_prompt = (column - before[:, None]).clamp(0, max(longest - 1, 0))
    after = column >= (before + n_prompt)[:, None]
    shifted = column - (before + n_prompt - skip)[:, None]
    from_input = torch.where(after, shifted, torch.zeros_like(shifted)).clamp(0, size - 1)
    shape = (-1, -1, inputs_embeds.shape[2])
    prompt = vectors.to(inputs_embeds).gather(1, from_prompt[:, :, None].expand(shape))
    inputs = inputs_embeds.gather(1, from_input[:, :, None].expand(shape))
    return torch.where(in_prompt[:, :, None], prompt, inputs)


def _checked(
    soft_prompt: Tensor | SoftPrompts, inputs_embeds: Tensor
) -> tuple[Tensor, Tensor | None]:
    given = SoftPrompts(soft_prompt) if isinstance(soft_prompt, Tensor) else soft_prompt
    vectors = given.vectors
    if vectors.dim() != 3 or (vectors.shape[0], vectors.shape[2]) != (
        inputs_embeds.shape[0],
        inputs_embeds.shape[2],
    ):
        raise InputError(
            f"A soft prompt of shape {tuple(vectors.shape)} does not fit input embeddings of "
            f"shape {tuple(inputs_embeds.shape)}: batch and width must be equal. Use a prompt "
            "that was trained for this reader."
        )
    if vectors.shape[1] == 0:
        return vectors, None
    return vectors, given.lengths
