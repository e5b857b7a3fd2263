"""The architecture of the pocket reader: a small prefix language model.

One stack of transformer layers reads a source in both directions and writes an answer from left
to right (the sequence-to-sequence mask of UniLM, Dong et al. 2019, arXiv 1905.03197): every
position sees the source, an answer position also sees the answer before it. The layers are BERT's,
so that they can begin from MiniLM; the output head is tied to the word embeddings.

This module knows tensors only: nothing about text, prompts, files or training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LayerCache", "PrefixLM", "PrefixLMConfig", "prefix_mask"]

LayerCache = tuple[Tensor, Tensor]
"""Keys and values of one layer, each ``[B, heads, S, head_width]``."""


@dataclass(frozen=True, slots=True)
class PrefixLMConfig:
    """Sizes of the stack; the defaults are MiniLM-L6's with the position table doubled."""

    vocab_size: int = 30_522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1_536
    max_position_embeddings: int = 1_024
    layer_norm_eps: float = 1e-12

    def to_dict(self) -> dict[str, int | float]:
        """The settings as plain JSON values."""
        return asdict(self)


def prefix_mask(source_lengths: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Say which position sees which, for right-padded rows of source followed by answer.

    Args:
        source_lengths: ``[B]``, number of source positions of each row.
        lengths: ``[B]``, source and answer positions together.
        size: T, the padded length.

    Returns:
        ``[B, 1, T, T]`` booleans; entry (b, 0, i, j) is true where position i sees position j.

    >>> prefix_mask(torch.tensor([2]), torch.tensor([4]), 4)[0, 0].int().tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    """
    position = torch.arange(size, device=lengths.device)
    in_source = position[None, :] < source_lengths[:, None]
    in_row = position[None, :] < lengths[:, None]
    causal = position[None, :] <= position[:, None]
    return (in_row[:, None, :] & (in_source[:, None, :] | causal[None]))[:, None]


class _Layer(nn.Module):
    """One post-norm BERT layer with the three attention projections in one matrix."""

    def __init__(self, config: PrefixLMConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(width, inner)
        self.output = nn.Linear(inner, width)
        self.output_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(0.0)

    def forward(
        self, states: Tensor, mask: Tensor, past: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        batch, size, width = states.shape
        projected = self.qkv(states).view(batch, size, 3, self.heads, width // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        if past is not None:
            key = torch.cat([past[0], key], dim=2)
            value = torch.cat([past[1], value], dim=2)
        attended = _attend(query, key, value, mask)
        attended = attended.transpose(1, 2).reshape(batch, size, width)
        states = self.attention_norm(states + self.dropout(self.attention_output(attended)))
        inner = functional.gelu(self.intermediate(states))
        return self.output_norm(states + self.dropout(self.output(inner))), (key, value)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    if torch.is_grad_enabled() and query.device.type == "cpu":
        # The backward pass of torch's fused CPU attention is twice as slow in bf16 as in fp32
        # (132 against 65 ms, [32, 12, 160, 32], torch 2.13, AVX512_BF16).
        attended = functional.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), attn_mask=mask
        )
        return attended.to(query.dtype)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class PrefixLM(nn.Module):
    """The stack with its embeddings and its tied output head.

    Soft prompts enter as word embeddings (``inputs_embeds``), before positions and types are
    added, so that a soft prompt equal to the embeddings of real tokens acts as those tokens.
    """

    def __init__(self, config: PrefixLMConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.type_embeddings = nn.Embedding(2, width)
        self.embedding_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(0.0)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.head = nn.Linear(width, width)
        self.head_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(
        self,
        inputs_embeds: Tensor,
        mask: Tensor,
        *,
        position_ids: Tensor,
        type_ids: Tensor,
        past: list[LayerCache] | None = None,
    ) -> tuple[Tensor, list[LayerCache]]:
        """Run the stack.

        Args:
            inputs_embeds: ``[B, T, E]`` word embeddings (``word_embeddings(input_ids)``), with a
                soft prompt in front where there is one.
            mask: ``[B, 1, T, S]`` booleans, true where a position sees a key; S counts the keys
                of ``past`` too.
            position_ids: ``[B, T]``, from 0; at most ``max_position_embeddings - 1``.
            type_ids: ``[B, T]``, 0 in the source, 1 in the answer.
            past: keys and values of the layers, from an earlier call.

        Returns:
            ``states: [B, T, H]`` and the layers' keys and values, old and new.
        """
        states = inputs_embeds + self.position_embeddings(position_ids)
        states = self.dropout(self.embedding_norm(states + self.type_embeddings(type_ids)))
        caches: list[LayerCache] = []
        for index, layer in enumerate(self.layers):
            states, cache = layer(states, mask, None if past is None else past[index])
            caches.append(cache)
        return states, caches

    def set_dropout(self, share: float) -> None:
        """Leave out so many of the numbers behind the embeddings and behind each layer's attention
        and feed-forward part while training, as BERT does; 0, as it is made, leaves out none."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = share

    def logits(self, states: Tensor) -> Tensor:
        """Map states ``[..., H]`` to vocabulary logits ``[..., V]``."""
        hidden = self.head_norm(self.head(states))
        return functional.linear(hidden, self.word_embeddings.weight) + self.head_bias
