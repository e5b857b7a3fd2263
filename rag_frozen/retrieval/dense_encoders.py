"""Encode questions and passages as vectors: sentence-transformers models, and DPR's two towers.

Models are run by transformers in token-budget batches sorted by length; a sentence-transformers
model of the common form (transformer, mean or CLS pooling, optional normalisation) is read from
its own module files, and anything else runs through the sentence-transformers library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from rag_frozen.errors import ModelError
from rag_frozen.models.device import DtypeName, choose_device, choose_dtype
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.parameters import ParameterCounts, parameter_counts
from rag_frozen.models.quiet import quiet_loading
from rag_frozen.models.source import ModelFolder
from rag_frozen.models.state_memory import StateMemory
from rag_frozen.models.text_tower import TOKEN_BUDGET, TextTower, Vectors
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


@dataclass(frozen=True, slots=True)
class _Form:
    """How a sentence-transformers model makes a vector of its token states."""

    pooling: Literal["mean", "cls"]
    normalize: bool
    max_tokens: int


class SentenceEncoder:
    """Any sentence-transformers model; questions and passages share it.

    Passages are written as ``title. text``.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        device: str | None = None,
        dtype: DtypeName = "auto",
        token_budget: int = TOKEN_BUDGET,
    ) -> None:
        """Load the model.

        Raises:
            ModelError: when the folder cannot be loaded.
        """
        self.name = model.name
        self.digest = folder_digest(model.path)
        place = choose_device(device)
        form = _read_form(model.path)
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
        tower = _load_auto(model.path)
        self._tower = TextTower(
            tower,
            model.path,
            place,
            choose_dtype(place, dtype),
            form.max_tokens,
            token_budget,
            _pool(form),
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
        token_budget: int = TOKEN_BUDGET,
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


def _pool(form: _Form) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def vector(output: Any, mask: torch.Tensor) -> torch.Tensor:
        states = output.last_hidden_state.float()
        if form.pooling == "cls":
            pooled = states[:, 0]
        else:
            weights = mask[:, :, None].float()
            pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        return torch.nn.functional.normalize(pooled, dim=1) if form.normalize else pooled

    return vector


def _dpr_vector(output: Any, mask: torch.Tensor) -> torch.Tensor:
    pooled: torch.Tensor = output.pooler_output
    return pooled


def _read_form(folder: Path) -> _Form | None:
    """Read the modules of a sentence-transformers folder; None for forms not written here."""
    listed = folder / "modules.json"
    if not listed.is_file():
        return None
    modules = json.loads(listed.read_text(encoding="utf-8"))
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    if not (folder / "tokenizer.json").is_file() or modules[0]["path"]:
        return None
    pooling = json.loads((folder / modules[1]["path"] / "config.json").read_text(encoding="utf-8"))
    chosen = {name for name, on in pooling.items() if name.startswith("pooling_mode_") and on}
    named = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if len(chosen) != 1 or not chosen <= named.keys() or not pooling.get("include_prompt", True):
        return None
    limits = folder / "sentence_bert_config.json"
    settings = json.loads(limits.read_text(encoding="utf-8")) if limits.is_file() else {}
    how: Literal["mean", "cls"] = "cls" if named[chosen.pop()] == "cls" else "mean"
    return _Form(how, kinds[-1] == "Normalize", int(settings.get("max_seq_length") or 512))


def _load_auto(folder: Path) -> Any:
    from transformers import AutoModel

    return _guarded(folder, lambda: AutoModel.from_pretrained(str(folder), use_safetensors=True))


def _load_dpr(folder: Path, which: str) -> Any:
    from transformers import DPRContextEncoder, DPRQuestionEncoder

    kind = DPRQuestionEncoder if which == "question" else DPRContextEncoder
    return _guarded(folder, lambda: kind.from_pretrained(str(folder), use_safetensors=True))


def _guarded(folder: Path, load: Callable[[], Any]) -> Any:
    try:
        with quiet_loading():
            return load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"The encoder in {folder} cannot be loaded: {str(error).splitlines()[0]}. "
            "Name a folder or a hub model with config.json, tokenizer.json and safetensors."
        ) from error


def _joined_digest(first: Path, second: Path) -> str:
    one = folder_digest(first)
    return one if first == second else f"{one[:32]}{folder_digest(second)[:32]}"
