"""The pocket reranker: MiniLM with a score on top; only what was trained is stored.

The embedding tables are MiniLM's, or those of the base: a prefix language model, such as the
pocket reader, whose layers the reranker began from. The rest is stored in one of two forms: all
other weights rounded to int8 with one scale a row, or low-rank adapters in bf16 and the score's own
layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rag_frozen.artifacts import MANIFEST_NAME, verify
from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError
from rag_frozen.models.digest import folder_digest, tensors_digest
from rag_frozen.models.lora import attach_lora, lora_weights, merge_lora
from rag_frozen.models.quiet import quiet_loading
from rag_frozen.models.rounding import restore_rounded, round_matrices
from rag_frozen.models.source import resolve_model
from rag_frozen.reader.prefix_lm_weights import as_bert, load_prefix_lm

__all__ = [
    "add_adapters",
    "base_of",
    "begin_classifier",
    "freeze_embeddings",
    "is_pocket_reranker",
    "load_pocket_classifier",
    "save_pocket_classifier",
]

_KIND = "pocket-reranker"
_WEIGHTS = "model.safetensors"
_WORDS = "bert.embeddings.word_embeddings.weight"
_TABLES = (
    _WORDS,
    "bert.embeddings.position_embeddings.weight",
    "bert.embeddings.token_type_embeddings.weight",
)
"""MiniLM's or the base's, never trained and never stored."""
_SCORE = "classifier"


def begin_classifier(minilm: Path, base: Path | None = None) -> Any:  # Any: a transformers model
    """Make a one-label classifier whose encoder is MiniLM's.

    Args:
        minilm: the encoder's folder.
        base: of a prefix language model over it, whose layers and tables take the encoder's place;
            positions past the encoder's are left out.
    """
    from transformers import AutoModelForSequenceClassification

    with quiet_loading(report=False):  # the score's layer is new
        classifier = AutoModelForSequenceClassification.from_pretrained(
            str(minilm), num_labels=1, use_safetensors=True
        )
    if base is not None:
        state = {n: t for n, t in classifier.state_dict().items() if t.is_floating_point()}
        classifier.load_state_dict({**state, **_of_base(base, minilm, state)}, strict=False)
    return classifier


def freeze_embeddings(classifier: Any) -> dict[str, nn.Parameter]:
    """Let the embedding tables have no gradient, and return them: ``word_embeddings``,
    ``position_embeddings``, ``token_type_embeddings``."""
    named = dict(classifier.named_parameters())
    tables = {name.split(".")[-2]: named[name] for name in _TABLES}
    for table in tables.values():
        table.requires_grad_(False)
    return tables


def add_adapters(classifier: Any, *, rank: int, alpha: float) -> None:
    """Train low-rank adapters on the encoder's linear layers and the score's layer, nothing else.

    Raises:
        MissingPackageError: when PEFT is not installed.
    """
    attach_lora(classifier, rank=rank, alpha=alpha, leave=(_SCORE,))
    classifier.classifier.requires_grad_(True)


def save_pocket_classifier(
    classifier: Any,
    folder: Path,
    *,
    lora: tuple[int, float] | None = None,
    base: str | None = None,
) -> None:
    """Write ``config.json`` and ``model.safetensors``, embedding tables left out.

    Args:
        classifier: trained whole, or with adapters.
        folder: made where it is not there.
        lora: rank and alpha of the adapters, which alone are then stored, as bf16, with the score's
            layer as fp32; without it all matrices are rounded to int8.
        base: name of the prefix language model that it began from; it is loaded beside it alone.
    """
    config: dict[str, object] = {"kind": _KIND, "encoder": "pocket/minilm"}
    if base is not None:
        digest = folder_digest(resolve_model(base).path)
        config["base"] = {"model": base, "digest": digest}
    if lora is None:
        state = classifier.state_dict().items()
        stored = {n: t for n, t in state if n not in _TABLES and t.is_floating_point()}
        tensors = round_matrices(stored)
    else:
        config |= {"rank": lora[0], "alpha": lora[1]}
        adapters = lora_weights(classifier).items()
        tensors = {n: t.to("cpu", torch.bfloat16).contiguous() for n, t in adapters}
        score = classifier.classifier.state_dict().items()
        tensors |= {f"{_SCORE}.{n}": t.detach().cpu().contiguous() for n, t in score}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / _WEIGHTS))
    text = json.dumps(config, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def is_pocket_reranker(folder: Path) -> bool:
    """True for a folder that :func:`save_pocket_classifier` wrote."""
    return _config(folder).get("kind") == _KIND


def base_of(folder: Path) -> str | None:
    """Name of the prefix language model that a pocket reranker is loaded beside, if any."""
    base = _config(folder).get("base")
    return None if base is None else str(base["model"])


def load_pocket_classifier(folder: Path, minilm: Path) -> Any:
    """Load the classifier, in fp32, its embedding tables from MiniLM, adapters merged in.

    Where the folder holds a manifest, the files and MiniLM's tables are checked against the hashes
    that it records.

    Raises:
        ArtifactDamagedError: when the weights are missing, truncated, changed or do not fit.
        ArtifactMismatchError: when ``minilm`` has other embeddings than it was trained with, or the
            base is another.
    """
    from transformers import BertConfig, BertForSequenceClassification

    manifest = verify(folder, kind="model") if (folder / MANIFEST_NAME).is_file() else None
    try:
        stored = load_file(str(folder / _WEIGHTS))
        source = _named_as_ours(load_file(str(minilm / _WEIGHTS)))
        words = source[_WORDS]
        _check_words(words, None if manifest is None else manifest.digests, folder, minilm)
        config = _config(folder)
        if "base" in config:
            base = _checked_base(folder, **config["base"])
            source |= _of_base(base, minilm, source)
        state = _state(stored, source, config)
        form = BertConfig.from_pretrained(str(minilm), num_labels=1)
        classifier = BertForSequenceClassification(form)
        missing = classifier.load_state_dict(state, strict=False)
        lost = [n for n in missing.missing_keys if "position_ids" not in n]
        if lost or missing.unexpected_keys:
            raise ValueError(f"tensors missing {lost}, unexpected {missing.unexpected_keys}")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ArtifactDamagedError(
            f"The reranker in {folder} cannot be loaded: {error}. Install the package again, or "
            "train it again by the recipe that its manifest names."
        ) from error
    return classifier.eval()


def _checked_base(folder: Path, *, model: str, digest: str) -> Path:
    path = resolve_model(model).path
    if (found := folder_digest(path)) != digest:
        raise ArtifactMismatchError(
            f"The reranker in {folder} was trained over {model} with digest {digest[:12]}…, the "
            f"one here has {found[:12]}…. Use that model, or train the reranker again."
        )
    return path


def _of_base(base: Path, minilm: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a prefix language model by the names of a classifier, as long as ``like``."""
    tensors = {f"bert.{n}": t for n, t in as_bert(load_prefix_lm(base, minilm)).items()}
    return {name: tensor[: len(like[name])].clone() for name, tensor in tensors.items()}


