"""Finished runs on disk: the rankings that they hand on to a next pass, and copies of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_frozen.artifacts import load_manifest, storage_errors, temporary_folder
from rag_frozen.errors import ArtifactError, ArtifactMissingError, InputError
from rag_frozen.evaluation.examples import ExampleSet
from rag_frozen.pipeline import Pipeline
from rag_frozen.protocols import Retriever
from rag_frozen.retrieval.replay import ReplayRetriever, read_trec_run

__all__ = [
    "FINAL_RUN",
    "copy_run",
    "part_runs",
    "refuse_copy",
    "replay_stored",
    "stage_run",
    "stored_ranking",
    "stored_scores",
]

FINAL_RUN = "run.trec"
"""The file of a run's final ranking."""


def stage_run(stage: str) -> str:
    """The file of the ranking of a stage before the final one."""
    return f"{stage}.trec"


def stored_ranking(run: Path) -> tuple[Path, bool]:
    """Find the ranking that a stored run hands on.

    Args:
        run: the folder of a run, or a TREC file.

    Returns:
        The file, and whether a reranker's work is in it (a file is taken as retrieved).

    Raises:
        ArtifactError: when the folder holds no run, or one without a ranking.
    """
    if run.is_file():
        return run, False
    manifest = load_manifest(run, kind="run")
    if not (run / FINAL_RUN).is_file():
        raise ArtifactMissingError(
            f"The run {run} holds no {FINAL_RUN}: it was closed book, or its passages have ids "
            "that the form cannot hold."
        )
    return run / FINAL_RUN, manifest.recipe.get("until") != "retrieve"


def part_runs(retriever: Retriever) -> tuple[str, ...]:
    """The files of the rankings that a fused or stored ranking is made from."""
    names: list[str] = [name for name, _, _ in getattr(retriever, "parts", ())]
    names += list(getattr(retriever, "scores", ()))
    known = dict.fromkeys(name for name in names if name not in ("retrieve", "rerank"))
    return tuple(stage_run(name) for name in known)


def stored_scores(run: Path) -> dict[str, Path]:
    """Find the scores that a stored run's passages had in the stages that made it, by stage.

    Raises:
        ArtifactError: when the folder holds no run.
    """
    if run.is_file():
        return {}
    recipe: dict[str, Any] = dict(load_manifest(run, kind="run").recipe)  # Any: JSON values
    found = {
        stage: run / stage_run(stage)
        for stage in ("retrieve", "bm25", "dense", "replay")
        if (run / stage_run(stage)).is_file()
    }
    settings = recipe.get("pipeline") or {}
    reranked = (settings.get("reranker") or {}).get("kind", "none") != "none"
    if reranked and recipe.get("until") != "retrieve" and (run / FINAL_RUN).is_file():
        found["rerank"] = run / FINAL_RUN
    return found


def replay_stored(pipeline: Pipeline, run: Path, data: ExampleSet) -> None:
    """Have a pipeline that replays a stored run know the questions for which nothing was found.

    A TREC file has no line for them. A run over the same questions, and no fewer, answers for all
    of them; from any other, and from a file, a missing question stays an error.

    Args:
        pipeline: was loaded with the run's ranking as its retrieval; its retriever is replaced.
        run: the folder of a run, or a TREC file.
        data: the questions that will be asked.
    """
    if run.is_file():
        return
    manifest = load_manifest(run, kind="run")
    if manifest.inputs.get("data") != data.sha256:
        return
    if manifest.counts.get("questions", 0) + manifest.counts.get("unanswerable", 0) < len(
        data.examples
    ):
        return
    stored = read_trec_run(stored_ranking(run)[0])
    rankings = {one.question.id: stored.get(one.question.id, ()) for one in data.examples}
    scores = getattr(pipeline.retriever, "scores", None)
    pipeline.retriever = ReplayRetriever(rankings, name=str(run), scores=scores)


def refuse_copy(target: Path, recipe: Mapping[str, Any] | None = None) -> None:
    """Raise ``InputError`` when :func:`copy_run` could not write there; asked before a run.

    A finished run in ``target`` may be the very one that will be made, whose process was killed
    after the copy; it is refused when its recipe is another than ``recipe``.
    """
    above = next(parent for parent in target.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InputError(
            f"{target} cannot be made: {above} is a file. Name a new folder with --out."
        )
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        manifest = load_manifest(target)
    except ArtifactError:
        manifest = None
    if manifest is None or (recipe is not None and manifest.recipe != recipe):
        what = "is not empty" if manifest is None else f"holds another run, {manifest.name}"
        raise InputError(
            f"{target} exists and {what}; nothing was overwritten. Name a new folder with --out."
        )


def copy_run(folder: Path, target: Path) -> Path:
    """Copy a finished run to a new folder, whole or not at all; return the new folder.

    Raises:
        InputError: when something else is there. An equal copy is kept.
    """
    refuse_copy(target)
    target = target.absolute()
    if target.is_dir() and any(target.iterdir()):
        ours, theirs = load_manifest(folder), load_manifest(target)
        if (ours.kind, ours.fingerprint) == (theirs.kind, theirs.fingerprint):
            return target
        raise InputError(
            f"{target} holds another run, {theirs.name} {theirs.fingerprint}; nothing was "
            f"overwritten. The new one is stored in {folder}."
        )
    with storage_errors(target.parent), temporary_folder(target.parent) as copied:
        shutil.copytree(folder, copied, dirs_exist_ok=True)
        if target.is_dir():
            target.rmdir()
        copied.rename(target)
    return target
