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
    ArtifactKind,
    Draft,
    ModelRecord,
    file_sha256,
    fingerprint,
    load_manifest,
    name_folder,
    write_artifact,
)
from rag_frozen.errors import RecipeError
from rag_frozen.models.device import DtypeName, choose_device, choose_dtype
from rag_frozen.models.parameters import parameter_counts
from rag_frozen.prompting.input_encoder import InputEncoder
from rag_frozen.reader.make import make_reader
from rag_frozen.reader.prefix_reader import PrefixLMReader
from rag_frozen.training.loop import LoopResult, Progress, run_loop
from rag_frozen.training.processes import ALONE, Share
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
    share: Share = ALONE,
) -> PromptReport:
    """Train what the recipe describes; an unfinished training of it is continued.

    Args:
        settings: the recipe.
        root: artifacts' folder.
        report: is told the progress.
        at_hand: what need not be loaded or measured again.
        share: this process's part, where several train together; the first one writes.

    The artifact holds the head (or, for full tuning, the tuned model), ``curves.json`` and
    ``proof.json``. A head whose proof fails is written too, so that it can be looked at; pipelines
    refuse it.

    Raises:
        RecipeError, InputError, DataFormatError: when recipe or data cannot be used.
        FrozenWeightsChangedError: when the reader's weights changed; nothing is saved.
    """
    share.check(settings.batch_size)
    kind: ArtifactKind = "model" if isinstance(settings.head, FullTuning) else "head"
    device = share.device or choose_device()
    known = at_hand or AtHand(_reader(settings, share))
    encoder = known.encoder or input_encoder(settings.head, device)
    recipe, inputs = _named_inputs(settings, known.reader, encoder)
    home = name_folder(root, kind, name=settings.name)
    target = home / fingerprint(recipe, inputs)
    if (done := _finished(target, kind)) is not None:
        return done
    rows = (
        known.rows()
        if known.rows
        else load_prompt_rows(settings.data, template=settings.template, seed=settings.seed)
    )
    plain = _plain(known, rows) if share.is_main else []
    reader = known.reader
    if kind == "model" and at_hand is not None:
        reader = _reader(settings, share)  # the caller's stays frozen
    torch.manual_seed(settings.seed)
    head = begin_head(settings, reader, encoder, rows)
    if head is None:
        _unfreeze(reader)
    else:
        head.module.to(device).train()
    bf16 = head is None and choose_dtype(device) is torch.bfloat16
    task = PromptTask(reader, head, settings, rows=rows, bf16=bf16, share=share)
    unfinished = home / f"unfinished-{target.name}"
    result = run_loop(
        task,
        settings.optimiser,
        checkpoints=unfinished,
        identity=target.name,
        batch_size=settings.batch_size,
        validate_every=settings.validate_every,
        checkpoint_every=settings.checkpoint_every,
        report=report,
        early_stopping=settings.early_stopping,
        share=share,
    )
    if share.is_main:
        with write_artifact(
            target,
            kind=kind,
            name=settings.name,
            recipe=recipe,
            inputs=inputs,
            models={"reader": ModelRecord(name=reader.name, digest=reader.base_digest)},
            seed=settings.seed,
        ) as draft:
            faults = _write(draft, task, encoder, result, plain)
        shutil.rmtree(unfinished, ignore_errors=True)
        metrics = _metrics(draft.measures, draft.counts)
        made = PromptReport(target, metrics, result.seconds, faults)
    share.wait()
    if share.is_main:
        return made
    found = _finished(target, kind)
    assert found is not None  # the first process has just written it
    return found


def _reader(settings: PromptTraining, share: Share) -> TrainableReader:
    """The recipe's reader; in fp32 where its own weights are trained."""
    dtype: DtypeName = "float32" if isinstance(settings.head, FullTuning) else "auto"
    return make_reader(settings.reader, device=share.device_name, dtype=dtype)


def _named_inputs(
    settings: PromptTraining, reader: TrainableReader, encoder: InputEncoder | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The recipe without the place of its data, which their hashes name; and the hashes."""
    recipe = settings.model_dump(mode="json")
    recipe["data"].pop("path")
    inputs = {"reader": reader.base_digest, **data_hashes(settings.data)}
    if encoder is not None:
        inputs["encoder"] = encoder.digest
    return recipe, inputs


def _plain(known: AtHand, rows: PromptRows) -> list[bool]:
    """The plain reader's exact match on each validation row."""
    if known.plain:
        return list(known.plain())
    return score_rows(known.reader, None, rows.validation)[0]


def _write(
    draft: Draft,
    task: PromptTask,
    encoder: InputEncoder | None,
    result: LoopResult,
    plain: list[bool],
) -> tuple[str, ...]:
    """Put head or tuned model, proof and curves into the artifact; return what is wrong with it."""
    trained = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
    proof: dict[str, Any] = (
        write_tuned(draft, task.reader, task.settings, task.rows, plain)
        if task.head is None
        else write_proven(draft, task.reader, task.head, encoder, task.rows, plain)
    )
    draft.measures |= {name: float(proof[name]) for name in _MEASURED if name in proof}
    draft.counts |= {
        "steps": int(result.metrics[-1]["step"]),
        "trained_parameters": trained,
        "reader_parameters": parameter_counts(task.reader.model)[0],
        "validation_rows": len(task.rows.validation),
    }
    _write_json(draft / "proof.json", proof)
    _write_json(draft / "curves.json", _curves(result))
    _plot(draft / "loss.svg", result, task.settings.name)
    return tuple(proof["faults"])


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
