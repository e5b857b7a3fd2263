"""The training of a pocket retriever as a job."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer

from rag_frozen.models.device import choose_device, choose_dtype
from rag_frozen.models.source import resolve_model
from rag_frozen.training.adapter_job import begin_adapters, frozen_part, write_adapters
from rag_frozen.training.job import Begun, Job, named_inputs
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.ranking_data import load_ranking_data
from rag_frozen.training.reranker_job import ranking_hashes
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.retriever_task import RetrieverTask

__all__ = ["retriever_job"]


def retriever_job(settings: RetrieverTraining, *, share: Share = ALONE) -> Job:
    """Name the recipe's inputs; models and data are loaded when the job begins."""
    encoder = resolve_model(settings.encoder).path
    recipe, inputs = named_inputs(settings)
    inputs |= ranking_hashes(settings.data)
    return Job(settings, recipe, inputs, lambda home: _begin(settings, encoder, share))


def _begin(settings: RetrieverTraining, folder: Path, share: Share) -> Begun:
    device = share.device or choose_device()
    encoder, form = begin_adapters(settings, folder)
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
        write_adapters(encoder, target, settings=settings, task=task)

    rows = sum(len(source.rows) for source in sources)
    counts = {"questions": rows, "validation_questions": len(validation)}
    return Begun(task, {"encoder": frozen_part(encoder)}, write, validate_first=True, counts=counts)
