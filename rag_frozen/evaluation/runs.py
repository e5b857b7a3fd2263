"""Runs on disk: evaluate chunk by chunk, go on after a kill, and store the result whole.

While it runs, a run lies in ``<runs>/unfinished-<identity>/``; finished, it is an artifact whose
fingerprint covers the answers too, so that a run that answered otherwise (other weights, another
version) never hides behind an older one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from rag_frozen.artifacts import (
    Draft,
    fingerprint,
    load_manifest,
    name_folder,
    write_artifact,
)
from rag_frozen.errors import ArtifactDamagedError, InputError
from rag_frozen.evaluation.costs import TokensRead, describe_costs
from rag_frozen.evaluation.examples import ExampleSet
from rag_frozen.evaluation.identity import (
    code_version,
    models_of,
    pipeline_inputs,
    prompt_digests,
)
from rag_frozen.evaluation.metrics import METRIC_VERSIONS
from rag_frozen.evaluation.runner import (
    ChunkDone,
    EvalProgress,
    EvalResult,
    answer_chunks,
    place_losses,
    running_score,
)
from rag_frozen.evaluation.scoring import KnownAnswers, ScoredAnswer
from rag_frozen.evaluation.soft_prompts import describe_prompts
from rag_frozen.evaluation.stored_runs import FINAL_RUN, part_runs, stage_run
from rag_frozen.evaluation.stream import RunStream, open_stream
from rag_frozen.evaluation.summary import summarize
from rag_frozen.evaluation.table import markdown_report
from rag_frozen.evaluation.text_metrics import TEXT_METRICS
from rag_frozen.pipeline import Pipeline
from rag_frozen.retrieval.replay import trec_lines

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

_PREDICTIONS = "predictions.jsonl"
_TIMINGS = "timings.jsonl"
_RETRIEVED = stage_run("retrieve")
_TOKENS = "tokens.jsonl"
_STREAMED = (_PREDICTIONS, _TIMINGS, _TOKENS, FINAL_RUN, _RETRIEVED)
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
    with open_stream(unfinished, (*_STREAMED, *parts)) as stream:
        resumed = stream.done
        rows = [_row(unfinished, line) for line in stream.lines(_PREDICTIONS)]
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
            lines = _lines(chunk, pipeline.name, read - before, parts)
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
        seconds = [json.loads(line)["seconds"] for line in stream.lines(_TIMINGS)]
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
        target = _seal(folder, recipe, pipeline, data, result, stream, costs, parts)
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
    if not (folder / _PREDICTIONS).is_file():
        raise InputError(
            f"The run {folder} ends with rankings ({manifest.name}); it has no answers. Read on "
            f"with: rag-frozen eval RECIPE --rankings {folder}"
        )
    rows = [_row(folder, line) for line in _text_lines(folder / _PREDICTIONS)]
    seconds = [json.loads(line)["seconds"] for line in _text_lines(folder / _TIMINGS)]
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
    return sum((TokensRead(**json.loads(line)) for line in stream.lines(_TOKENS)), TokensRead())


def _lines(chunk: ChunkDone, tag: str, read: TokensRead, parts: Sequence[str]) -> dict[str, str]:
    final = [(answer.question.id, answer.hits) for answer in chunk.answers]
    before = {
        name: [(answer.question.id, ranking) for answer in chunk.answers
               for stage, ranking in answer.rankings if stage_run(stage) == name]
        for name in (_RETRIEVED, *parts)
    }  # fmt: skip
    return {
        _PREDICTIONS: "".join(_json_line(row.to_json()) for row in chunk.scored),
        _TIMINGS: "".join(
            _json_line({"id": answer.question.id, "seconds": dict(answer.seconds)})
            for answer in chunk.answers
        ),
        _TOKENS: _json_line(asdict(read)),
        FINAL_RUN: _trec(final, tag),
        **{name: _trec(rankings, tag) for name, rankings in before.items()},
    }


def _trec(rankings: Sequence[tuple[str, Any]], tag: str) -> str:
    try:
        return "".join(trec_lines(rankings, tag=tag))
    except InputError as error:  # ids with white space: no reason to lose the scores
        _log.warning("A ranking is left out of the stored run: %s", error)
        return ""


def _json_line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"


def _row(folder: Path, line: str) -> ScoredAnswer:
    try:
        return ScoredAnswer.from_json(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactDamagedError(
            f"{_PREDICTIONS} of {folder} cannot be read: {error}. Remove the folder and run the "
            "evaluation again."
        ) from error


def _text_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _seal(
    folder: Path,
    recipe: Mapping[str, Any],
    pipeline: Pipeline,
    data: ExampleSet,
    result: EvalResult,
    stream: RunStream,
    costs: Mapping[str, Any],
    parts: Sequence[str],
) -> Path:
    files = {"recipe.yaml": yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)}
    if result.answered:
        files[_PREDICTIONS] = "".join(_json_line(row.to_json()) for row in result.scored)
    files["metrics.json"] = json.dumps(result.to_json(), indent=2) + "\n"
    files["costs.json"] = json.dumps(costs, indent=2) + "\n"
    files["report.md"] = markdown_report(result)
    if result.answered:
        from rag_frozen.evaluation.report import render_report

        prompts = describe_prompts(pipeline)
        files["report.html"] = render_report(result, costs=costs, prompts=prompts)
    if qrels := _qrels(data):
        files["qrels.txt"] = qrels
    inputs = {
        "data": data.sha256,
        "answers": _answers_digest(files.get(_PREDICTIONS, ""), stream.path(FINAL_RUN)),
        **pipeline.artifacts,
        **prompt_digests(pipeline.recipe.get("prompt")),
    }
    with write_artifact(
        folder,
        kind="run",
        name=folder.name,
        recipe=recipe,
        inputs=inputs,
        models=models_of(pipeline),
        by_fingerprint=True,
    ) as draft:
        _write(draft, files, stream, (FINAL_RUN, _RETRIEVED, *parts))
        draft.counts["questions"] = result.questions
        draft.counts["unanswerable"] = result.unanswerable
    return draft.target


def _write(
    draft: Draft, files: Mapping[str, str], stream: RunStream, rankings: Sequence[str]
) -> None:
    for name, text in files.items():
        (draft / name).write_text(text, encoding="utf-8", newline="\n")
    shutil.copyfile(stream.path(_TIMINGS), draft / _TIMINGS)
    for name in rankings:
        if stream.path(name).stat().st_size:
            shutil.copyfile(stream.path(name), draft / name)


def _answers_digest(predictions: str, ranking: Path) -> str:
    total = hashlib.sha256(predictions.encode())
    total.update(ranking.read_bytes())
    return total.hexdigest()


def _qrels(data: ExampleSet) -> str:
    """Judged passages in TREC's form: ``question-id 0 passage-id grade``."""
    return "".join(
        f"{one.question.id} 0 {passage} {grade}\n"
        for one in data.examples
        for passage, grade in one.judged
        if passage.split() == [passage]
    )
