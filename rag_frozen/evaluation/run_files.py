"""The files of a run: what each chunk appends to them, and what the finished folder holds."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from rag_frozen.artifacts import Draft, write_artifact
from rag_frozen.artifacts.stream import RunStream
from rag_frozen.errors import ArtifactDamagedError, InputError
from rag_frozen.evaluation.costs import TokensRead
from rag_frozen.evaluation.examples import ExampleSet
from rag_frozen.evaluation.identity import models_of, prompt_digests
from rag_frozen.evaluation.runner import ChunkDone, EvalResult
from rag_frozen.evaluation.scoring import ScoredAnswer
from rag_frozen.evaluation.soft_prompts import describe_prompts
from rag_frozen.evaluation.stored_runs import FINAL_RUN, stage_run
from rag_frozen.evaluation.table import markdown_report
from rag_frozen.pipeline import Pipeline
from rag_frozen.retrieval.replay import trec_lines

__all__ = [
    "PREDICTIONS",
    "STREAMED",
    "TIMINGS",
    "TOKENS",
    "chunk_lines",
    "read_row",
    "seal_run",
    "text_lines",
]

PREDICTIONS = "predictions.jsonl"
TIMINGS = "timings.jsonl"
TOKENS = "tokens.jsonl"
_RETRIEVED = stage_run("retrieve")
STREAMED = (PREDICTIONS, TIMINGS, TOKENS, FINAL_RUN, _RETRIEVED)
"""What every chunk appends to."""
_log = logging.getLogger(__name__)


def chunk_lines(
    chunk: ChunkDone, tag: str, read: TokensRead, parts: Sequence[str]
) -> dict[str, str]:
    """What a chunk appends to each streamed file; ``parts`` are rankings beside the final one."""
    final = [(answer.question.id, answer.hits) for answer in chunk.answers]
    before = {
        name: [(answer.question.id, ranking) for answer in chunk.answers
               for stage, ranking in answer.rankings if stage_run(stage) == name]
        for name in (_RETRIEVED, *parts)
    }  # fmt: skip
    return {
        PREDICTIONS: "".join(_json_line(row.to_json()) for row in chunk.scored),
        TIMINGS: "".join(
            _json_line({"id": answer.question.id, "seconds": dict(answer.seconds)})
            for answer in chunk.answers
        ),
        TOKENS: _json_line(asdict(read)),
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


def seal_run(
    folder: Path,
    recipe: Mapping[str, Any],
    pipeline: Pipeline,
    data: ExampleSet,
    result: EvalResult,
    stream: RunStream,
    costs: Mapping[str, Any],
    parts: Sequence[str],
) -> Path:
    """Write the finished run beside the stream, as an artifact; return its folder."""
    files = {"recipe.yaml": yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)}
    if result.answered:
        files[PREDICTIONS] = "".join(_json_line(row.to_json()) for row in result.scored)
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
        "answers": _answers_digest(files.get(PREDICTIONS, ""), stream.path(FINAL_RUN)),
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
    shutil.copyfile(stream.path(TIMINGS), draft / TIMINGS)
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


def read_row(folder: Path, line: str) -> ScoredAnswer:
    """Read a line of ``predictions.jsonl``; raises ``ArtifactDamagedError`` for a broken one."""
    try:
        return ScoredAnswer.from_json(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactDamagedError(
            f"{PREDICTIONS} of {folder} cannot be read: {error}. Remove the folder and run the "
            "evaluation again."
        ) from error


def text_lines(path: Path) -> list[str]:
    """The whole lines of a file."""
    return path.read_text(encoding="utf-8").split("\n")[:-1]
