"""The training of a pocket retriever as a job."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer

from rag_frozen.artifacts import file_sha256
from rag_frozen.models.device import choose_device, choose_dtype
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.lora import attach_lora, lora_weights, restore_lora
from rag_frozen.models.source import resolve_model
from rag_frozen.retrieval.minilm_adapter import (
    begin_encoder,
    load_adapted_encoder,
    read_adapter,
    save_adapter,
)
from rag_frozen.training.job import Begun, Job
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.ranking_data import load_ranking_data
from rag_frozen.training.reranker_job import ranking_hashes
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.retriever_task import RetrieverTask

__all__ = ["retriever_job"]

_POOLER = "pooler.dense"
"""BERT's pooler, which mean pooling does not read."""


def retriever_job(settings: RetrieverTraining, *, share: Share = ALONE) -> Job:
    """Name the recipe's inputs; models and data are loaded when the job begins."""
    encoder = resolve_model(settings.encoder).path
    recipe = settings.model_dump(mode="json")
    recipe["data"].pop("path")  # the files' hashes name the data, not where they lie
    inputs = {"encoder": file_sha256(encoder / "model.safetensors")}
    inputs |= ranking_hashes(settings.data)
    if settings.start_from is not None:
        inputs["start"] = folder_digest(resolve_model(settings.start_from).path)
        recipe["start_from"] = "start"  # its digest names it, not where it lies
    return Job(settings, recipe, inputs, lambda home: _begin(settings, encoder, share))


def _begin(settings: RetrieverTraining, folder: Path, share: Share) -> Begun:
    device = share.device or choose_device()
    encoder, form = begin_encoder(folder)
    lora = settings.lora
    attach_lora(encoder, rank=lora.rank, alpha=lora.alpha, leave=(_POOLER,))
    if settings.start_from is not None:
        adapter, _ = read_adapter(resolve_model(settings.start_from).path)
        restore_lora(encoder, adapter)
    sources, validation = load_ranking_data(
        settings.data, examples=settings.examples, seed=settings.seed
    )
    task = RetrieverTask(
        encoder,
        form,
        Tokenizer.from_file(str(folder / "tokenizer.json")),
        settings,
        sources=sources,
        validation=validation,
        bf16=choose_dtype(device) is torch.bfloat16,
        device=device,
        share=share,
    )

    def write(target: Path) -> None:
        save_adapter(
            lora_weights(encoder),
            target,
            encoder=settings.encoder,
            rank=lora.rank,
            alpha=lora.alpha,
        )
        task.use(load_adapted_encoder(target).encoder)

    frozen = {n: p for n, p in encoder.named_parameters() if not p.requires_grad}
    rows = sum(len(source.rows) for source in sources)
    counts = {"questions": rows, "validation_questions": len(validation)}
    return Begun(task, {"encoder": frozen}, write, validate_first=True, counts=counts)
