"""The pocket reranker: MiniLM with a score on top; only what was trained is stored.

The word embeddings are MiniLM's; the other weights are rounded to int8 with one scale a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rag_frozen.artifacts import MANIFEST_NAME, verify
from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError
from rag_frozen.models.digest import tensors_digest
from rag_frozen.models.rounding import restore_rounded, round_matrices

__all__ = [
    "begin_classifier",
    "is_pocket_reranker",
    "load_pocket_classifier",
    "save_pocket_classifier",
]

_KIND = "pocket-reranker"
_WORDS = "bert.embeddings.word_embeddings.weight"


def begin_classifier(minilm: Path) -> Any:  # Any: a transformers model
    """Make a one-label classifier whose encoder is MiniLM's."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        str(minilm), num_labels=1, use_safetensors=True
    )


def save_pocket_classifier(classifier: Any, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``, word embeddings left out, rounded."""
    tensors = {name: t for name, t in classifier.state_dict().items() if name != _WORDS}
    tensors = {name: t for name, t in tensors.items() if t.is_floating_point()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(round_matrices(tensors), str(folder / "model.safetensors"))
    text = json.dumps({"kind": _KIND, "encoder": "pocket/minilm"}, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def is_pocket_reranker(folder: Path) -> bool:
    """True for a folder that :func:`save_pocket_classifier` wrote."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("kind") == _KIND


def load_pocket_classifier(folder: Path, minilm: Path) -> Any:
    """Load the classifier, in fp32, its word embeddings from MiniLM.

    Where the folder holds a manifest, the files and MiniLM's word embeddings are checked against
    the hashes that it records.

    Raises:
        ArtifactDamagedError: when the weights are missing, truncated, changed or do not fit.
        ArtifactMismatchError: when ``minilm`` has other word embeddings than it was trained with.
    """
    from transformers import BertConfig, BertForSequenceClassification

    manifest = verify(folder, kind="model") if (folder / MANIFEST_NAME).is_file() else None
    try:
        trained = restore_rounded(load_file(str(folder / "model.safetensors")))
        words = load_file(str(minilm / "model.safetensors"))
        name = next(name for name in words if name.endswith("word_embeddings.weight"))
        _check_words(words[name], None if manifest is None else manifest.digests, folder, minilm)
        config = BertConfig.from_pretrained(str(minilm), num_labels=1)
        classifier = BertForSequenceClassification(config)
        missing = classifier.load_state_dict({**trained, _WORDS: words[name]}, strict=False)
        lost = [n for n in missing.missing_keys if "position_ids" not in n]
        if lost or missing.unexpected_keys:
            raise ValueError(f"tensors missing {lost}, unexpected {missing.unexpected_keys}")
    except (OSError, ValueError, RuntimeError, StopIteration, SafetensorError) as error:
        raise ArtifactDamagedError(
            f"The reranker in {folder} cannot be loaded: {error}. Install the package again, or "
            "train it again with: rag-frozen train pocket-reranker"
        ) from error
    return classifier.eval()


def _check_words(
    words: Tensor, digests: Mapping[str, str] | None, folder: Path, minilm: Path
) -> None:
    recorded = (digests or {}).get("word_embeddings")
    if recorded is not None and (found := tensors_digest({"words": words})) != recorded:
        raise ArtifactMismatchError(
            f"The reranker in {folder} was trained with word embeddings {recorded[:12]}…, those "
            f"in {minilm} are {found[:12]}…. Use the encoder that its manifest names."
        )
