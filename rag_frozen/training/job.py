"""From settings to a finished artifact: what is the same whatever is trained.

A job names its recipe and its inputs and can begin a task; here its identity is found, finished
work is found again, the loop is run, frozen tensors are checked, and the artifact is written whole
at the end. The state of an unfinished training stands beside it and is continued.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rag_frozen.artifacts import (
    MANIFEST_NAME,
    ModelRecord,
    file_sha256,
    fingerprint,
    load_manifest,
    name_folder,
    write_artifact,
)
from rag_frozen.errors import FrozenWeightsChangedError
from rag_frozen.models.digest import folder_digest, tensors_digest
from rag_frozen.models.source import resolve_model
from rag_frozen.training.loop import LoopResult, Progress, TrainingTask, run_loop
from rag_frozen.training.plots import plot_training
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.settings import (
    EarlyStopping,
    OptimiserSettings,
    PassageSource,
    ReadingSource,
)

__all__ = ["Begun", "Job", "TrainingReport", "data_hashes", "named_inputs", "run_job"]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """A finished training: where its artifact lies, its metrics, its seconds."""

    folder: Path
    metrics: dict[str, float]
    seconds: float
    reused: bool = False
    faults: tuple[str, ...] = ()
    """Why a trained prompt is not good; empty for a good one, and for other trainings."""


class LoopSettings(Protocol):
    """What every training recipe says about its loop."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def encoder(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def optimiser(self) -> OptimiserSettings: ...
    @property
    def validate_every(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def early_stopping(self) -> EarlyStopping | None: ...


class EncoderTraining(LoopSettings, Protocol):
    """A training recipe over an encoder, which may begin from an earlier training's result."""

    @property
    def start_from(self) -> str | tuple[str, ...] | None: ...
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...  # Any: JSON values


@dataclass(frozen=True, slots=True)
class Begun:
    """A task that is ready for the loop.

    ``frozen`` are groups of tensors that must not change; the manifest records a digest of each
    group. ``write`` puts the trained weights into a folder and lets the task measure what is loaded
    from there.
    """

    task: TrainingTask[Any]  # Any: the task's own kind of batch
    frozen: Mapping[str, Mapping[str, Tensor]]
    write: Callable[[Path], None]
    validate_first: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """A training before it has loaded anything.

    ``recipe`` and ``inputs`` (``encoder`` among them) make its identity; ``begin`` is given the
    folder of the name's artifacts, for what is computed before and kept.
    """

    settings: LoopSettings
    recipe: Mapping[str, Any]
    inputs: Mapping[str, str]
    begin: Callable[[Path], Begun]


def run_job(
    job: Job, root: Path, report: Callable[[Progress], None], *, share: Share = ALONE
) -> TrainingReport:
    """Train to the end, or return what was trained before.

    Args:
        job: what to train.
        root: artifacts' folder; the result lies in ``<root>/models/<name>/<fingerprint>``.
        report: is told the progress, in the first process.
        share: this process's part, where several train together.

    Raises:
        FrozenWeightsChangedError: when a tensor changed that must stay.
    """
    settings = job.settings
    share.check(settings.batch_size)
    identity = fingerprint(job.recipe, job.inputs)
    home = name_folder(root, "model", name=settings.name)
    if (done := _finished(home / identity)) is not None:
        return done
    torch.manual_seed(settings.seed)
    begun = job.begin(home)
    before = {name: tensors_digest(group) for name, group in begun.frozen.items()}
    unfinished = home / f"unfinished-{identity}"
    result = run_loop(
        begun.task,
        settings.optimiser,
        checkpoints=unfinished,
        identity=identity,
        batch_size=settings.batch_size,
        validate_every=settings.validate_every,
        checkpoint_every=settings.checkpoint_every,
        report=report,
        early_stopping=settings.early_stopping,
        validate_first=begun.validate_first,
        share=share,
    )
    _check_frozen(before, begun.frozen)
    if share.is_main:
        made = _write(job, begun, result, home / identity, before)
        shutil.rmtree(unfinished, ignore_errors=True)
    share.wait()
    if share.is_main:
        return made
    found = _finished(home / identity)
    assert found is not None  # the first process has just written it
    return found


def named_inputs(settings: EncoderTraining) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the recipe as JSON values, and what encoder and start are, by their hashes.

    What lies where is taken out of the recipe: hashes name the data and the start.
    """
    recipe = settings.model_dump(mode="json")
    recipe["data"].pop("path")
    encoder = resolve_model(settings.encoder).path
    inputs = {"encoder": file_sha256(encoder / "model.safetensors")}
    if isinstance(settings.start_from, str):
        inputs["start"] = folder_digest(resolve_model(settings.start_from).path)
        recipe["start_from"] = "start"
    elif settings.start_from is not None:
        digests = [folder_digest(resolve_model(name).path) for name in settings.start_from]
        starts = {f"start-{place}": digest for place, digest in enumerate(digests, 1)}
        inputs |= starts
        recipe["start_from"] = list(starts)
    return recipe, inputs


def data_hashes(
    path: Path | None,
    passages: PassageSource,
    sources: Sequence[ReadingSource],
    *,
    files: Sequence[str] = (),
) -> dict[str, str]:
    """SHA-256 of each local file, or the hub name and revision of each data set.

    ``files`` are further ones below ``path``.
    """
    if path is None:
        hubs = [h for h in (passages.hub, *(s.hub for s in sources)) if h is not None]
        return {hub.name: hub.revision or "unpinned" for hub in hubs}
    named = {file for pattern in passages.files for file in path.glob(pattern)}
    named |= {path / source.file for source in sources} | {path / file for file in files}
    if passages.exclude is not None:
        named.add(path / passages.exclude)
    return {f"data/{f.relative_to(path)}": file_sha256(f) for f in sorted(named) if f.exists()}


def _write(
    job: Job, begun: Begun, result: LoopResult, target: Path, frozen: Mapping[str, str]
) -> TrainingReport:
    settings = job.settings
    steps = int(result.metrics[-1]["step"])
    with write_artifact(
        target,
        kind="model",
        name=settings.name,
        recipe=dict(job.recipe),
        inputs=dict(job.inputs),
        models={"encoder": ModelRecord(name=settings.encoder, digest=job.inputs["encoder"])},
        counts={"steps": steps, "examples": steps * settings.batch_size, **begun.counts},
        digests=dict(frozen),
        seed=settings.seed,
    ) as draft:
        begun.write(draft.folder)
        metrics = dict(begun.task.validate())
        _write_curves(draft / "curves.json", result, steps, metrics)
        plot_training(draft / "loss.svg", result, title=settings.name)
    return TrainingReport(target, metrics, result.seconds)


def _finished(folder: Path) -> TrainingReport | None:
    if not (folder / MANIFEST_NAME).exists():
        return None
    load_manifest(folder, kind="model")
    curves = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
    metrics = {k: v for k, v in curves["metrics"][-1].items() if k not in ("step", "as_written")}
    return TrainingReport(folder, metrics, curves["seconds"], reused=True)


def _check_frozen(before: Mapping[str, str], frozen: Mapping[str, Mapping[str, Tensor]]) -> None:
    changed = [name for name, group in frozen.items() if tensors_digest(group) != before[name]]
    if changed:
        raise FrozenWeightsChangedError(
            f"Tensors changed during the training that must stay the encoder's: {changed}. "
            "Nothing was saved. This is a fault of rag-frozen; please report it."
        )


def _write_curves(path: Path, result: LoopResult, step: int, metrics: Mapping[str, float]) -> None:
    """Losses and metrics by step; the last row is measured on the weights as written."""
    curves = {
        "losses": result.losses,
        "metrics": [*result.metrics, {"step": step, "as_written": 1.0, **metrics}],
        "seconds": result.seconds,
        "best_step": result.best_step,
        "stopped_early": result.stopped_early,
    }
    path.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
