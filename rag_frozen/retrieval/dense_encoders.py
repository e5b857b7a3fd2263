"""Encode questions and passages as vectors: sentence-transformers models, and DPR's two towers.

Models are run by transformers in token-budget batches sorted by length; a sentence-transformers
model of the common form (transformer, mean or CLS pooling, optional normalisation) is read from
its own module files, and anything else runs through the sentence-transformers library.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from rag_frozen.errors import ModelError
from rag_frozen.models.device import DtypeName, choose_device, choose_dtype
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.parameters import ParameterCounts, parameter_counts
from rag_frozen.models.source import ModelFolder
from rag_frozen.models.state_memory import StateMemory
from rag_frozen.models.text_tower import TextTower, Vectors
from rag_frozen.retrieval.minilm_adapter import (
    is_adapter,
    load_adapted_encoder,
    passages_digest,
)
from rag_frozen.retrieval.sentence_form import guarded, load_encoder, pooling, read_form
from rag_frozen.types import Passage

__all__ = ["DprEncoder", "Encoder", "SentenceEncoder", "Vectors"]


class Encoder(Protocol):
    """What dense retrieval needs: two encoders into one space, and a name and digest for each."""

    name: str
    digest: str

    @property
    def width(self) -> int:
        """Length d of the vectors."""
        ...

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        """Return ``[n, d]``."""
        ...

    def encode_passages(self, passages: Sequence[Passage]) -> Vectors:
        """Return ``[n, d]``."""
        ...


class SentenceEncoder:
    """Any sentence-transformers model, or adapters over one that this project trained (kind
    minilm-adapter in their ``config.json``); questions and passages share it.

    Passages are written as ``title. text``.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        device: str | None = None,
        dtype: DtypeName = "auto",
        token_budget: int | None = None,
        questions: bool = False,
    ) -> None:
        """Load the model.

        Args:
            model: its folder.
            device, dtype: where and in what it runs.
            token_budget: tokens a batch, padding included.
            questions: adapters that were trained for questions alone are refused without it.

        Raises:
            ModelError: when the folder cannot be loaded.
        """
        self.name = model.name
        self.digest = folder_digest(model.path)
        place = choose_device(device)
        adapts = is_adapter(model.path)
        if adapts and not questions and passages_digest(model.path) is not None:
            raise ModelError(
                f"{model.name} encodes questions alone; passages keep the encoder beside which it "
                "was trained. Name that one in the index recipe, and this in the pipeline's: "
                f"retrieval: {{kind: dense, question_encoder: {model.name}}}"
            )
        adapted = load_adapted_encoder(model.path) if adapts else None
        folder = model.path if adapted is None else adapted.base
        form = read_form(folder)
        self._tower: TextTower | None = None
        self._memory: StateMemory | None = None
        self._library: Any = None  # Any: SentenceTransformer, which is untyped
        if form is None:
            from sentence_transformers import SentenceTransformer

            self._library = SentenceTransformer(
                str(model.path), device=str(place), model_kwargs={"use_safetensors": True}
            )
            self._width = int(self._library.get_sentence_embedding_dimension())
            return
        tower = load_encoder(folder) if adapted is None else adapted.encoder
        self._tower = TextTower(
            tower,
            folder,
            place,
            choose_dtype(place, dtype),
            form.max_tokens,
            token_budget,
            pooling(form),
        )
        self._width = int(tower.config.hidden_size)

    @property
    def width(self) -> int:
        """Length of the vectors."""
        return self._width

    def share_states(self, memory: StateMemory) -> bool:
        """Keep the token states of questions in ``memory``; False where the library encodes."""
        self._memory = memory
        return self._tower is not None

    @property
    def tokens_read(self) -> int:
        """Tokens read so far; 0 where the library reads them."""
        return self._tower.tokens_read if self._tower else 0

    @property
    def model(self) -> torch.nn.Module:
        """The transformer, or the library's model around it."""
        module: torch.nn.Module = self._tower.model if self._tower else self._library
        return module

    def parameter_counts(self) -> ParameterCounts:
        """All weights, and those outside of embedding tables."""
        return self._tower.parameter_counts() if self._tower else parameter_counts(self._library)

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        """Return ``[n, d]``."""
        if self._tower is None or self._memory is None:
            return self._encode(texts)
        self._tower.memory = self._memory
        try:
            return self._encode(texts)
        finally:
            self._tower.memory = None

    def encode_passages(self, passages: Sequence[Passage]) -> Vectors:
        """Return ``[n, d]``."""
        return self._encode([f"{p.title}. {p.text}" if p.title else p.text for p in passages])

    def _encode(self, texts: Sequence[str]) -> Vectors:
        if self._tower is not None:
            return self._tower.encode([(text, None) for text in texts])
        vectors = self._library.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self._width)


class DprEncoder:
    """DPR's question and passage towers (Karpukhin et al. 2020, section 3): the CLS state, inner
    product; a passage is its title and its text as a pair, at most 256 tokens.

    Spider's hub checkpoint (``tau/spider``) is one tower for both: name it twice.
    """

    def __init__(
        self,
        questions: ModelFolder,
        passages: ModelFolder,
        *,
        device: str | None = None,
        dtype: DtypeName = "auto",
        token_budget: int | None = None,
    ) -> None:
        """Load both towers.

        Raises:
            ModelError: when a folder cannot be loaded, or the towers' widths differ.
        """
        place = choose_device(device)
        precision = choose_dtype(place, dtype)
        question_tower = _load_dpr(questions.path, "question")
        same = questions.path == passages.path
        passage_tower = question_tower if same else _load_dpr(passages.path, "passage")
        widths = [int(tower.config.hidden_size) for tower in (question_tower, passage_tower)]
        if widths[0] != widths[1]:
            raise ModelError(
                f"{questions.name} gives vectors of {widths[0]}, {passages.name} of {widths[1]}. "
                "Name two towers that were trained together."
            )
        self.name = f"{questions.name} + {passages.name}"
        self.digest = _joined_digest(questions.path, passages.path)
        self._width = widths[0]
        self._questions = TextTower(
            question_tower, questions.path, place, precision, 256, token_budget, _dpr_vector
        )
        self._passages = TextTower(
            passage_tower, passages.path, place, precision, 256, token_budget, _dpr_vector
        )

    @property
    def width(self) -> int:
        """Length of the vectors."""
        return self._width

    @property
    def tokens_read(self) -> int:
        """Tokens of questions read so far."""
        return self._questions.tokens_read

    @property
    def model(self) -> torch.nn.Module:
        """The question tower's transformer."""
        return self._questions.model

    def parameter_counts(self) -> ParameterCounts:
        """The question tower's weights, and those outside of embedding tables."""
        return self._questions.parameter_counts()

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        """Return ``[n, d]``."""
        return self._questions.encode([(text, None) for text in texts])

    def encode_passages(self, passages: Sequence[Passage]) -> Vectors:
        """Return ``[n, d]``."""
        return self._passages.encode([(p.title, p.text) for p in passages])


def _dpr_vector(output: Any, mask: torch.Tensor) -> torch.Tensor:
    pooled: torch.Tensor = output.pooler_output
    return pooled


def _load_dpr(folder: Path, which: str) -> Any:
    from transformers import DPRContextEncoder, DPRQuestionEncoder

    kind = DPRQuestionEncoder if which == "question" else DPRContextEncoder
    return guarded(folder, lambda: kind.from_pretrained(str(folder), use_safetensors=True))


def _joined_digest(first: Path, second: Path) -> str:
    one = folder_digest(first)
    return one if first == second else f"{one[:32]}{folder_digest(second)[:32]}"
