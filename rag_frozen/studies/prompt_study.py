"""Run a prompt study: train what is not trained yet, let every method answer, make the table.

The order is that of the recipe: task by task, reader by reader, and within them every method with
its first seed, then with its second, and so on. Each training is an artifact of its own (an
unfinished one goes on from its checkpoint), each cell's answers are a file of their own, and the
table is written again after each round: a study may be stopped and killed at any time, goes on
where it was, and every prefix of it is a table. A method that is added costs only itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rag_frozen.artifacts.writing import atomic_write_text
from rag_frozen.studies.bench import Bench, Benches
from rag_frozen.studies.cells import Run, measured_answers, measured_perplexity, measured_votes
from rag_frozen.studies.evaluations import Pieces
from rag_frozen.studies.methods import Conditioned, conditioned, trained_parameters
from rag_frozen.studies.settings import (
    EnsembleMethod,
    Method,
    PlainMethod,
    PromptStudy,
    StudyTask,
    TrainedMethod,
)
from rag_frozen.studies.table import Measured, StudyTable, make_table
from rag_frozen.training.loop import Progress

__all__ = ["StudyReport", "run_study"]


@dataclass(frozen=True, slots=True)
class StudyReport:
    """A finished study: its folder, and its table."""

    folder: Path
    table: StudyTable


def run_study(
    study: PromptStudy,
    *,
    root: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> StudyReport:
    """Run or continue a study.

    Args:
        study: the recipe.
        root: artifacts' folder; the study lies in ``<root>/studies/<name>``.
        tell: is told what is being done.
        progress: is told each training's progress.

    Returns:
        The folder, which holds ``table.json``, ``table.md`` and the answers of every method; and
        the table.

    Raises:
        RecipeError, InputError, DataFormatError, ArtifactError, ModelError: when something cannot
            be used; what is finished stays.
    """
    news: list[str] = []

    def told(line: str) -> None:
        news.append(line)
        tell(line)

    benches = Benches(study, root=root, tell=told, progress=progress)
    measured: list[Measured] = []
    for task in study.tasks:
        for reader in task.readers or tuple(study.readers):
            bench = benches.of(reader, task.name)
            found: dict[str, list[Measured]] = {}
            for number in range(_rounds(study, task)):
                _round(bench, number, found)
                so_far = [*measured, *(one for of_one in found.values() for one in of_one)]
                if news:
                    _write(benches.folder, make_table(study, so_far))
                    news.clear()
            measured += [one for of_one in found.values() for one in of_one]
    table = make_table(study, measured)
    _write(benches.folder, table)
    return StudyReport(benches.folder, table)


def _write(folder: Path, table: StudyTable) -> None:
    atomic_write_text(folder / "table.json", json.dumps(table.to_json(), indent=1) + "\n")
    atomic_write_text(folder / "table.md", table.to_markdown())


def _rounds(study: PromptStudy, task: StudyTask) -> int:
    """As many rounds as the method with the most seeds has seeds."""
    trained = [one for one in study.methods_of(task) if isinstance(one, TrainedMethod)]
    return max((len(study.seeds_of(one, task)) for one in trained), default=1)


def _round(bench: Bench, number: int, found: dict[str, list[Measured]]) -> None:
    """Measure every method that has a seed of this number; put what was measured into ``found``.

    Methods without a seed are measured in the first round, an ensemble when its last member is.
    """
    study = bench.study
    for method in study.methods_of(bench.task):
        of_method = found.setdefault(method.name, [])
        match method:
            case TrainedMethod():
                seeds = study.seeds_of(method, bench.task)
                if number < len(seeds):
                    of_method += _measure(bench, _trained(bench, method, seeds[number]))
            case EnsembleMethod(of=of):
                seeds = study.seeds_of(study.trained(of), bench.task)
                if number == len(seeds) - 1:
                    members = [_trained(bench, study.trained(of), seed) for seed in seeds]
                    of_method += _voted(bench, method, members)
            case _:
                if number == 0:
                    of_method += _measure(bench, _untrained(bench, method))


def _untrained(bench: Bench, method: Method) -> Run:
    described = method.model_dump(mode="json")
    if bench.task.texts is not None and "texts" in described:
        described["texts"] = bench.task.texts
    return Run(
        method,
        None,
        json.dumps(described, sort_keys=True),
        trained_parameters=0,
        load=lambda: Conditioned(bench.reader, None),
    )


def _trained(bench: Bench, method: TrainedMethod, seed: int) -> Run:
    """Train, or find trained."""
    _, how = bench.rate(method)
    done = bench.train(method, seed=seed)
    return Run(
        method,
        seed,
        f"{method.name}/{done.folder.name}",
        trained_parameters=trained_parameters(method, done.folder),
        load=cache(lambda: conditioned(method, done.folder, bench.reader, bench.settings)),
        seconds_trained=done.seconds,
        note=how,
    )


def _measure(bench: Bench, run: Run) -> list[Measured]:
    """One run on all evaluations of its task."""
    made = []
    for evaluation in bench.evaluations:
        if not isinstance(evaluation, Pieces):
            made.append(measured_answers(bench, run, evaluation))
        elif isinstance(run.method, PlainMethod | TrainedMethod):
            made.append(measured_perplexity(bench, run, evaluation))
    return made


def _voted(bench: Bench, method: EnsembleMethod, members: list[Run]) -> list[Measured]:
    return [
        measured_votes(bench, method, members, evaluation)
        for evaluation in bench.evaluations
        if not isinstance(evaluation, Pieces)
    ]
