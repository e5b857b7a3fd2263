"""sentence-transformers' models and losses inside the one loop of this project.

The library's own trainers are not used: their checkpoints pickle optimiser and random state, and
the order of their batches cannot be continued to the bit. Here a step's batch is a function of its
number, the checkpoint is safetensors, and a killed training ends with the weights of an
undisturbed one; models and losses are the library's, so that what they compute is what its users
know.

A model of ours, a classifier or an encoder with its tokenizer, is given to the library as its one
module. It runs texts in parts of like length, so that little padding is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

__all__ = ["PairModule", "TextModule", "cross_encoder_of", "sentence_transformer_of"]

_PART_ON_CPU = 16
"""Texts that are run together on a CPU; other devices take all at once."""


class PairModule(nn.Module):
    """A one-label classifier that scores pairs of texts: ``scores: [N, 1]``."""

    def __init__(
        self,
        classifier: nn.Module,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        bf16: bool,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._bf16 = bf16

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, task: str | None = None
    ) -> dict[str, Tensor]:
        """Token tensors ``[N, T]`` of pairs of texts; the library's prompts and tasks have no
        meaning here."""
        return tokenized(self._tokenizer, inputs, max_length=self._max_length)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Score ``[N, T]``."""
        scores = _in_parts(
            features,
            lambda part: self.classifier(**part).logits,
            device=_device(self),
            bf16=self._bf16,
        )
        return {**features, "scores": scores}


class TextModule(nn.Module):
    """An encoder and its pooling: ``sentence_embedding: [N, d]``."""

    def __init__(
        self,
        encoder: nn.Module,
        tokenizer: Tokenizer,
        pool: Callable[[Any, Tensor], Tensor],
        *,
        max_length: int,
        bf16: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self._tokenizer = tokenizer
        self._pool = pool
        self._max_length = max_length
        self._bf16 = bf16

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, *, max_length: int | None = None
    ) -> dict[str, Tensor]:
        """Token tensors ``[N, T]`` of texts."""
        limit = min(max_length or self._max_length, self._max_length)
        return tokenized(self._tokenizer, inputs, max_length=limit)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode ``[N, T]``."""

        def vectors(part: Mapping[str, Tensor]) -> Tensor:
            return self._pool(self.encoder(**part), part["attention_mask"])

        made = _in_parts(features, vectors, device=_device(self), bf16=self._bf16)
        return {**features, "sentence_embedding": made}


def cross_encoder_of(module: PairModule) -> Any:  # Any: a CrossEncoder, which is untyped
    """The library's cross-encoder around a module, on the module's device."""
    from sentence_transformers import CrossEncoder

    return CrossEncoder(modules=[module], device=str(_device(module)))


def sentence_transformer_of(module: TextModule) -> Any:  # Any: a SentenceTransformer
    """The library's sentence encoder around a module, on the module's device."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(modules=[module], device=str(_device(module)))


def tokenized(tokenizer: Tokenizer, texts: Sequence[Any], *, max_length: int) -> dict[str, Tensor]:
    """``input_ids, attention_mask, token_type_ids: [N, T]`` of texts, or of pairs of texts."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    encodings = tokenizer.encode_batch(list(texts))
    width = max(len(encoding.ids) for encoding in encodings)
    arrays = np.zeros((3, len(encodings), width), dtype=np.int64)
    for place, encoding in enumerate(encodings):
        n = len(encoding.ids)
        arrays[0, place, :n] = encoding.ids
        arrays[1, place, :n] = 1
        arrays[2, place, :n] = encoding.type_ids
    ids, mask, types = torch.from_numpy(arrays)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def _in_parts(
    features: Mapping[str, Tensor],
    run: Callable[[Mapping[str, Tensor]], Tensor],
    *,
    device: torch.device,
    bf16: bool,
) -> Tensor:
    """Run rows sorted by length, each part cut to its longest; ``[N, ...]`` in fp32, in order."""
    named = {
        name: features[name].to(device)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    lengths = features["attention_mask"].sum(dim=1).cpu()
    order = lengths.argsort(stable=True)
    n_parts = max(1, len(order) // _PART_ON_CPU) if device.type == "cpu" else 1
    made = []
    for rows in order.chunk(n_parts):
        width = int(lengths[rows].max())
        part = {name: tensor[rows.to(device), :width] for name, tensor in named.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            made.append(run(part).float())
    return torch.cat(made)[order.argsort().to(device)]


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
