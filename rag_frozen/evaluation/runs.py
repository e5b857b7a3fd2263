"""Store the result of an evaluation: recipe, answers, ranking and scores, written whole."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rag_frozen.artifacts import ModelRecord, name_folder, write_artifact
from rag_frozen.errors import InputError
from rag_frozen.evaluation.runner import EvalResult, ScoredAnswer
from rag_frozen.evaluation.table import markdown_report
from rag_frozen.pipeline import Pipeline
from rag_frozen.retrieval.replay import write_trec_run

__all__ = ["run_folder", "save_run"]

_log = logging.getLogger(__name__)


def run_folder(root: Path | None, *, pipeline: str, data: str) -> Path:
    """Return the folder of all runs of a pipeline over a data set.

    Raises:
        InputError: when the two names cannot make a folder's name; better asked before a run.
    """
    return name_folder(root, "run", name=f"{pipeline}-{data}")


def save_run(
    result: EvalResult,
    pipeline: Pipeline,
    root: Path | None,
    *,
    evaluation: Mapping[str, Any] | None = None,  # Any: JSON values
) -> Path:
    """Write a run and return its folder.

    It holds ``recipe.yaml`` (evaluation and pipeline as they were resolved), ``predictions.jsonl``,
    ``metrics.json``, ``timings.json``, ``report.md`` and ``run.trec``, the final ranking. Its
    fingerprint covers the answers too: a run that answered otherwise, with other weights or another
    version, never hides behind an older one; an equal one is kept as it is.

    Raises:
        StorageError: when it cannot be written.
    """
    predictions = "".join(_line(row) for row in result.scored)
    recipe = {"evaluation": dict(evaluation or {}), "pipeline": pipeline.recipe}
    inputs = {
        "data": result.data_sha256,
        "predictions": hashlib.sha256(predictions.encode()).hexdigest(),
        **pipeline.artifacts,
    }
    folder = run_folder(root, pipeline=pipeline.name, data=result.data)
    with write_artifact(
        folder,
        kind="run",
        name=folder.name,
        recipe=recipe,
        inputs=inputs,
        models=_models(pipeline),
        by_fingerprint=True,
    ) as draft:
        _write(draft / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
        _write(draft / "predictions.jsonl", predictions)
        _write(draft / "metrics.json", json.dumps(result.to_json(), indent=2) + "\n")
        _write(draft / "timings.json", json.dumps(dict(result.seconds)) + "\n")
        _write(draft / "report.md", markdown_report(result))
        _write_ranking(draft / "run.trec", result, pipeline)
        draft.counts["questions"] = result.questions
        draft.counts["unanswerable"] = result.unanswerable
    return draft.target


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _write_ranking(path: Path, result: EvalResult, pipeline: Pipeline) -> None:
    rankings = [(row.example.question.id, row.answer.hits) for row in result.scored]
    try:
        write_trec_run(path, rankings, tag=pipeline.name)
    except InputError as error:  # ids with white space: no reason to lose the scores
        _log.warning("run.trec is left out of the stored run: %s", error)


def _models(pipeline: Pipeline) -> dict[str, ModelRecord]:
    """The models whose digests the stages know."""
    records = {}
    for role, stage in (("reranker", pipeline.reranker), ("reader", pipeline.reader)):
        digest = getattr(stage, "digest", None)
        name = (pipeline.recipe.get(role) or {}).get("model")
        if isinstance(digest, str) and isinstance(name, str):
            records[role] = ModelRecord(name=name, digest=digest)
    return records


def _line(row: ScoredAnswer) -> str:
    values = {
        "id": row.example.question.id,
        "question": row.example.question.text,
        "answers": list(row.example.answers),
        "prediction": row.answer.text,
        "confidence": round(row.answer.confidence, 6),
        "exact_match": row.exact_match,
        "f1": round(row.f1, 6),
        "first_answering": row.first_answering,
        "packed": [evidence.passage.id for evidence in row.answer.evidence],
    }
    return json.dumps(values, ensure_ascii=False) + "\n"
