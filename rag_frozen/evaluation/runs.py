"""Runs on disk: evaluate chunk by chunk, go on after a kill, and store the result whole.

While it runs, a run lies in ``<runs>/unfinished-<identity>/``; finished, it is an artifact whose
fingerprint covers the answers too, so that a run that answered otherwise (other weights, another
version) never hides behind an older one.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rag_frozen.artifacts import (
    fingerprint,
    load_manifest,
    name_folder,
)
from rag_frozen.artifacts.stream import RunStream, open_stream
from rag_frozen.errors import InputError
from rag_frozen.evaluation.costs import TokensRead, describe_costs
from rag_frozen.evaluation.examples import ExampleSet
from rag_frozen.evaluation.identity import (
    code_version,
    pipeline_inputs,
)
from rag_frozen.evaluation.metrics import METRIC_VERSIONS
from rag_frozen.evaluation.run_files import (
    PREDICTIONS,
    STREAMED,
    TIMINGS,
    TOKENS,
    chunk_lines,
    read_row,
    seal_run,
    text_lines,
)
from rag_frozen.evaluation.runner import (
    EvalProgress,
    EvalResult,
    answer_chunks,
    place_losses,
    running_score,
)
from rag_frozen.evaluation.scoring import KnownAnswers
from rag_frozen.evaluation.stored_runs import part_runs
from rag_frozen.evaluation.summary import summarize
from rag_frozen.evaluation.text_metrics import TEXT_METRICS
from rag_frozen.pipeline import Pipeline

__all__ = [
    "LastStage",
    "RunOptions",
    "StoredRun",
    "read_run",
    "run_folder",
    "run_recipe",
    "store_run",
]

LastStage = Literal["retrieve", "rerank", "read"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is made; see :func:`rag_frozen.evaluation.runner.answer_chunks`.

    ``until`` is the last stage of the pipeline: before ``read`` there are rankings, no answers.
    ``metrics`` names metrics beside the standing ones, of ``text_metrics``.
    """

    chunk_size: int = 64
    overlap: bool = False
    search_corpus: bool = False
    until: LastStage = "read"
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A finished run: its folder, its scores, and how many questions an earlier process did."""

    folder: Path
    result: EvalResult
    resumed: int


def run_folder(root: Path | None, *, pipeline: str, data: str) -> Path:
    """Return the folder of all runs of a pipeline over a data set.

    Raises:
        InputError: when the two names cannot make a folder's name; better asked before a run.
    """
    return name_folder(root, "run", name=f"{pipeline}-{data}")


def store_run(
    pipeline: Pipeline,
    data: ExampleSet,
    root: Path | None,
    *,
    options: RunOptions = RunOptions(),
    evaluation: Mapping[str, Any] | None = None,  # Any: JSON values
    progress: Callable[[EvalProgress], None] = lambda progress: None,
    searched: Callable[[int], None] = lambda done: None,
    known: KnownAnswers | None = None,
) -> StoredRun:
    """Evaluate and store; continue an unfinished run of the same pipeline, data and version.

    It holds ``recipe.yaml`` (evaluation and pipeline as they were resolved), ``predictions.jsonl``,
    ``metrics.json``, ``report.md``, ``run.trec`` (the final ranking), ``retrieve.trec`` (what
    retrieval gave), ``qrels.txt`` where the data name gold passages, and what differs from run to
    run: ``timings.jsonl``, ``costs.json`` and, holding them, ``report.html``. With ``until`` before
    ``read`` there are neither predictions nor scores of answers, but beside them the rankings that
    retrieval was made from (``bm25.trec``, ``dense.trec``): a next pass may read by their scores.

    Args:
        pipeline: answers.
        data: questions with answers.
        root: of the artifacts.
        options: how.
        evaluation: the resolved evaluation recipe.
        progress: is told at the beginning and after each chunk.
        searched: is told how many passages were searched for missed answers.
        known: which passages answer which question, shared by several runs over the same data.

    Raises:
        InputError: when a question cannot be asked, or another process runs the same.
        StorageError: when the disk is full; what was finished stays.
    """
    folder = run_folder(root, pipeline=pipeline.name, data=data.name)
    recipe = run_recipe(pipeline, evaluation, until=options.until)
    unfinished = folder / f"unfinished-{_identity(pipeline, data, recipe, options)}"
    parts = () if options.until == "read" else part_runs(pipeline.retriever)
    with open_stream(unfinished, (*STREAMED, *parts)) as stream:
        resumed = stream.done
        rows = [read_row(unfinished, line) for line in stream.lines(PREDICTIONS)]
        read = TokensRead.so_far(pipeline)
        progress(EvalProgress(resumed, len(data.examples), running_score(rows)))
        for chunk in answer_chunks(
            pipeline,
            data.examples,
            chunk_size=options.chunk_size,
            start=resumed,
            overlap=options.overlap,
            known=known,
        ):
            before, read = read, TokensRead.so_far(pipeline)
            lines = chunk_lines(chunk, pipeline.name, read - before, parts)
            stream.append(lines, questions=len(chunk.answers))
            rows += chunk.scored
            progress(EvalProgress(len(rows), len(data.examples), running_score(rows)))
        patterns = any(example.patterns for example in data.examples)
        rows = place_losses(
            pipeline,
            rows,
            search_corpus=options.search_corpus,
            patterns=patterns,
            progress=searched,
        )
        seconds = [json.loads(line)["seconds"] for line in stream.lines(TIMINGS)]
        result = summarize(
            rows,
            data=data.name,
            data_sha256=data.sha256,
            pipeline=pipeline.name,
            seconds=seconds,
            answered=options.until == "read",
            patterns=patterns,
            metrics=options.metrics,
        )
        costs = describe_costs(pipeline, rows, result.seconds, read=_tokens_read(stream))
        target = seal_run(folder, recipe, pipeline, data, result, stream, costs, parts)
        shutil.rmtree(unfinished, ignore_errors=True)
    return StoredRun(target, result, resumed)


def run_recipe(
    pipeline: Pipeline, evaluation: Mapping[str, Any] | None, *, until: LastStage
) -> dict[str, Any]:
    """What a run's manifest and ``recipe.yaml`` say of how it was made."""
    return {
        "evaluation": dict(evaluation or {}),
        "pipeline": pipeline.recipe,
        **({} if until == "read" else {"until": until}),
    }


