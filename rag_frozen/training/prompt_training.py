"""From a prompt recipe to a proven head: train, write, load, compare with the plain reader."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rag_frozen.artifacts import (
    MANIFEST_NAME,
    Draft,
    ModelRecord,
    file_sha256,
    fingerprint,
    load_manifest,
    name_folder,
    write_artifact,
)
from rag_frozen.errors import FrozenWeightsChangedError, RecipeError
from rag_frozen.evaluation.statistics import mcnemar_p
from rag_frozen.models.device import choose_device, choose_dtype
from rag_frozen.models.parameters import parameter_counts
from rag_frozen.models.source import resolve_model
from rag_frozen.prompting.generator import CrossAttentionGenerator, GeneratorConfig
from rag_frozen.prompting.heads import DependentHead, Head, StaticHead, load_head, save_head
from rag_frozen.prompting.input_encoder import InputEncoder
from rag_frozen.prompting.proof import PromptProof, prove_head
from rag_frozen.prompting.soft_prompt import (
    SoftPrompt,
    from_labels,
    from_tokens,
    random_vectors,
    sampled,
)
from rag_frozen.reader.freezing import weights_digest
from rag_frozen.reader.make import make_reader
from rag_frozen.reader.prefix_lm_weights import load_prefix_lm, save_trained
from rag_frozen.reader.prefix_reader import PrefixLMReader
from rag_frozen.recipes.pipeline import PrefixReader
from rag_frozen.training.loop import LoopResult, Progress, run_loop
from rag_frozen.training.prompt_data import PromptRows, load_prompt_rows
from rag_frozen.training.prompt_settings import (
    FullTuning,
    InputDependentPrompt,
    LabelsStart,
    PromptTraining,
    RandomStart,
    SampledStart,
    StaticPrompt,
    TextStart,
)
from rag_frozen.training.prompt_task import PromptTask, TrainableReader, score_rows

__all__ = ["PromptReport", "train_prompt"]

_LOG = logging.getLogger(__name__)
_PROVEN_ON = 16
"""Validation rows on which the proof compares log-probabilities."""
_COUNTED = 20_000
"""Training examples in which tokens are counted for a sampled start."""


@dataclass(frozen=True, slots=True)
class PromptReport:
    """A finished training: its folder, metrics, seconds, and what is wrong with it (nothing)."""

    folder: Path
    metrics: dict[str, float]
    seconds: float
    faults: tuple[str, ...]
    reused: bool = False


def train_prompt(
    settings: PromptTraining,
    root: Path | None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> PromptReport:
    """Train what the recipe describes; an unfinished training of it is continued.

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
    reader = make_reader(settings.reader, dtype=precision)  # type: ignore[arg-type]
    encoder = _input_encoder(settings.head, device)
    recipe = settings.model_dump(mode="json")
    recipe["data"].pop("path")  # the files' hashes name the data, not where they lie
    inputs = {"reader": reader.base_digest, **_data_hashes(settings)}
    if encoder is not None:
        inputs["encoder"] = encoder.digest
    identity = fingerprint(recipe, inputs)
    home = name_folder(root, "model" if full else "head", name=settings.name)
    if (done := _finished(home / identity, "model" if full else "head")) is not None:
        return done
    rows = load_prompt_rows(settings.data, template=settings.template, seed=settings.seed)
    plain, _ = score_rows(reader, None, rows.validation)
    torch.manual_seed(settings.seed)
    head = _begin(settings, reader, encoder, rows)
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
            proof: dict[str, Any] = _tuned(draft, reader, settings, rows, plain)
        else:
            proof = _proven(draft, reader, head, encoder, rows, plain)
        total, _ = parameter_counts(reader.model)
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
    metrics = {"exact_match": proof["conditioned"], "plain": proof["plain"], "p": proof["p"]}
    return PromptReport(home / identity, metrics, result.seconds, tuple(proof["faults"]))


def _input_encoder(head: object, device: torch.device) -> InputEncoder | None:
    if not isinstance(head, InputDependentPrompt):
        return None
    return InputEncoder(
        resolve_model(head.encoder),
        device=device,
        dtype=choose_dtype(device),
        max_tokens=head.max_tokens,
    )


def _begin(
    settings: PromptTraining,
    reader: TrainableReader,
    encoder: InputEncoder | None,
    rows: PromptRows,
) -> Head | None:
    """A fresh head, its random parts drawn from the recipe's seed."""
    chance = torch.Generator().manual_seed(settings.seed)
    table = reader.embedding_table
    match settings.head:
        case FullTuning():
            return None
        case StaticPrompt(length=length, start=start):
            return StaticHead(SoftPrompt(_start(start, length, reader, rows, settings, chance)))
        case InputDependentPrompt() as wanted:
            assert encoder is not None
            config = GeneratorConfig(
                encoder.width,
                int(table.shape[1]),
                n_queries=wanted.n_queries,
                n_static=wanted.n_static,
                width=wanted.width,
                depth=wanted.depth,
                heads=wanted.heads,
                inner=wanted.inner,
                encoder_prompt=wanted.encoder_prompt,
            )
            static = None
            if wanted.n_static:
                start = SampledStart()
                static = _start(start, wanted.n_static, reader, rows, settings, chance)
            norm = float(table.detach().float().norm(dim=1).mean())
            module = CrossAttentionGenerator(config, reader_norm=norm, static=static)
            return DependentHead(module, encoder, reads=wanted.reads)


