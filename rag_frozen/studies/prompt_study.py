"""Run a prompt study: train what is not trained yet, let every method answer, make the table.

Each training is an artifact of its own and each method's answers are a file of their own, so a
study that was stopped goes on where it was, and a method that is added costs only itself.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_frozen.artifacts import artifact_root
from rag_frozen.artifacts.writing import atomic_write_text
from rag_frozen.evaluation.metrics import exact_match, f1
from rag_frozen.models.parameters import parameter_counts
from rag_frozen.reader.make import make_reader
from rag_frozen.recipes.pipeline import ReaderSettings
from rag_frozen.studies.evaluations import (
    Evaluation,
    Pieces,
    open_pieces,
    open_questions,
    open_rows,
)
from rag_frozen.studies.methods import (
    Conditioned,
    answer,
    conditioned,
    perplexity,
    training_of,
    voted,
    with_shots,
    with_text,
)
from rag_frozen.studies.settings import (
    EnsembleMethod,
    FewShotMethod,
    PlainMethod,
    PromptStudy,
    QuestionsEvaluation,
    RowsEvaluation,
    StudyTask,
    TrainedMethod,
    WrittenMethod,
)
from rag_frozen.studies.table import Measured, StudyTable, make_table
from rag_frozen.training.loop import Progress
from rag_frozen.training.prompt_data import PromptRow, load_prompt_rows
from rag_frozen.training.prompt_settings import FullTuning
from rag_frozen.training.prompt_task import TrainableReader
from rag_frozen.training.prompt_training import train_prompt
from rag_frozen.types import Context, Generation

__all__ = ["StudyReport", "run_study"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class StudyReport:
    """A finished study: its folder, and its table."""

    folder: Path
    table: StudyTable


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the study something stands."""

    study: PromptStudy
    reader_name: str
    settings: ReaderSettings
    reader: TrainableReader
    task: StudyTask
    folder: Path
    root: Path | None
    tell: Callable[[str], None]
    progress: Callable[[Progress], None]


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
    folder = artifact_root(root) / "studies" / study.name
    measured: list[Measured] = []
    for name, settings in study.readers.items():
        reader = make_reader(settings)
        for task in study.tasks:
            place = _Place(study, name, settings, reader, task, folder, root, tell, progress)
            measured += _task(place)
    table = make_table(study, measured)
    atomic_write_text(folder / "table.json", json.dumps(table.to_json(), indent=1) + "\n")
    atomic_write_text(folder / "table.md", table.to_markdown())
    return StudyReport(folder, table)


def _task(place: _Place) -> list[Measured]:
    """All methods over one reader and one task."""
    study, task = place.study, place.task
    data = task.data.model_copy(update={"path": study.data_path, "split_seed": study.split_seed})
    rows = load_prompt_rows(data, template=study.template, seed=study.split_seed)
    shots = tuple(row for _, of_one in rows.training for row in of_one)
    evaluations = _open(place)
    measured = []
    written: dict[tuple[str, str], list[list[Generation]]] = {}
    for method in study.methods:
        for run in _runs(place, method):
            for evaluation in evaluations:
                if isinstance(evaluation, Pieces):
                    if isinstance(method, PlainMethod | TrainedMethod) and _changes_model(method):
                        measured.append(_perplexity(place, run, evaluation))
                    continue
                found = _answers(place, run, evaluation, rows.validation, shots, written)
                written.setdefault((method.name, evaluation.name), []).append(found.generations)
                measured.append(_scored(place, run, evaluation, found))
    return measured


def _changes_model(method: PlainMethod | TrainedMethod) -> bool:
    return isinstance(method, PlainMethod) or isinstance(method.head, FullTuning)


def _open(place: _Place) -> list[Evaluation | Pieces]:
    opened: list[Evaluation | Pieces] = []
    for wanted in place.task.evaluations:
        match wanted:
            case QuestionsEvaluation():
                opened.append(
                    open_questions(
                        wanted,
                        place.study,
                        place.settings,
                        reader_digest=place.reader.base_digest,
                        cache=place.folder / "contexts",
                        root=place.root,
                    )
                )
            case RowsEvaluation():
                opened.append(open_rows(wanted, place.study))
            case _:
                opened.append(open_pieces(wanted, place.study))
    return opened


@dataclass(slots=True)
class _Run:
    """One method with one seed; ``with_what`` is loaded when it is first needed."""

    method: Any  # Any: one of the five kinds of methods
    seed: int | None
    identity: str
    trained_parameters: int
    load: Callable[[], Conditioned]
    seconds_trained: float = 0.0


def _runs(place: _Place, method: object) -> list[_Run]:
    """Train what must be trained, and return one run a seed."""
    plain = Conditioned(place.reader, None, 0)
    if not isinstance(method, TrainedMethod):
        described = method.model_dump(mode="json")  # type: ignore[attr-defined]
        if isinstance(method, EnsembleMethod):
            described["seeds"] = list(_seeds(place.study, method.of))
        return [_Run(method, None, json.dumps(described, sort_keys=True), 0, lambda: plain)]
    runs = []
    for seed in _seeds(place.study, method.name):
        place.tell(f"{place.reader_name}, {place.task.name}: training {method.name}, seed {seed}")
        recipe = training_of(
            method, place.study, place.task, (place.reader_name, place.settings), seed=seed
        )
        done = train_prompt(recipe, artifact_root(place.root), place.progress)
        found = conditioned(method, done.folder, place.reader, place.settings)
        runs.append(
            _Run(
                method,
                seed,
                f"{method.name}/{done.folder.name}",
                found.trained_parameters,
                lambda found=found: found,  # type: ignore[misc]
                done.seconds,
            )
        )
    return runs


