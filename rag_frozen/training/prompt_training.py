"""From a prompt recipe to a proven head: train, write, load, compare with the plain reader."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rag_frozen.artifacts import (
    MANIFEST_NAME,
    ModelRecord,
    file_sha256,
    fingerprint,
    load_manifest,
    name_folder,
    write_artifact,
)
from rag_frozen.errors import RecipeError
from rag_frozen.models.device import choose_device, choose_dtype
from rag_frozen.models.parameters import parameter_counts
from rag_frozen.prompting.input_encoder import InputEncoder
from rag_frozen.reader.make import make_reader
from rag_frozen.reader.prefix_reader import PrefixLMReader
from rag_frozen.training.loop import LoopResult, Progress, run_loop
from rag_frozen.training.prompt_artifacts import write_proven, write_tuned
from rag_frozen.training.prompt_data import PromptRows, load_prompt_rows
from rag_frozen.training.prompt_settings import FullTuning, PromptData, PromptTraining
from rag_frozen.training.prompt_start import begin_head, input_encoder
from rag_frozen.training.prompt_task import PromptTask, TrainableReader, score_rows

__all__ = ["AtHand", "PromptReport", "data_hashes", "train_prompt"]

_LOG = logging.getLogger(__name__)
_MEASURED = (
    "plain",
    "conditioned",
    "p",
    "largest_difference",
    "difference_after_loading",
    "plain_milliseconds",
    "conditioned_milliseconds",
)
"""Of a proof, what the manifest holds too."""


@dataclass(frozen=True, slots=True)
class AtHand:
    """What a caller that trains often has already: the frozen ``reader`` of the recipe, the
    ``encoder`` that its head reads with; and, asked only when there is something to train, the
    recipe's ``rows`` and ``plain``, the plain reader's exact match on each validation row."""

    reader: TrainableReader
    encoder: InputEncoder | None = None
    rows: Callable[[], PromptRows] | None = None
    plain: Callable[[], Sequence[bool]] | None = None


@dataclass(frozen=True, slots=True)
class PromptReport:
    """A finished training: its folder, metrics, seconds, and what is wrong with it (nothing).

    ``metrics`` holds exact match in percent on the validation rows, ``plain`` of the reader alone,
    the paired test's ``p``; of a prompt also the largest change of a log-probability, its trained
    parameters, in number and in percent of the reader's, and the milliseconds that it adds to a
    question, in number and in percent of reading without it.
    """

    folder: Path
    metrics: dict[str, float]
    seconds: float
    faults: tuple[str, ...]
    reused: bool = False


def train_prompt(
    settings: PromptTraining,
    root: Path | None,
    report: Callable[[Progress], None] = lambda progress: None,
    *,
    at_hand: AtHand | None = None,
) -> PromptReport:
    """Train what the recipe describes; an unfinished training of it is continued.

    Args:
        settings: the recipe.
        root: artifacts' folder.
        report: is told the progress.
        at_hand: what need not be loaded or measured again.

    The artifact holds the head (or, for full tuning, the tuned model), ``curves.json`` and
    ``proof.json``. A head whose proof fails is written too, so that it can be looked at; pipelines
    refuse it.

    Raises:
        RecipeError, InputError, DataFormatError: when recipe or data cannot be used.
        FrozenWeightsChangedError: when the reader's weights changed; nothing is saved.
    """
    full = isinstance(settings.head, FullTuning)
    device = choose_device()
    precision = "float32" if full else "auto"
    known = at_hand or AtHand(make_reader(settings.reader, dtype=precision))  # type: ignore[arg-type]
    encoder = known.encoder or input_encoder(settings.head, device)
    recipe = settings.model_dump(mode="json")
    recipe["data"].pop("path")  # the files' hashes name the data, not where they lie
    inputs = {"reader": known.reader.base_digest, **data_hashes(settings.data)}
    if encoder is not None:
        inputs["encoder"] = encoder.digest
    identity = fingerprint(recipe, inputs)
    home = name_folder(root, "model" if full else "head", name=settings.name)
    if (done := _finished(home / identity, "model" if full else "head")) is not None:
        return done
    rows = (
        known.rows()
        if known.rows
        else load_prompt_rows(settings.data, template=settings.template, seed=settings.seed)
    )
    reader = known.reader
    plain = list(known.plain()) if known.plain else score_rows(reader, None, rows.validation)[0]
    if full and at_hand is not None:
        reader = make_reader(settings.reader, dtype="float32")  # the caller's stays frozen
    torch.manual_seed(settings.seed)
    head = begin_head(settings, reader, encoder, rows)
    if head is None:
        _unfreeze(reader)
    else:
        head.module.to(device).train()
    bf16 = full and choose_dtype(device) is torch.bfloat16
    task = PromptTask(reader, head, settings, rows=rows, bf16=bf16)
    trained = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
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
    with write_artifact(
        home / identity,
        kind="model" if full else "head",
        name=settings.name,
        recipe=recipe,
        inputs=inputs,
        models={"reader": ModelRecord(name=reader.name, digest=reader.base_digest)},
        seed=settings.seed,
    ) as draft:
        if head is None:
            proof: dict[str, Any] = write_tuned(draft, reader, settings, rows, plain)
        else:
            proof = write_proven(draft, reader, head, encoder, rows, plain)
        total, _ = parameter_counts(reader.model)
        draft.measures |= {name: float(proof[name]) for name in _MEASURED if name in proof}
        draft.counts |= {
            "steps": int(result.metrics[-1]["step"]),
            "trained_parameters": trained,
            "reader_parameters": total,
            "validation_rows": len(rows.validation),
        }
        _write_json(draft / "proof.json", proof)
        _write_json(draft / "curves.json", _curves(result))
        _plot(draft / "loss.svg", result, settings.name)
    shutil.rmtree(unfinished, ignore_errors=True)
    metrics = _metrics(draft.measures, draft.counts)
    return PromptReport(home / identity, metrics, result.seconds, tuple(proof["faults"]))


def _unfreeze(reader: TrainableReader) -> None:
    """Train all weights of the project's own reader but its word embeddings."""
    if not isinstance(reader, PrefixLMReader):
        raise RecipeError(
            "Full tuning is the upper reference for the project's own reader (kind: prefix-lm); "
            "tune other models with the tools of transformers."
        )
    reader.model.requires_grad_(True)
    reader.model.word_embeddings.requires_grad_(False)
    reader.model.train()


