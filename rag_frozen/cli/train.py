"""``rag-frozen train``, ``mine`` and ``cloze``: progress in the terminal, the result on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rag_frozen.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from rag_frozen.pipeline import Pipeline
    from rag_frozen.training.cloze_rows import RetrievedClozeSettings
    from rag_frozen.training.loop import Progress
    from rag_frozen.training.mined_rows import MiningSettings
    from rag_frozen.training.mining import HoldOut

__all__ = ["progress_line", "run_cloze", "run_mining", "run_training"]


def run_training(
    recipe: str, *, root: Path | None, overrides: Sequence[str], as_json: bool
) -> None:
    """Train, telling step, loss, rate and time left on stderr.

    Raises:
        CheckFailedError: when a prompt's proof fails; the prompt and its faults are stored.
    """
    from rag_frozen.training.processes import join_processes
    from rag_frozen.training.train import train

    def told(progress: Progress) -> None:
        print(progress_line(progress), file=sys.stderr, flush=True)

    done = train(recipe, root=root, overrides=overrides, report=told)
    if not join_processes().is_main:
        return
    if as_json:
        row = {"folder": str(done.folder), "metrics": done.metrics, "seconds": done.seconds}
        print(json.dumps({**row, "reused": done.reused, "faults": list(done.faults)}))
    else:
        print(f"{'Was there already' if done.reused else 'Trained'}: {done.folder}")
        for name, value in done.metrics.items():
            print(f"  {name}: {f'{value:,.0f}' if abs(value) >= 1_000 else f'{value:.4g}'}")
    if done.faults:
        raise CheckFailedError(
            f"The prompt was stored, but its proof failed: {'; '.join(done.faults)}. Pipelines "
            "refuse it. Train it otherwise (more steps or data, another length or rate), or look "
            f"at it with: rag-frozen prompts show {done.folder}"
        )


def progress_line(progress: Progress) -> str:
    """Step, loss, rate, speed, time left and, where they were just measured, the metrics."""
    metrics = ""
    if progress.metrics is not None:
        metrics = "  " + "  ".join(f"{k} {v:.1f}" for k, v in progress.metrics.items())
    return (
        f"step {progress.step:,}/{progress.n_steps:,}  loss {progress.loss:.3f}  "
        f"rate {progress.learning_rate:.1e}  {progress.examples_per_second:.1f} examples/s  "
        f"{progress.seconds_left:,.0f} s left{metrics}"
    )


def run_mining(
    questions: Path,
    out: Path,
    pipeline: str,
    *,
    settings: MiningSettings,
    hold_out: HoldOut | None,
    exclude: Sequence[str],
    exclude_file: Path | None,
    root: Path | None,
    overrides: Sequence[str],
    as_json: bool,
) -> None:
    """Mine rows with a pipeline's retriever, and say what was found."""
    from rag_frozen.build import load_pipeline
    from rag_frozen.cli.progress import stages
    from rag_frozen.training.mining import mine, questions_to_mine

    questions_to_mine(questions, out, hold_out)  # wrong files are told before models are loaded
    exclusions = _exclusions(exclude, exclude_file)
    with stages() as report:
        loaded = load_pipeline(
            pipeline, root=root, overrides=overrides, until="retrieve", report=report
        )
        done = mine(
            questions,
            out,
            loaded.retriever,
            loaded.store,
            settings=settings,
            exclusions=exclusions,
            retrieval=_retrieval_of(loaded),
            hold_out=hold_out,
            report=lambda done, total: report("mining", done, total),
        )
    if as_json:
        row = {"file": str(out), "questions": done.questions, "mined": done.mined}
        if hold_out is not None:
            row |= {"held_out_file": str(hold_out.path), "held_out": done.held_out}
        print(json.dumps({**row, "excluded_hits": done.excluded, "ranks": done.ranks}))
        return
    share = 100 * done.mined / max(1, done.questions)
    print(f"{done.mined:,} of {done.questions:,} questions ({share:.1f} %) have a passage: {out}")
    if hold_out is not None:
        print(f"  of these held out, not in that file: {done.held_out:,}: {hold_out.path}")
    print(f"  hits left out as excluded: {done.excluded:,}")


def run_cloze(
    out: Path,
    pipeline: str,
    *,
    settings: RetrievedClozeSettings,
    exclude: Sequence[str],
    exclude_file: Path | None,
    root: Path | None,
    overrides: Sequence[str],
    as_json: bool,
) -> None:
    """Write cloze questions with a pipeline's retriever and corpus, and say how many."""
    from rag_frozen.build import load_pipeline
    from rag_frozen.cli.progress import stages
    from rag_frozen.corpus.store import ArrowPassageStore
    from rag_frozen.training.mining import refuse_folder
    from rag_frozen.training.retrieved_cloze import write_retrieved_clozes

    refuse_folder(out, such_as="cloze.jsonl")  # told before models are loaded
    exclusions = _exclusions(exclude, exclude_file)
    with stages() as report:
        loaded = load_pipeline(
            pipeline, root=root, overrides=overrides, until="retrieve", report=report
        )
        if not isinstance(loaded.store, ArrowPassageStore):
            raise InputError(
                f"The pipeline {pipeline} has no corpus of its own to draw passages from. Name one "
                "over an index that was built, with --pipeline."
            )
        done = write_retrieved_clozes(
            out,
            loaded.retriever,
            loaded.store,
            settings=settings,
            exclusions=exclusions,
            retrieval=_retrieval_of(loaded),
            report=lambda done, total: report("cloze questions", done, total),
        )
    if as_json:
        print(json.dumps({"file": str(out), **asdict(done)}))
        return
    print(f"{done.rows:,} of {done.asked:,} questions are answered by another passage: {out}")
    if done.rows < settings.rows:
        print(f"  fewer than the {settings.rows:,} asked for: {done.drawn:,} passages were drawn")


def _retrieval_of(pipeline: Pipeline) -> str:
    """Names what a pipeline retrieves with, and from what."""
    from rag_frozen.artifacts import fingerprint

    return fingerprint({"retrieval": pipeline.recipe["retrieval"]}, dict(pipeline.artifacts))


def _exclusions(exclude: Sequence[str], exclude_file: Path | None) -> list[str]:
    from rag_frozen.training.files import read_ids

    return [*exclude, *(read_ids(exclude_file) if exclude_file else ())]