def _seeds(study: PromptStudy, method_name: str) -> tuple[int, ...]:
    [method] = [m for m in study.methods if m.name == method_name]
    assert isinstance(method, TrainedMethod)  # the recipe's model saw to it
    return study.seeds if method.seeds is None else method.seeds


@dataclass(frozen=True, slots=True)
class _Answers:
    generations: list[Generation]
    seconds: float
    note: str = ""


def _answers(
    place: _Place,
    run: _Run,
    evaluation: Evaluation,
    validation: Sequence[PromptRow],
    shots: Sequence[PromptRow],
    written: Mapping[tuple[str, str], Sequence[list[Generation]]],
) -> _Answers:
    """The stored answers of a cell, or fresh ones, which are stored."""
    method = run.method
    if isinstance(method, EnsembleMethod):
        members = written[method.of, evaluation.name]
        return _Answers(voted(members, method=method.vote), 0.0, f"{len(members)} members")
    described = (
        _FORMAT,
        place.reader.base_digest,
        place.task.model_dump(mode="json", include={"data"}),
        place.study.split_seed,
        run.identity,
        evaluation.identity,
    )
    sha = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    stored = place.folder / "answers" / f"{evaluation.name}-{method.name}-{sha[:16]}.json"
    if not stored.exists():
        place.tell(f"{place.reader_name}, {place.task.name}: {method.name} on {evaluation.name}")
        contexts, note = _conditioned_contexts(place, method, evaluation, validation, shots)
        with_what = run.load()
        began = time.perf_counter()
        generations = answer(with_what, contexts)
        row = {
            "seconds": time.perf_counter() - began,
            "note": note,
            "answers": [[g.text, g.logprob, g.n_tokens, g.stop] for g in generations],
        }
        atomic_write_text(stored, json.dumps(row, ensure_ascii=False) + "\n")
    found = json.loads(stored.read_text(encoding="utf-8"))
    return _Answers(
        [Generation(*fields) for fields in found["answers"]], found["seconds"], found["note"]
    )


def _conditioned_contexts(
    place: _Place,
    method: object,
    evaluation: Evaluation,
    validation: Sequence[PromptRow],
    shots: Sequence[PromptRow],
) -> tuple[Sequence[Context], str]:
    contexts = evaluation.contexts()
    if isinstance(method, WrittenMethod):
        text, score = _best_text(place, method, validation)
        return with_text(contexts, text), f"{text!r}, validation exact match {score:.1f}"
    if isinstance(method, FewShotMethod):
        made = with_shots(
            contexts,
            shots[: method.shots],
            reader=place.reader,
            window=place.reader.window,
            answer_tokens=place.settings.decoding.max_new_tokens,
        )
        return made, f"up to {method.shots} shots"
    return contexts, ""


def _best_text(
    place: _Place, method: WrittenMethod, validation: Sequence[PromptRow]
) -> tuple[str, float]:
    """The written prompt that answers the most validation rows, the first of equals."""
    best = ("", -1.0)
    for text in method.texts:
        place.tell(f"{place.reader_name}, {place.task.name}: trying {text!r}")
        contexts = with_text([row.context for row in validation], text)
        generations = answer(Conditioned(place.reader, None, 0), contexts)
        right = sum(
            exact_match(generation.text, row.answers)
            for generation, row in zip(generations, validation, strict=True)
        )
        score = 100 * right / len(validation)
        if score > best[1]:
            best = (text, score)
    return best


def _scored(place: _Place, run: _Run, evaluation: Evaluation, found: _Answers) -> Measured:
    pairs = list(zip(found.generations, evaluation.golds, strict=True))
    total, _ = parameter_counts(place.reader.model)
    return Measured(
        reader=place.reader_name,
        task=place.task.name,
        evaluation=evaluation.name,
        method=run.method.name,
        seed=run.seed,
        exact_match=tuple(float(exact_match(g.text, golds)) for g, golds in pairs),
        f1=tuple(f1(g.text, golds) for g, golds in pairs),
        seconds=found.seconds,
        seconds_trained=run.seconds_trained,
        trained_parameters=run.trained_parameters,
        reader_parameters=total,
        note=found.note,
    )


def _perplexity(place: _Place, run: _Run, pieces: Pieces) -> Measured:
    value, means = perplexity(run.load(), pieces.sources, pieces.targets)
    total, _ = parameter_counts(place.reader.model)
    return Measured(
        reader=place.reader_name,
        task=place.task.name,
        evaluation=pieces.name,
        method=run.method.name,
        seed=run.seed,
        exact_match=(),
        f1=(),
        seconds=0.0,
        seconds_trained=run.seconds_trained,
        trained_parameters=run.trained_parameters,
        reader_parameters=total,
        perplexity=value,
        logprobs=tuple(means),
    )
