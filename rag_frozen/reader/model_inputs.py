"""What a model of transformers reads: padded prompts, with soft prompts before their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rag_frozen.prompting.inject import (
    SoftPrompts,
    prepend_to_left_padded,
    prepend_to_right_padded,
)
from rag_frozen.reader.padding import padded

__all__ = ["ModelInputs", "make_inputs"]


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """What the model reads: token ids, or embeddings where a soft prompt stands before them."""

    mask: Tensor
    """``[B, P + T]``, 1 at soft prompt and real tokens."""
    ids: Tensor
    """``[B, T]``."""
    embeds: Tensor | None
    """``[B, P + T, E]``."""

    def named(self) -> dict[str, Tensor]:
        """As arguments of transformers."""
        if self.embeds is None:
            return {"input_ids": self.ids, "attention_mask": self.mask}
        return {"inputs_embeds": self.embeds, "attention_mask": self.mask}


def make_inputs(
    model: Any,  # Any: a transformers model
    prompts: Sequence[Sequence[int]],
    soft_prompt: Tensor | SoftPrompts | None,
    *,
    pad: int,
    left: bool,
) -> ModelInputs:
    """Pad token ids on the side that the model needs; put the soft prompt in front.

    Args:
        model: has the embeddings, and the device.
        prompts: token ids of each row.
        soft_prompt: ``[B, P, E]``, or rows of different lengths.
        pad: the token that fills.
        left: pad before the prompts, as a decoder-only model needs.
    """
    table = model.get_input_embeddings()
    device = table.weight.device
    ids, mask = padded(prompts, pad, left=left)
    ids, mask = ids.to(device), mask.to(device)
    if soft_prompt is None:
        return ModelInputs(mask, ids, None)
    embeds: Tensor = table(ids)
    if left:
        embeds, mask = prepend_to_left_padded(soft_prompt, embeds, mask)
    else:
        embeds, lengths = prepend_to_right_padded(soft_prompt, embeds, mask.sum(dim=1))
        column = torch.arange(embeds.shape[1], device=device)
        mask = (column[None] < lengths[:, None]).to(mask.dtype)
    return ModelInputs(mask, ids, embeds)
