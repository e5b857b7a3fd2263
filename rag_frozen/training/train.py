"""``rag-frozen train RECIPE``: from a recipe to a finished artifact, whatever is trained.

Chooses the task by the recipe's ``kind``. The artifact is written whole at the end; the state of
an unfinished training stands beside it and is continued by the same command.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from rag_frozen.artifacts import (
    MANIFEST_NAME,
    ModelRecord,
    artifact_root,
    file_sha256,
    fingerprint,
    load_manifest,
    name_folder,
    write_artifact,
)
from rag_frozen.errors import FrozenWeightsChangedError, RecipeError
from rag_frozen.models.device import choose_device, choose_dtype
from rag_frozen.models.digest import folder_digest, tensors_digest
from rag_frozen.models.source import resolve_model
from rag_frozen.reader.prefix_lm import PrefixLM, PrefixLMConfig
from rag_frozen.reader.prefix_lm_weights import begin_from_minilm, load_prefix_lm, save_trained
from rag_frozen.recipes.loading import find_recipe, load_recipe, read_recipe
from rag_frozen.rerank.pocket import (
    begin_classifier,
    load_pocket_classifier,
    save_pocket_classifier,
)
from rag_frozen.training.loop import LoopResult, Progress, run_loop
from rag_frozen.training.plots import plot_training
from rag_frozen.training.prompt_settings import PromptTraining
from rag_frozen.training.prompt_training import train_prompt
from rag_frozen.training.reader_task import ReaderTask
from rag_frozen.training.reranker_settings import RerankerTraining
from rag_frozen.training.reranker_task import RerankerTask, load_ranking_data
from rag_frozen.training.settings import PassageSource, ReaderTraining, ReadingSource
from rag_frozen.training.sources import load_reading_data

__all__ = ["TrainingReport", "train"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """A finished training: where its artifact lies, its metrics, its seconds."""

    folder: Path
    metrics: dict[str, float]
    seconds: float
    reused: bool = False
    faults: tuple[str, ...] = ()
    """Why a trained prompt is not good; empty for a good one, and for other trainings."""


def train(
    recipe: str | Path,
    *,
    overrides: Sequence[str] = (),
    root: Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> TrainingReport:
    """Run a training recipe to the end, continuing an unfinished run of it.

    Args:
        recipe: a name (``pocket-reader``) or a path.
        overrides: ``a.b=c`` settings.
        root: artifacts' folder; the result lies in ``<root>/models/<name>/<fingerprint>``.
        report: is told the progress.

    Raises:
        RecipeError, InputError, DataFormatError: when recipe or data cannot be used.
        FrozenWeightsChangedError: when weights changed that must stay.
    """
    path = find_recipe(recipe, "pipelines/train")
    kind = read_recipe(path, overrides=overrides).get("kind")
    home = artifact_root(root)
    match kind:
        case "pocket-reader":
            reader = load_recipe(
                path, ReaderTraining, folder="pipelines/train", overrides=overrides
            )
            return _train_reader(reader, home, report)
        case "pocket-reranker":
            reranker = load_recipe(
                path, RerankerTraining, folder="pipelines/train", overrides=overrides
            )
            return _train_reranker(reranker, home, report)
        case "prompt":
            prompt = load_recipe(
                path, PromptTraining, folder="pipelines/train", overrides=overrides
            )
            made = train_prompt(prompt, home, report)
            return TrainingReport(made.folder, made.metrics, made.seconds, made.reused, made.faults)
        case _:
            raise RecipeError(
                f"The recipe {path} is of kind {kind!r}; what can be trained is pocket-reader, "
                "pocket-reranker and prompt."
            )


def _train_reader(
    settings: ReaderTraining, root: Path, report: Callable[[Progress], None]
) -> TrainingReport:
    encoder = resolve_model(settings.encoder).path
    recipe = settings.model_dump(mode="json")
    recipe["data"].pop("path")  # the files' hashes name the data, not where they lie
    data_settings = settings.data
    sources = [
        *data_settings.reading,
        *filter(None, (data_settings.yes_no, data_settings.closed_book)),
    ]
    hashes = _data_hashes(data_settings.path, data_settings.passages, sources)
    inputs = {"encoder": file_sha256(encoder / "model.safetensors"), **hashes}
    if settings.start_from is not None:
        inputs["start"] = folder_digest(resolve_model(settings.start_from).path)
        recipe["start_from"] = "start"  # its digest names it, not where it lies
    identity = fingerprint(recipe, inputs)
    home = name_folder(root, "model", name=settings.name)
    if (done := _finished(home / identity)) is not None:
        return done
    device = choose_device()
    bf16 = choose_dtype(device) is torch.bfloat16
    torch.manual_seed(settings.seed)
    model = _begin_reader(settings, encoder)
    words = tensors_digest({"words": model.word_embeddings.weight})
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    data, validation = load_reading_data(settings)
    task = ReaderTask(
        model, tokenizer, settings, data=data, validation=validation, bf16=bf16, device=device
    )
    unfinished = home / f"unfinished-{identity}"
    result = run_loop(
        task,
        settings.optimiser,
        checkpoints=unfinished,
        identity=identity,
        batch_size=settings.batch_size,
        validate_every=settings.validate_every,
        checkpoint_every=settings.checkpoint_every,
        report=report,
        early_stopping=settings.early_stopping,
    )
    _check_words(words, model.word_embeddings.weight)
    target = home / identity
    with write_artifact(
        target, kind="model", name=settings.name, recipe=recipe, inputs=inputs,
        models={"encoder": ModelRecord(name=settings.encoder, digest=inputs["encoder"])},
        counts={"steps": task.n_steps, "examples": task.n_steps * settings.batch_size},
        digests={"word_embeddings": words}, seed=settings.seed,
    ) as draft:  # fmt: skip
        model.eval()
        save_trained(model, draft.folder, int8=settings.int8, difference_to=settings.difference_to)
        task.model = load_prefix_lm(draft.folder, encoder).to(device)
        metrics = task.validate()
        _write_curves(draft / "curves.json", result, task.n_steps, metrics)
        plot_training(draft / "loss.svg", result, title=settings.name)
    shutil.rmtree(unfinished, ignore_errors=True)
    return TrainingReport(target, dict(metrics), result.seconds)


def _train_reranker(
    settings: RerankerTraining, root: Path, report: Callable[[Progress], None]
) -> TrainingReport:
    encoder = resolve_model(settings.encoder).path
    recipe = settings.model_dump(mode="json")
    recipe["data"].pop("path")
    hashes = _data_hashes(settings.data.path, settings.data.passages, settings.data.questions)
    inputs = {"encoder": file_sha256(encoder / "model.safetensors"), **hashes}
    identity = fingerprint(recipe, inputs)
    home = name_folder(root, "model", name=settings.name)
    if (done := _finished(home / identity)) is not None:
        return done
    device = choose_device()
    torch.manual_seed(settings.seed)
    classifier = begin_classifier(encoder)
    words = classifier.bert.embeddings.word_embeddings.weight
    words.requires_grad_(False)
    before = tensors_digest({"words": words})
    sources, validation = load_ranking_data(settings)
    task = RerankerTask(
        classifier,
        Tokenizer.from_file(str(encoder / "tokenizer.json")),
        settings,
        sources=sources,
        validation=validation,
        bf16=choose_dtype(device) is torch.bfloat16,
        device=device,
    )
    unfinished = home / f"unfinished-{identity}"
    result = run_loop(
        task,
        settings.optimiser,
        checkpoints=unfinished,
        identity=identity,
        batch_size=settings.batch_size,
        validate_every=settings.validate_every,
        checkpoint_every=settings.checkpoint_every,
        report=report,
    )
    _check_words(before, words)
    with write_artifact(
        home / identity,
        kind="model",
        name=settings.name,
        recipe=recipe,
        inputs=inputs,
        models={"encoder": ModelRecord(name=settings.encoder, digest=inputs["encoder"])},
        counts={"steps": task.n_steps, "examples": task.n_steps * settings.batch_size},
        digests={"word_embeddings": before},
        seed=settings.seed,
    ) as draft:
        save_pocket_classifier(classifier, draft.folder)
        task.model = load_pocket_classifier(draft.folder, encoder).to(device)
        metrics = task.validate()
        _write_curves(draft / "curves.json", result, task.n_steps, metrics)
        plot_training(draft / "loss.svg", result, title=settings.name)
    shutil.rmtree(unfinished, ignore_errors=True)
    return TrainingReport(home / identity, dict(metrics), result.seconds)


def _begin_reader(settings: ReaderTraining, encoder: Path) -> PrefixLM:
    """The model to train: the encoder's layers, or one that was trained before."""
    if settings.start_from is None:
        config = PrefixLMConfig(max_position_embeddings=settings.max_position_embeddings)
        return begin_from_minilm(encoder, config)
    model = load_prefix_lm(resolve_model(settings.start_from).path, encoder)
    found = model.config.max_position_embeddings
    if found != settings.max_position_embeddings:
        raise RecipeError(
            f"{settings.start_from} has {found} positions, the recipe says "
            f"{settings.max_position_embeddings}. Set max_position_embeddings: {found}."
        )
    model.requires_grad_(True)
    model.word_embeddings.requires_grad_(False)
    return model.train()


