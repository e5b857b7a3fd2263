"""Run one transformer over many texts, or pairs of texts, in token-budget batches.

Used by encoders (a vector a text) and cross-encoders (a score a pair); what is made of the
transformer's output is given as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rag_frozen.models.batching import padded_length, token_budget_batches
from rag_frozen.models.parameters import ParameterCounts, parameter_counts
from rag_frozen.models.state_memory import StateMemory

__all__ = ["TextTower", "Vectors"]

Vectors = NDArray[np.float32]
"""``[n, d]``, one row a text."""

_TOKEN_BUDGET = 8_192
_TOKEN_BUDGET_ON_CPU = 4_096
"""Tokens a batch, padding included. One core encoded 41.4 passages/s with batches of 4,096 tokens,
39.3 with 8,192 and 34.0 with 16,384 (MiniLM, bf16): what a layer makes then fits the caches."""


class TextTower:
    """One transformer, its tokenizer, and what makes a vector of its output."""

    def __init__(
        self,
        model: Any,  # Any: a transformers model
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        max_tokens: int,
        token_budget: int | None,
        vector: Callable[[Any, torch.Tensor], torch.Tensor],
    ) -> None:
        self._model = model.to(device=device, dtype=dtype).eval()
        self._device = device
        by_default = _TOKEN_BUDGET_ON_CPU if device.type == "cpu" else _TOKEN_BUDGET
        self._budget = token_budget or by_default
        self._vector = vector
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        window = getattr(model.config, "max_position_embeddings", None)
        self._max_tokens = min(max_tokens, window) if window else max_tokens
        self._tokenizer.enable_truncation(self._max_tokens)
        self._with_types = int(getattr(model.config, "type_vocab_size", 0) or 0) > 1
        self._pad = int(getattr(model.config, "pad_token_id", 0) or 0)
        self.memory: StateMemory | None = None
        """Keeps the token states of what is encoded, where somebody else needs them too."""
        self.tokens_read = 0
        """Tokens that the transformer has read so far, padding left out."""

    @property
    def model(self) -> torch.nn.Module:
        """The transformer."""
        module: torch.nn.Module = self._model
        return module

    def parameter_counts(self) -> ParameterCounts:
        """All weights, and those outside of embedding tables."""
        return parameter_counts(self._model)

    @torch.inference_mode()
    def encode(self, rows: Sequence[tuple[str, str | None]]) -> Vectors:
        """Return ``[n, d]`` for texts, or for pairs of texts."""
        inputs: list[Any] = [first if second is None else (first, second) for first, second in rows]
        encodings = self._tokenizer.encode_batch(inputs)
        lengths = [len(encoding.ids) for encoding in encodings]
        self.tokens_read += sum(lengths)
        vectors: NDArray[np.float32] | None = None
        for batch in token_budget_batches(lengths, budget=self._budget):
            longest = max(lengths[row] for row in batch)
            width = max(longest, min(padded_length(longest), self._max_tokens))
            ids = np.full((len(batch), width), self._pad, dtype=np.int64)
            mask = np.zeros((len(batch), width), dtype=np.int64)
            types = np.zeros((len(batch), width), dtype=np.int64)
            for place, row in enumerate(batch):
                ids[place, : lengths[row]] = encodings[row].ids
                mask[place, : lengths[row]] = 1
                types[place, : lengths[row]] = encodings[row].type_ids
            named = {"input_ids": ids, "attention_mask": mask}
            if self._with_types:
                named["token_type_ids"] = types
            tensors = {name: torch.from_numpy(a).to(self._device) for name, a in named.items()}
            output = self._model(**tensors)
            if self.memory is not None:
                for place, row in enumerate(batch):
                    states = output.last_hidden_state[place, : lengths[row]]
                    self.memory.put(encodings[row].ids, states)
            made = self._vector(output, tensors["attention_mask"])
            if vectors is None:
                vectors = np.empty((len(rows), made.shape[1]), dtype=np.float32)
            vectors[batch] = made.float().cpu().numpy()
        if vectors is None:
            return np.empty((0, int(self._model.config.hidden_size)), dtype=np.float32)
        return vectors
