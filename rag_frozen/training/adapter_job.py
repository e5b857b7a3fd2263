"""What the jobs of both retriever trainings share: adapters over a sentence encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rag_frozen.models.lora import attach_lora, lora_weights, restore_lora
from rag_frozen.models.source import resolve_model
from rag_frozen.retrieval.minilm_adapter import (
    begin_encoder,
    load_adapted_encoder,
    read_adapter,
    save_adapter,
)
from rag_frozen.retrieval.sentence_form import SentenceForm
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.trained_encoder import TrainedEncoder

__all__ = ["begin_adapters", "frozen_part", "write_adapters"]

_POOLER = "pooler.dense"
"""BERT's pooler, which mean pooling does not read."""


def begin_adapters(
    settings: RetrieverTraining, folder: Path
) -> tuple[Any, SentenceForm]:  # Any: a transformers model
    """Load the encoder, and put fresh adapters on it, or those that the recipe starts from.

    Args:
        settings: the recipe.
        folder: of the plain encoder.

    Raises:
        ModelError: when it is no sentence encoder of the common form.
        ArtifactDamagedError: when the start cannot be read.
    """
    encoder, form = begin_encoder(folder)
    attach_lora(encoder, rank=settings.lora.rank, alpha=settings.lora.alpha, leave=(_POOLER,))
    if settings.start_from is not None:
        adapter, _ = read_adapter(resolve_model(settings.start_from).path)
        restore_lora(encoder, adapter)
    return encoder, form


def frozen_part(encoder: nn.Module) -> Mapping[str, Tensor]:
    """The tensors that no training of adapters may change."""
    return {name: p for name, p in encoder.named_parameters() if not p.requires_grad}


def write_adapters(
    encoder: nn.Module,
    target: Path,
    *,
    settings: RetrieverTraining,
    task: TrainedEncoder,
    passages: str | None = None,
) -> None:
    """Write the adapters, and let the task measure what is loaded from there.

    Args:
        encoder: with its adapters.
        target: folder of the artifact.
        settings: the recipe.
        task: what trained them.
        passages: of adapters for questions alone, the digest of the encoder that passages keep.
    """
    save_adapter(
        lora_weights(encoder),
        target,
        encoder=settings.encoder,
        rank=settings.lora.rank,
        alpha=settings.lora.alpha,
        passages=passages,
    )
    task.use(load_adapted_encoder(target).encoder)