def _finished(folder: Path) -> TrainingReport | None:
    if not (folder / MANIFEST_NAME).exists():
        return None
    load_manifest(folder, kind="model")
    curves = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
    return TrainingReport(folder, curves["metrics"][-1], curves["seconds"], reused=True)


def _check_words(before: str, words: torch.Tensor) -> None:
    if tensors_digest({"words": words}) != before:
        raise FrozenWeightsChangedError(
            "The word embeddings changed during the training; they must stay the encoder's. "
            "Nothing was saved. This is a fault of rag-frozen; please report it."
        )


def _write_curves(path: Path, result: LoopResult, step: int, metrics: Mapping[str, float]) -> None:
    """Losses and metrics by step; the last row is measured on the weights as written."""
    curves = {
        "losses": result.losses,
        "metrics": [*result.metrics, {"step": step, "as_written": 1.0, **metrics}],
        "seconds": result.seconds,
    }
    path.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")


def _data_hashes(
    path: Path | None, passages: PassageSource, sources: Sequence[ReadingSource]
) -> dict[str, str]:
    """SHA-256 of each local file, or the hub name and revision of each data set."""
    if path is None:
        hubs = [h for h in (passages.hub, *(s.hub for s in sources)) if h is not None]
        return {hub.name: hub.revision or "unpinned" for hub in hubs}
    files = {file for pattern in passages.files for file in path.glob(pattern)}
    files |= {path / source.file for source in sources}
    if passages.exclude is not None:
        files.add(path / passages.exclude)
    return {f"data/{f.relative_to(path)}": file_sha256(f) for f in sorted(files) if f.exists()}
