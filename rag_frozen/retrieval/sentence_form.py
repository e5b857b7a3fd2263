"""How a sentence-transformers encoder makes a vector of its token states, and its transformer.

The common form (transformer, mean or CLS pooling, optional normalisation) is read from the model's
own module files, so that it can be run, and trained, without the library's model class.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from rag_frozen.errors import ModelError
from rag_frozen.models.quiet import quiet_loading

__all__ = ["SentenceForm", "guarded", "load_encoder", "pooling", "read_form"]


@dataclass(frozen=True, slots=True)
class SentenceForm:
    """How a vector is made of token states: pooling, length 1 or not, tokens that are read."""

    pooling: Literal["mean", "cls"]
    normalize: bool
    max_tokens: int


def read_form(folder: Path) -> SentenceForm | None:
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
    return SentenceForm(how, kinds[-1] == "Normalize", int(settings.get("max_seq_length") or 512))


def pooling(form: SentenceForm) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """A function of (transformer output, ``attention_mask: [N, T]``) that gives ``[N, d]``."""

    def vector(output: Any, mask: torch.Tensor) -> torch.Tensor:
        states = output.last_hidden_state.float()
        if form.pooling == "cls":
            pooled = states[:, 0]
        else:
            weights = mask[:, :, None].float()
            pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        return torch.nn.functional.normalize(pooled, dim=1) if form.normalize else pooled

    return vector


def load_encoder(folder: Path) -> Any:  # Any: a transformers model
    """Load the transformer of a folder, in the precision that it is stored in.

    Raises:
        ModelError: when it cannot be loaded.
    """
    from transformers import AutoModel

    return guarded(folder, lambda: AutoModel.from_pretrained(str(folder), use_safetensors=True))


def guarded(folder: Path, load: Callable[[], Any]) -> Any:
    """Load quietly, and say what is wrong with the folder where that fails.

    Raises:
        ModelError: when ``load`` fails.
    """
    try:
        with quiet_loading():
            return load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"The encoder in {folder} cannot be loaded: {str(error).splitlines()[0]}. "
            "Name a folder or a hub model with config.json, tokenizer.json and safetensors."
        ) from error