def data_hashes(data: PromptData) -> dict[str, str]:
    """SHA-256 of each local file, or name and revision of each hub data set."""
    tasks = [*data.sources, *data.validation]
    path = data.path
    if path is None:
        hubs = [task.hub for task in tasks if task.hub is not None]
        return {f"hub/{hub.name}": hub.revision or "unpinned" for hub in hubs}
    files = sorted({path / task.file for task in tasks})
    return {f"data/{f.relative_to(path)}": file_sha256(f) for f in files if f.exists()}


def _finished(folder: Path, kind: str) -> PromptReport | None:
    if not (folder / MANIFEST_NAME).exists():
        return None
    manifest = load_manifest(folder, kind=kind)  # type: ignore[arg-type]
    proof = json.loads((folder / "proof.json").read_text(encoding="utf-8"))
    curves = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
    metrics = _metrics({**proof, **manifest.measures}, manifest.counts)
    return PromptReport(folder, metrics, curves["seconds"], tuple(proof["faults"]), reused=True)


def _metrics(measures: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, float]:
    """What a training prints at its end."""
    found = {"exact_match": measures["conditioned"], "plain": measures["plain"]}
    found["p"] = measures["p"]
    trained, total = counts["trained_parameters"], counts["reader_parameters"]
    found |= {"trained_parameters": trained, "trained_percent": 100 * trained / max(1, total)}
    if "largest_difference" in measures:
        found["largest_difference_of_logprobs"] = measures["largest_difference"]
    if "plain_milliseconds" in measures:
        without, with_it = measures["plain_milliseconds"], measures["conditioned_milliseconds"]
        found["added_milliseconds"] = with_it - without
        found["added_time_percent"] = 100 * (with_it - without) / without
    return found


def _curves(result: LoopResult) -> dict[str, Any]:
    return {
        "losses": result.losses,
        "metrics": result.metrics,
        "seconds": result.seconds,
        "best_step": result.best_step,
        "stopped_early": result.stopped_early,
    }


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _plot(path: Path, result: LoopResult, name: str) -> None:
    from rag_frozen.training.plots import plot_training

    if any(math.isfinite(row["loss"]) for row in result.losses):
        plot_training(path, result, title=name)
