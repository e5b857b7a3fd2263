"""The one place where soft prompts and input embeddings are joined.

A soft prompt ``[B, P, E]`` goes before the real tokens of each row, in every architecture; masks,
lengths and positions follow. Rows may be padded on the right (the prefix language model,
encoder-decoders) or on the left (decoder-only models in generation): padding stays outside, so
that the soft prompt always touches the first real token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rag_frozen.errors import InputError

__all__ = ["prepend_to_left_padded", "prepend_to_right_padded"]


def prepend_to_right_padded(
    soft_prompt: Tensor, inputs_embeds: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Put a soft prompt before right-padded rows.

    Args:
        soft_prompt: ``[B, P, E]``.
        inputs_embeds: ``[B, T, E]``, real tokens first.
        lengths: ``[B]``, real tokens of each row.

    Returns:
        ``[B, P + T, E]`` and the new lengths ``[B]``.

    Raises:
        InputError: when batch or width differ.
    """
    _check(soft_prompt, inputs_embeds)
    joined = torch.cat([soft_prompt.to(inputs_embeds), inputs_embeds], dim=1)
    return joined, lengths + soft_prompt.shape[1]


def prepend_to_left_padded(
    soft_prompt: Tensor, inputs_embeds: Tensor, attention_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Put a soft prompt between the padding and the first real token of left-padded rows.

    Args:
        soft_prompt: ``[B, P, E]``.
        inputs_embeds: ``[B, T, E]``, padding first.
        attention_mask: ``[B, T]``, 1 at real tokens.

    Returns:
        ``[B, P + T, E]`` and the new mask ``[B, P + T]``, padding still first.

    Raises:
        InputError: when batch or width differ.
    """
    _check(soft_prompt, inputs_embeds)
    n_prompt, size = soft_prompt.shape[1], inputs_embeds.shape[1]
    if n_prompt == 0:
        return inputs_embeds, attention_mask
    n_padding = size - attention_mask.sum(dim=1)
    column = torch.arange(n_prompt + size, device=inputs_embeds.device)[None]
    in_prompt = (column >= n_padding[:, None]) & (column < n_padding[:, None] + n_prompt)
    from_prompt = (column - n_padding[:, None]).clamp(0, n_prompt - 1)
    after = column >= n_padding[:, None] + n_prompt
    from_input = torch.where(after, column - n_prompt, column).clamp(0, size - 1)
    width = inputs_embeds.shape[2]
    shape = (-1, -1, width)
    prompt = soft_prompt.to(inputs_embeds).gather(1, from_prompt[:, :, None].expand(shape))
    inputs = inputs_embeds.gather(1, from_input[:, :, None].expand(shape))
    joined = torch.where(in_prompt[:, :, None], prompt, inputs)
    return joined, (column >= n_padding[:, None]).to(attention_mask.dtype)


def _check(soft_prompt: Tensor, inputs_embeds: Tensor) -> None:
    if soft_prompt.dim() != 3 or (soft_prompt.shape[0], soft_prompt.shape[2]) != (
        inputs_embeds.shape[0],
        inputs_embeds.shape[2],
    ):
        raise InputError(
            f"A soft prompt of shape {tuple(soft_prompt.shape)} does not fit input embeddings of "
            f"shape {tuple(inputs_embeds.shape)}: batch and width must be equal. Use a prompt "
            "that was trained for this reader."
        )
