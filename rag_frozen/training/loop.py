"""The one training loop: steps, learning rate, checkpoints, validation, progress.

A task brings the model, the batches and the loss; the loop brings the rest. A training that was
killed goes on from its last checkpoint and ends with the weights of an undisturbed run: batches
are a function of the step, and the checkpoint holds weights, optimiser and random state. Of
several processes each computes its share of a batch; the first validates and writes.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rag_frozen.artifacts.storage import make_folder, storage_errors
from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError, InputError
from rag_frozen.training.optimisers import learning_rate_at, make_optimiser
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.settings import EarlyStopping, OptimiserSettings

__all__ = ["LoopResult", "Progress", "TrainingTask", "run_loop"]

_LOG = logging.getLogger(__name__)
Batch = TypeVar("Batch")


class TrainingTask(Protocol[Batch]):
    """What the loop trains."""

    n_steps: int

    @property
    def model(self) -> nn.Module:
        """Its parameters with gradients are trained."""
        ...

    def batch(self, step: int) -> Batch:
        """Make the batch of a step: the same whenever it is asked for."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """Return the scalar loss, with gradients."""
        ...

    def validate(self) -> Mapping[str, float]:
        """Measure on held-out data."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands: step, loss averaged since the last report, seconds gone and left."""

    step: int
    n_steps: int
    loss: float
    learning_rate: float
    examples_per_second: float
    seconds_left: float
    metrics: Mapping[str, float] | None = None


@dataclass(slots=True)
class LoopResult:
    """Curves of a finished training, one row a report; what early stopping did."""

    losses: list[dict[str, float]] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    best_step: int | None = None
    """The step whose weights were kept, where early stopping was asked for."""
    stopped_early: bool = False


@dataclass(slots=True)
class _Run(Generic[Batch]):
    task: TrainingTask[Batch]
    parameters: dict[str, nn.Parameter]
    optimiser: torch.optim.Optimizer
    result: LoopResult
    step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)