def _config(folder: Path) -> Mapping[str, Any]:  # Any: JSON values
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _named_as_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's tensors by the names that they have in a classifier."""
    return {
        name if name.startswith("bert.") else f"bert.{name}": tensor
        for name, tensor in tensors.items()
        if not name.startswith(_SCORE) and tensor.is_floating_point()
    }


def _state(
    stored: Mapping[str, Tensor], source: Mapping[str, Tensor], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The classifier's whole state: what was stored over what is MiniLM's."""
    if "rank" not in config:
        tables = {name: source[name] for name in _TABLES if name in source}
        return {**tables, **restore_rounded(stored)}
    score = {name: tensor for name, tensor in stored.items() if name.startswith(_SCORE)}
    adapter = {name: tensor for name, tensor in stored.items() if name not in score}
    scale = float(config["alpha"]) / int(config["rank"])
    return {**merge_lora(source, adapter, scale=scale), **score}


def _check_words(
    words: Tensor, digests: Mapping[str, str] | None, folder: Path, minilm: Path
) -> None:
    recorded = (digests or {}).get("word_embeddings")
    if recorded is not None and (found := tensors_digest({"words": words})) != recorded:
        raise ArtifactMismatchError(
            f"The reranker in {folder} was trained with word embeddings {recorded[:12]}…, those "
            f"in {minilm} are {found[:12]}…. Use the encoder that its manifest names."
        )