def read_run(folder: Path) -> EvalResult:
    """Read a stored run and sum it up again.

    Raises:
        ArtifactError: when the folder holds no run, or a damaged one.
        InputError: when the run holds rankings alone.
    """
    manifest = load_manifest(folder, kind="run")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    versions = metrics.get("metric_versions", {})
    if not (folder / PREDICTIONS).is_file():
        raise InputError(
            f"The run {folder} ends with rankings ({manifest.name}); it has no answers. Read on "
            f"with: rag-frozen eval RECIPE --rankings {folder}"
        )
    rows = [read_row(folder, line) for line in text_lines(folder / PREDICTIONS)]
    seconds = [json.loads(line)["seconds"] for line in text_lines(folder / TIMINGS)]
    return summarize(
        rows,
        data=metrics["data"],
        data_sha256=metrics["data_sha256"],
        pipeline=metrics["pipeline"],
        seconds=seconds,
        patterns=versions.get("exact_match") == METRIC_VERSIONS["regex_match"],
        metrics=[name for name in versions if name in TEXT_METRICS],
    )


def _identity(
    pipeline: Pipeline, data: ExampleSet, recipe: Mapping[str, Any], options: RunOptions
) -> str:
    """What an unfinished run must share with the process that continues it."""
    inputs = {
        "data": data.sha256,
        **pipeline_inputs(pipeline),
        **code_version(),
        "chunk_size": str(options.chunk_size),
    }
    return fingerprint(recipe, inputs)


def _tokens_read(stream: RunStream) -> TokensRead:
    """By all processes that had a part in the run."""
    return sum((TokensRead(**json.loads(line)) for line in stream.lines(TOKENS)), TokensRead())
