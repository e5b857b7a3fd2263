"""Trained adapters over a sentence encoder: a few megabytes that change what MiniLM retrieves.

Stored are the low-rank matrices in bf16 and the name of the encoder; they are merged into its
weights when it is loaded, so that encoding costs what it cost before.

Adapters of questions alone name the digest of the encoder that passages keep.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rag_frozen.artifacts import MANIFEST_NAME, file_sha256, load_manifest, verify
from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError, ModelError
from rag_frozen.models.lora import merge_lora
from rag_frozen.models.source import resolve_model
from rag_frozen.retrieval.sentence_form import SentenceForm, load_encoder, read_form

__all__ = [
    "AdaptedEncoder",
    "begin_encoder",
    "is_adapter",
    "load_adapted_encoder",
    "passages_digest",
    "read_adapter",
    "save_adapter",
]

_KIND = "minilm-adapter"
_WEIGHTS = "model.safetensors"
_TRAIN = "rag-frozen train pocket-retriever"


@dataclass(frozen=True, slots=True)
class AdaptedEncoder:
    """An encoder with adapters merged in, and the folder of the plain one, which has the tokenizer
    and says how vectors are pooled."""

    encoder: Any  # a transformers model
    base: Path


def begin_encoder(folder: Path) -> tuple[Any, SentenceForm]:  # Any: a transformers model
    """Load the transformer that adapters are trained over, in fp32, and its pooling.

    Raises:
        ModelError: when it is no sentence encoder of the common form.
    """
    form = read_form(folder)
    if form is None:
        raise ModelError(
            f"{folder} is no sentence-transformers model of the form transformer, mean or CLS "
            "pooling, normalisation; adapters are trained over those. Use pocket/minilm."
        )
    return load_encoder(folder).float(), form


def save_adapter(
    tensors: Mapping[str, Tensor],
    folder: Path,
    *,
    encoder: str,
    rank: int,
    alpha: float,
    passages: str | None = None,
) -> None:
    """Write ``config.json`` and ``model.safetensors``, the matrices as bf16.

    Args:
        tensors: as :func:`rag_frozen.models.lora.lora_weights` gives them.
        folder: made where it is not there.
        encoder: the plain encoder's name, by which it is found when loading.
        rank, alpha: of the adapters.
        passages: of adapters for questions alone, the digest of the encoder that passages keep.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        name: t.detach().to("cpu", torch.bfloat16).contiguous() for name, t in tensors.items()
    }
    save_file(stored, str(folder / _WEIGHTS))
    config: dict[str, object] = {"kind": _KIND, "encoder": encoder, "rank": rank, "alpha": alpha}
    if passages is not None:
        config["passages"] = passages
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def is_adapter(folder: Path) -> bool:
    """True for a folder that :func:`save_adapter` wrote."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("kind") == _KIND


def passages_digest(folder: Path) -> str | None:
    """Digest of the encoder that passages keep; None for adapters of questions and passages.

    Raises:
        ArtifactDamagedError: when the adapters cannot be read.
    """
    _, config = read_adapter(folder)
    declared = config.get("passages")
    return None if declared is None else str(declared)


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Read the matrices and the configuration; hashes are checked where there is a manifest.

    Raises:
        ArtifactDamagedError: when a file is missing, truncated or changed.
    """
    if (folder / MANIFEST_NAME).is_file():
        verify(folder, kind="model")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not (isinstance(config, dict) and {"encoder", "rank", "alpha"} <= config.keys()):
            raise ValueError("config.json names no encoder, rank and alpha")
        return load_file(str(folder / _WEIGHTS)), config
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactDamagedError(
            f"The adapters in {folder} cannot be loaded: {error}. Train them again with: {_TRAIN}"
        ) from error


def load_adapted_encoder(folder: Path) -> AdaptedEncoder:
    """Load the encoder that the adapters name, with them merged into its weights.

    Raises:
        ArtifactDamagedError: when the adapters' files are damaged.
        ArtifactMismatchError: when the encoder is not the one that they were trained over.
        ModelMissingError: when it is not at hand.
    """
    adapter, config = read_adapter(folder)
    base = resolve_model(str(config["encoder"])).path
    _check_base(folder, base)
    encoder, _ = begin_encoder(base)
    scale = float(config["alpha"]) / int(config["rank"])
    encoder.load_state_dict(merge_lora(encoder.state_dict(), adapter, scale=scale))
    return AdaptedEncoder(encoder.eval(), base)


def _check_base(folder: Path, base: Path) -> None:
    if not (folder / MANIFEST_NAME).is_file():
        return
    recorded = load_manifest(folder, kind="model").models["encoder"].digest
    found = file_sha256(base / _WEIGHTS)
    if found != recorded:
        raise ArtifactMismatchError(
            f"The adapters in {folder} were trained over an encoder with SHA-256 "
            f"{recorded[:12]}…, that in {base} has {found[:12]}…. Use the encoder that their "
            "manifest names."
        )
