"""The training of a question encoder beside a passage encoder that stays, as a job."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer

from rag_frozen.artifacts import fingerprint, load_manifest
from rag_frozen.errors import ArtifactMismatchError
from rag_frozen.indexing.parts import BuiltIndex
from rag_frozen.models.device import choose_device, choose_dtype
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.source import resolve_model
from rag_frozen.training.adapter_job import begin_adapters, frozen_part, write_adapters
from rag_frozen.training.job import Begun, Job, named_inputs
from rag_frozen.training.passage_bank import PassageBank, find_bank
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.question_tower_data import load_bank_data
from rag_frozen.training.question_tower_task import QuestionTowerTask
from rag_frozen.training.reranker_job import ranking_hashes
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.sources import excluded_ids

__all__ = ["question_tower_job"]


def question_tower_job(
    settings: RetrieverTraining, *, root: Path | None = None, share: Share = ALONE
) -> Job:
    """Name the recipe's inputs; models, data and vectors are loaded when the job begins.

    Args:
        settings: with ``towers: question`` and a bank.
        root: artifacts' folder, where the bank's index lies.
        share: this process's part.

    Raises:
        ArtifactMissingError: when the index is not built.
        ArtifactMismatchError: when it was built with another encoder than the recipe's.
    """
    assert settings.bank is not None
    encoder = resolve_model(settings.encoder).path
    built = find_bank(settings.bank.index, root)
    _check_encoder(settings, encoder, built)
    recipe, inputs = named_inputs(settings)
    recipe["bank"]["index"] = "bank"  # its fingerprints name it, not where it lies
    inputs |= {f"bank {role}": built.part(role).fingerprint for role in ("corpus", "dense")}
    inputs |= ranking_hashes(settings.data, more=_measured(settings))
    identity = fingerprint(recipe, inputs)

    def begin(home: Path) -> Begun:
        # beside the checkpoints, and removed with them
        rounds = home / f"unfinished-{identity}" / "rounds"
        return _begin(settings, encoder, built, rounds, share)

    return Job(settings, recipe, inputs, begin)


def _measured(settings: RetrieverTraining) -> list[str]:
    asked = settings.bank.questions if settings.bank is not None else None
    return [] if asked is None else [asked.file]


def _check_encoder(settings: RetrieverTraining, encoder: Path, built: BuiltIndex) -> None:
    made_by = load_manifest(built.part("dense").folder, kind="index").models["encoder"]
    if made_by.digest != (ours := folder_digest(encoder)):
        raise ArtifactMismatchError(
            f"The dense index of {built.name} was built with {made_by.name} (digest "
            f"{made_by.digest[:12]}), the training begins from {settings.encoder} ({ours[:12]}). "
            "Name that encoder, or the index of this one."
        )


def _begin(
    settings: RetrieverTraining, folder: Path, built: BuiltIndex, rounds: Path, share: Share
) -> Begun:
    device = share.device or choose_device()
    encoder, form = begin_adapters(settings, folder)
    bank = PassageBank(
        built, exclude=sorted(excluded_ids(settings.data.passages, settings.data.path))
    )
    sources, validation = load_bank_data(settings, bank)
    task = QuestionTowerTask(
        encoder,
        form,
        Tokenizer.from_file(str(folder / "tokenizer.json")),
        settings,
        bank=bank,
        sources=sources,
        validation=validation,
        rounds=rounds,
        bf16=choose_dtype(device) is torch.bfloat16,
        device=device,
        share=share,
    )
    passages = folder_digest(folder)

    def write(target: Path) -> None:
        write_adapters(encoder, target, settings=settings, task=task, passages=passages)

    counts = {"questions": sum(len(source.rows) for source in sources)}
    counts["validation_questions"] = sum(len(asked) for asked in validation.values())
    return Begun(task, {"encoder": frozen_part(encoder)}, write, validate_first=True, counts=counts)