def _start(
    start: object,
    length: int,
    reader: TrainableReader,
    rows: PromptRows,
    settings: PromptTraining,
    chance: torch.Generator,
) -> torch.Tensor:
    table = reader.embedding_table
    match start:
        case RandomStart():
            return random_vectors(length, int(table.shape[1]), generator=chance)
        case SampledStart(most=most):
            ids = _frequent(reader, rows, settings.seed, most)
            return sampled(table, ids, length, generator=chance)
        case LabelsStart(labels=labels, most=most):
            words = [ids[:-1] for ids in reader.encode_answers(labels)]
            ids = _frequent(reader, rows, settings.seed, most)
            return from_labels(table, words, length, fill=ids, generator=chance)
        case TextStart(text=text):
            [written] = reader.encode_answers([text])
            return from_tokens(table, written[:-1], length)
        case _:
            raise RecipeError(f"{start!r} is no way to begin a prompt.")


def _frequent(reader: TrainableReader, rows: PromptRows, seed: int, most: int) -> list[int]:
    """The most frequent tokens of training prompts, equal counts by id."""
    texts = [rows.pick(number, seed).context.prompt for number in range(_sample_size(rows))]
    counts: Counter[int] = Counter()
    for ids in reader.encode_prompts(texts):
        counts.update(ids)
    return sorted(counts, key=lambda token: (-counts[token], token))[:most]


def _sample_size(rows: PromptRows) -> int:
    return min(_COUNTED, sum(len(of_one) for _, of_one in rows.training))


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


def _proven(
    draft: Draft,
    reader: TrainableReader,
    head: Head,
    encoder: InputEncoder | None,
    rows: PromptRows,
    plain: list[bool],
) -> dict[str, Any]:
    head.module.eval().requires_grad_(False)
    device = reader.embedding_table.device
    base = reader.base_digest
    save_head(draft.folder, head, reader=reader.name, reader_digest=base)
    loaded = load_head(draft.folder, reader_digest=base, encoder=encoder, device=device)
    shown = rows.validation[:_PROVEN_ON]
    difference, same, after_loading = prove_head(
        reader, head, loaded, [row.context for row in shown], [row.target for row in shown]
    )
    matched, _ = score_rows(reader, loaded, rows.validation)
    after = weights_digest(reader.model)
    if after != reader.digest:
        raise FrozenWeightsChangedError(
            f"The frozen reader's weights changed in the training ({reader.digest[:16]} to "
            f"{after[:16]}). Nothing was saved. This is a fault of rag-frozen; please report it."
        )
    proof = PromptProof(
        base_before=reader.digest,
        base_after=after,
        largest_difference=difference,
        bitwise_after_loading=same,
        difference_after_loading=after_loading,
        plain=100 * sum(plain) / len(plain),
        conditioned=100 * sum(matched) / len(matched),
        p=mcnemar_p(matched, plain),
        validation_rows=len(plain),
    )
    draft.digests |= {"reader_before": proof.base_before, "reader_after": proof.base_after}
    return proof.to_json()


def _tuned(
    draft: Draft,
    reader: TrainableReader,
    settings: PromptTraining,
    rows: PromptRows,
    plain: list[bool],
) -> dict[str, Any]:
    """Write the tuned model, load it, and measure what was written."""
    assert isinstance(reader, PrefixLMReader)
    assert isinstance(settings.reader, PrefixReader)
    save_trained(reader.model, draft.folder, int8=False)
    loaded = load_prefix_lm(draft.folder, resolve_model(settings.reader.encoder).path)
    reader.model.load_state_dict(loaded.state_dict())
    matched, _ = score_rows(reader, None, rows.validation)
    return {
        "base_before": reader.digest,
        "base_after": weights_digest(reader.model),
        "plain": 100 * sum(plain) / len(plain),
        "conditioned": 100 * sum(matched) / len(matched),
        "p": mcnemar_p(matched, plain),
        "validation_rows": len(plain),
        "faults": [],
    }


def _data_hashes(settings: PromptTraining) -> dict[str, str]:
    """SHA-256 of each local file, or name and revision of each hub data set."""
    tasks = [*settings.data.sources, *settings.data.validation]
    path = settings.data.path
    if path is None:
        hubs = [task.hub for task in tasks if task.hub is not None]
        return {f"hub/{hub.name}": hub.revision or "unpinned" for hub in hubs}
    files = sorted({path / task.file for task in tasks})
    return {f"data/{f.relative_to(path)}": file_sha256(f) for f in files if f.exists()}


def _finished(folder: Path, kind: str) -> PromptReport | None:
    if not (folder / MANIFEST_NAME).exists():
        return None
    load_manifest(folder, kind=kind)  # type: ignore[arg-type]
    proof = json.loads((folder / "proof.json").read_text(encoding="utf-8"))
    curves = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
    metrics = {"exact_match": proof["conditioned"], "plain": proof["plain"], "p": proof["p"]}
    return PromptReport(folder, metrics, curves["seconds"], tuple(proof["faults"]), reused=True)


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
