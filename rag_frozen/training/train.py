"""``rag-frozen train RECIPE``: from a recipe to a finished artifact, whatever is trained.

Chooses the task by the recipe's ``kind``. The artifact is written whole at the end; the state of
an unfinished training stands beside it and is continued by the same command.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from rag_frozen.artifacts import (
    ModelRecord,
    artifact_root,
    file_sha256,
    fingerprint,
    load_manifest,
    name_folder,
    write_artifact,
)
from rag_frozen.errors import FrozenWeightsChangedError
from rag_frozen.models.device import choose_device, choose_dtype
from rag_frozen.models.digest import tensors_digest
from rag_frozen.models.source import resolve_model
from rag_frozen.reader.prefix_lm import PrefixLMConfig
from rag_frozen.reader.prefix_lm_weights import begin_from_minilm, load_prefix_lm, save_trained
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.training.loop import Progress, run_loop
from rag_frozen.training.reader_task import ReaderTask, load_reading_data
from rag_frozen.training.settings import ReaderTraining

__all__ = ["TrainingReport", "train"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """A finished training: where its artifact lies, its metrics, its seconds."""

    folder: Path
    metrics: dict[str, float]
    seconds: float
    reused: bool = False


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
    settings = load_recipe(recipe, ReaderTraining, folder="pipelines/train", overrides=overrides)
    return _train_reader(settings, artifact_root(root), report)


def _train_reader(
    settings: ReaderTraining, root: Path, report: Callable[[Progress], None]
) -> TrainingReport:
    encoder = resolve_model(settings.encoder).path
    recipe = settings.model_dump(mode="json")
    recipe["data"].pop("path")  # the files' hashes name the data, not where they lie
    inputs = {"encoder": file_sha256(encoder / "model.safetensors"), **_data_hashes(settings)}
    identity = fingerprint(recipe, inputs)
    home = name_folder(root, "model", name=settings.name)
    if (home / identity / "manifest.json").exists():
        load_manifest(home / identity, kind="model")
        curves = json.loads((home / identity / "curves.json").read_text(encoding="utf-8"))
        return TrainingReport(home / identity, curves["metrics"][-1], curves["seconds"], True)
    device = choose_device()
    bf16 = choose_dtype(device) is torch.bfloat16
    torch.manual_seed(settings.seed)
    model = begin_from_minilm(
        encoder, PrefixLMConfig(max_position_embeddings=settings.max_position_embeddings)
    )
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
    )
    if tensors_digest({"words": model.word_embeddings.weight}) != words:
        raise FrozenWeightsChangedError(
            "The word embeddings changed during the training; they must stay the encoder's. "
            "Nothing was saved. This is a fault of rag-frozen; please report it."
        )
    target = home / identity
    with write_artifact(
        target, kind="model", name=settings.name, recipe=recipe, inputs=inputs,
        models={"encoder": ModelRecord(name=settings.encoder, digest=inputs["encoder"])},
        counts={"steps": task.n_steps, "examples": task.n_steps * settings.batch_size},
        digests={"word_embeddings": words}, seed=settings.seed,
    ) as draft:  # fmt: skip
        model.eval()
        save_trained(model, draft.folder, int8=settings.int8)
        task.model = load_prefix_lm(draft.folder, encoder).to(device)
        metrics = task.validate()
        curves = {
            "losses": result.losses,
            "metrics": [*result.metrics, {"step": task.n_steps, "rounded": True, **metrics}],
            "seconds": result.seconds,
        }
        (draft / "curves.json").write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(unfinished, ignore_errors=True)
    return TrainingReport(target, dict(metrics), result.seconds)


def _data_hashes(settings: ReaderTraining) -> dict[str, str]:
    """SHA-256 of each local file, or the hub name and revision of each data set."""
    data = settings.data
    sources = [*data.reading, *filter(None, (data.yes_no, data.closed_book))]
    if data.path is None:
        hubs = [h for h in (data.passages.hub, *(s.hub for s in sources)) if h is not None]
        return {hub.name: hub.revision or "unpinned" for hub in hubs}
    files = {file for pattern in data.passages.files for file in data.path.glob(pattern)}
    files |= {data.path / source.file for source in sources}
    if data.passages.exclude is not None:
        files.add(data.path / data.passages.exclude)
    return {f"data/{f.relative_to(data.path)}": file_sha256(f) for f in sorted(files) if f.exists()}
