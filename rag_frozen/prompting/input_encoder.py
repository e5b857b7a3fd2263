"""The frozen encoder that reads the input for a prompt generator: BERT-shaped models, T5's encoder,
or any other that takes embeddings.

Its states of texts that the dense retriever encoded with the same model can be taken over from
there (:class:`StateMemory`), so that a question is encoded once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from rag_frozen.errors import ModelError
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.parameters import ParameterCounts, parameter_counts
from rag_frozen.models.quiet import quiet_loading
from rag_frozen.models.source import ModelFolder
from rag_frozen.models.state_memory import StateMemory
from rag_frozen.prompting.inject import prepend_to_right_padded
from rag_frozen.reader.freezing import freeze

__all__ = ["InputEncoder"]


class InputEncoder:
    """A frozen encoder's token states."""

    def __init__(
        self,
        model: ModelFolder,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        max_tokens: int = 256,
        memory: StateMemory | None = None,
    ) -> None:
        """Load and freeze the encoder.

        Args:
            model: a folder with safetensors; of an encoder-decoder the encoder is taken.
            device, dtype: where and in what it runs.
            max_tokens: a longer text is cut.
            memory: states that another user of the same model has computed, by token ids.

        Raises:
            ModelError: when it cannot be loaded.
        """
        self.name = model.name
        self.digest = folder_digest(model.path)
        loaded = _load(model.path)
        self._model: Any = freeze(loaded.to(device=device, dtype=dtype))
        self._device = torch.device(device)
        self._tokenizer = Tokenizer.from_file(str(model.path / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._pad = int(getattr(loaded.config, "pad_token_id", 0) or 0)
        self.memory = memory
        self.max_tokens = max_tokens
        self.texts_encoded = 0
        """Texts that had to be encoded here; those found in the memory are not counted."""

    @property
    def width(self) -> int:
        """Width H of the states."""
        return int(self._model.config.hidden_size)

    @property
    def model(self) -> torch.nn.Module:
        """The frozen transformer."""
        module: torch.nn.Module = self._model
        return module

    def parameter_counts(self) -> ParameterCounts:
        """All weights, and those outside of embedding tables."""
        return parameter_counts(self._model)

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text as the encoder reads them, special ones included."""
        return list(self._tokenizer.encode(text).tokens)

    def states(self, texts: Sequence[str], vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode texts.

        Args:
            texts: at least one.
            vectors: ``[n, H]``, learned, read before each text's own embeddings; gradients flow
                to them.

        Returns:
            ``[B, n + T, H]`` and the mask ``[B, n + T]``, true at real positions. Without
            ``vectors`` no gradient is kept.
        """
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        if vectors is not None and len(vectors):
            return self._with_vectors(rows, vectors)
        with torch.no_grad():
            return self._plain(rows)

    def _plain(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        known = [self.memory.get(row) if self.memory else None for row in rows]
        missing = [place for place, found in enumerate(known) if found is None]
        if missing:
            ids, mask = self._padded([rows[place] for place in missing])
            made = self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            self.texts_encoded += len(missing)
            for at, place in enumerate(missing):
                known[place] = made[at, : len(rows[place])]
        size = max(map(len, rows))
        first = known[missing[0]] if missing else known[0]
        assert first is not None
        states = torch.zeros((len(rows), size, self.width), dtype=first.dtype, device=self._device)
        mask = torch.zeros((len(rows), size), dtype=torch.bool, device=self._device)
        for place, found in enumerate(known):
            assert found is not None
            states[place, : len(found)] = found.to(states)
            mask[place, : len(found)] = True
        return states, mask

    def _with_vectors(
        self, rows: Sequence[Sequence[int]], vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        ids, mask = self._padded(rows)
        self.texts_encoded += len(rows)
        embeds = self._model.get_input_embeddings()(ids)
        front = vectors.expand(len(rows), -1, -1)
        joined, lengths = prepend_to_right_padded(front, embeds, mask.sum(dim=1))
        seen = torch.arange(joined.shape[1], device=self._device)[None] < lengths[:, None]
        made = self._model(inputs_embeds=joined, attention_mask=seen.long())
        states: Tensor = made.last_hidden_state
        return states, seen

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        size = max(map(len, rows))
        ids = torch.full((len(rows), size), self._pad, dtype=torch.long)
        mask = torch.zeros((len(rows), size), dtype=torch.bool)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = True
        return ids.to(self._device), mask.to(self._device)


def _load(folder: Path) -> Any:  # Any: a model of transformers
    from transformers import AutoModel, T5EncoderModel

    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with quiet_loading():
            if settings.get("model_type") in ("t5", "mt5", "umt5"):
                return T5EncoderModel.from_pretrained(str(folder), use_safetensors=True)
            loaded = AutoModel.from_pretrained(str(folder), use_safetensors=True)
        return loaded.get_encoder() if loaded.config.is_encoder_decoder else loaded
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"The encoder in {folder} cannot be loaded: {str(error).splitlines()[0]}. "
            "Name a folder or a hub model with config.json, tokenizer.json and safetensors."
        ) from error
