"""The training of a pocket reranker as a job."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from rag_frozen.errors import RecipeError
from rag_frozen.models.averaging import mean_state
from rag_frozen.models.device import choose_device, choose_dtype
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.source import resolve_model
from rag_frozen.reader.make import make_reader
from rag_frozen.rerank.pocket import (
    add_adapters,
    base_of,
    begin_classifier,
    freeze_embeddings,
    load_pocket_classifier,
    save_pocket_classifier,
)
from rag_frozen.training.job import Begun, Job, data_hashes, named_inputs
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.ranking_data import load_ranking_data
from rag_frozen.training.ranking_rows import RankingSource
from rag_frozen.training.ranking_settings import RankingData
from rag_frozen.training.reranker_likelihoods import judge_sources
from rag_frozen.training.reranker_settings import RerankerTraining
from rag_frozen.training.reranker_task import RerankerTask

__all__ = ["ranking_hashes", "reranker_job"]

_LOG = logging.getLogger(__name__)


def reranker_job(settings: RerankerTraining, *, share: Share = ALONE) -> Job:
    """Name the recipe's inputs; models and data are loaded when the job begins."""
    encoder = resolve_model(settings.encoder).path
    recipe, inputs = named_inputs(settings)
    inputs |= ranking_hashes(settings.data)
    if settings.base is not None:
        inputs["base"] = folder_digest(resolve_model(settings.base).path)
    if settings.loss == "ralm" and settings.likelihood is not None:
        judge = settings.likelihood.reader
        inputs["reader"] = folder_digest(
            resolve_model(judge.model, revision=getattr(judge, "revision", None)).path
        )
    return Job(settings, recipe, inputs, lambda home: _begin(settings, encoder, home, share))


def ranking_hashes(data: RankingData, *, more: Sequence[str] = ()) -> dict[str, str]:
    """What the data are: hashes of all files that a training of reranker or retriever reads; those
    of ``more`` files below the data's folder with them."""
    sources = [*data.questions, data.held_out.titles, data.held_out.rows]
    files = [name for name in (data.held_out.candidates, data.harder) if name is not None]
    files += more
    return data_hashes(data.path, data.passages, sources, files=files)


def _begin(settings: RerankerTraining, encoder: Path, home: Path, share: Share) -> Begun:
    device = share.device or choose_device()
    classifier = _classifier(settings, encoder)
    tables = freeze_embeddings(classifier)
    lora = settings.lora
    if lora is not None:
        add_adapters(classifier, rank=lora.rank, alpha=lora.alpha)
    sources, validation = load_ranking_data(
        settings.data, examples=settings.examples, seed=settings.seed
    )
    if settings.loss == "ralm":
        sources = _judged(settings, sources, home, share)
    task = RerankerTask(
        classifier,
        Tokenizer.from_file(str(encoder / "tokenizer.json")),
        settings,
        sources=sources,
        validation=validation,
        bf16=choose_dtype(device) is torch.bfloat16,
        device=device,
        share=share,
    )

    def write(folder: Path) -> None:
        form = None if lora is None else (lora.rank, lora.alpha)
        save_pocket_classifier(classifier, folder, lora=form, base=settings.base)
        task.use(load_pocket_classifier(folder, encoder))

    words = tables["word_embeddings"]
    fixed = {name: p for name, p in classifier.named_parameters() if not p.requires_grad}
    frozen = {"word_embeddings": {"words": words}, "fixed": fixed}
    rows = sum(len(source.rows) for source in sources)
    counts = {"questions": rows, "validation_questions": len(validation)}
    return Begun(task, frozen, write, validate_first=True, counts=counts)


def _classifier(settings: RerankerTraining, encoder: Path) -> Any:  # Any: a transformers model
    """The model to train: the encoder's or the base's layers, or what was trained before."""
    base = None if settings.base is None else resolve_model(settings.base).path
    start = settings.start_from
    if start is None:
        return begin_classifier(encoder, base)
    folders = [resolve_model(n).path for n in ((start,) if isinstance(start, str) else start)]
    for folder in folders:
        if (found := base_of(folder)) != settings.base:
            raise RecipeError(
                f"The reranker in {folder} has the base {found}, the recipe says {settings.base}. "
                f"Set base: {found or 'null'}."
            )
    models = [load_pocket_classifier(folder, encoder) for folder in folders]
    if len(models) > 1:
        models[0].load_state_dict(mean_state([model.state_dict() for model in models]))
    return models[0]


def _judged(
    settings: RerankerTraining, sources: Sequence[RankingSource], home: Path, share: Share
) -> list[RankingSource]:
    """The sources with the frozen reader's log-likelihoods, asked by the first process."""
    judge = settings.likelihood
    assert judge is not None
    reader = make_reader(judge.reader, device=share.device_name)
    if not share.is_main:
        share.wait()

    def told(done: int, total: int) -> None:
        _LOG.info("The reader has judged the passages of %d of %d questions", done, total)

    judged = judge_sources(
        sources,
        reader,
        judge.template,
        depth=judge.depth,
        cache=home / "likelihoods",
        report=told,
    )
    if share.is_main:
        share.wait()
    return judged