def run_loop(
    task: TrainingTask[Any],  # Any: the task's own kind of batch
    settings: OptimiserSettings,
    *,
    checkpoints: Path,
    identity: str,
    batch_size: int,
    validate_every: int,
    checkpoint_every: int,
    report: Callable[[Progress], None],
    report_every: int = 20,
    early_stopping: EarlyStopping | None = None,
    validate_first: bool = False,
    share: Share = ALONE,
) -> LoopResult:
    """Train to the end, continuing from a checkpoint where there is one.

    Args:
        task: model, batches and loss.
        settings: of the optimiser.
        checkpoints: a folder of this training alone.
        identity: fingerprint of recipe and data; a checkpoint of another is refused.
        batch_size: examples a step, for the rate that is reported.
        validate_every: steps between validations (one more at the end).
        checkpoint_every: steps between checkpoints.
        report: is called every ``report_every`` steps and after each validation.
        early_stopping: when to stop before the end; the model then has its best weights.
        validate_first: measure before the first step, too.
        share: this process's part where several train together. The task must bring its part of
            each batch only; best weights are kept in the first process alone.

    Raises:
        ArtifactMismatchError: when the checkpoint is that of another training.
        ArtifactDamagedError: when the checkpoint cannot be read.
        InputError: when early stopping names a metric that the task does not measure.
        StorageError: when checkpoints cannot be written.
    """
    parameters = {n: p for n, p in task.model.named_parameters() if p.requires_grad}
    optimiser = make_optimiser(settings, parameters)
    run = _Run(task, parameters, optimiser, LoopResult())
    if share.is_main:
        with storage_errors(checkpoints):  # a place that cannot be written is told before the work
            make_folder(checkpoints)
    total = _restore(run, checkpoints, identity)
    share.wait()  # a process that is ahead must not replace the checkpoint that others still read
    if validate_first and run.step == 0 and not run.result.metrics:
        _validate(run, early_stopping, share)
    began, began_step = time.monotonic(), run.step
    earlier = run.result.seconds
    while run.step < task.n_steps and not run.result.stopped_early:
        rate = learning_rate_at(run.step, task.n_steps, settings)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = task.loss(task.batch(run.step))
        torch.autograd.backward(loss)
        share.average_gradients(parameters.values())
        torch.nn.utils.clip_grad_norm_(parameters.values(), settings.max_gradient_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        total += loss.detach().float().cpu()
        run.step += 1
        gone = time.monotonic() - began
        run.result.seconds = earlier + gone
        last = run.step == task.n_steps
        measured = run.step % validate_every == 0 or last
        metrics = _validate(run, early_stopping, share) if measured else None
        last = last or run.result.stopped_early
        if run.step % report_every == 0 or measured:
            since = run.step - (run.result.losses[-1]["step"] if run.result.losses else 0)
            mean = float(share.mean(total)) / max(1, since)
            total.zero_()
            run.result.losses.append({"step": run.step, "loss": mean})
            speed = (run.step - began_step) / max(gone, 1e-9)
            left = (task.n_steps - run.step) / speed
            if share.is_main:
                report(
                    Progress(run.step, task.n_steps, mean, rate, speed * batch_size, left, metrics)
                )
        if share.is_main and (run.step % checkpoint_every == 0 or last):
            _save(run, checkpoints, identity, total)
    if early_stopping is not None and share.is_main:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(run.best[name])
    return run.result


def _validate(
    run: _Run[Any], rule: EarlyStopping | None, share: Share
) -> Mapping[str, float] | None:
    """Measure in the first process, and have all stop where it says so."""
    metrics = None
    if share.is_main:
        metrics = dict(run.task.validate())
        run.result.metrics.append({"step": run.step, **metrics})
        if rule is not None:
            _judge(run, rule)
    run.result.stopped_early = share.decided_by_main(run.result.stopped_early)
    return metrics


def _judge(run: _Run[Any], rule: EarlyStopping) -> None:
    """Keep the weights when the metric rose; stop when it did not rise for long."""
    curve = [row.get(rule.metric) for row in run.result.metrics]
    if curve[-1] is None:
        known = ", ".join(name for name in run.result.metrics[-1] if name != "step")
        raise InputError(
            f"Early stopping watches {rule.metric!r}, which is not measured. Measured: {known}."
        )
    values = [-math.inf if value is None else value for value in curve]
    best = max(range(len(values)), key=lambda place: (values[place], -place))
    if best == len(values) - 1:
        run.result.best_step = run.step
        run.best = {name: p.detach().cpu().clone() for name, p in run.parameters.items()}
    run.result.stopped_early = len(values) - 1 - best >= rule.patience


def _save(run: _Run[Any], checkpoints: Path, identity: str, total: Tensor) -> None:
    """Write the state into a folder beside the old one, then swap them by renaming."""
    with storage_errors(checkpoints):
        done = _written(run, checkpoints, identity, total)
    for old in checkpoints.glob("step-*"):
        if old != done:
            shutil.rmtree(old, ignore_errors=True)


def _written(run: _Run[Any], checkpoints: Path, identity: str, total: Tensor) -> Path:
    fresh = checkpoints / f"step-{run.step:07d}.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    make_folder(fresh)
    tensors: dict[str, Tensor] = {"random": torch.get_rng_state(), "loss": total}
    for name, parameter in run.parameters.items():
        tensors[f"weight.{name}"] = parameter.detach().cpu().contiguous()
        for key, value in run.optimiser.state[parameter].items():
            tensors[f"optimiser.{key}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    tensors |= {f"best.{name}": tensor for name, tensor in run.best.items()}
    save_file(tensors, str(fresh / "state.safetensors"))
    record = {
        "identity": identity,
        "step": run.step,
        "losses": run.result.losses,
        "metrics": run.result.metrics,
        "seconds": run.result.seconds,
        "best_step": run.result.best_step,
        "stopped_early": run.result.stopped_early,
    }
    (fresh / "state.json").write_text(json.dumps(record), encoding="utf-8")
    done = checkpoints / f"step-{run.step:07d}"
    os.replace(fresh, done)
    return done


def _restore(run: _Run[Any], checkpoints: Path, identity: str) -> Tensor:
    """Take over the last checkpoint, if any; return the loss summed since the last report."""
    found = sorted(p for p in checkpoints.glob("step-*") if not p.name.endswith(".partial"))
    if not found:
        return torch.zeros(())
    folder = found[-1]
    try:
        record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(str(folder / "state.safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactDamagedError(
            f"The checkpoint in {folder} cannot be read: {error}. Remove it, and the training "
            "begins anew."
        ) from error
    if record["identity"] != identity:
        raise ArtifactMismatchError(
            f"The checkpoint in {folder} is that of another recipe or other data "
            f"({record['identity']}, now {identity}). Remove it, and the training begins anew."
        )
    with torch.no_grad():
        for name, parameter in run.parameters.items():
            parameter.copy_(tensors[f"weight.{name}"])
            state = {
                key.split(".", 2)[1]: value
                for key, value in tensors.items()
                if key.startswith("optimiser.") and key.split(".", 2)[2] == name
            }
            run.optimiser.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device)
                for key, value in state.items()
            }
    torch.set_rng_state(tensors["random"])
    run.step = record["step"]
    run.result.losses, run.result.metrics = record["losses"], record["metrics"]
    run.result.seconds = record["seconds"]
    run.result.best_step = record.get("best_step")
    run.result.stopped_early = bool(record.get("stopped_early", False))
    run.best = {
        name.removeprefix("best."): tensor
        for name, tensor in tensors.items()
        if name.startswith("best.")
    }
    _LOG.info("Continuing from step %d of %s", run.step, folder)
    summed: Tensor = tensors["loss"]
    return summed
