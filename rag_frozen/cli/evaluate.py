"""``rag-frozen eval``: run, score, store, print, check."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rag_frozen.cli.progress import Report, stages
from rag_frozen.errors import CheckFailedError

if TYPE_CHECKING:
    from rag_frozen.evaluation.examples import ExampleSet
    from rag_frozen.evaluation.runner import EvalProgress, EvalResult
    from rag_frozen.evaluation.runs import LastStage
    from rag_frozen.pipeline import Pipeline
    from rag_frozen.recipes.evaluation import EvalRecipe

__all__ = ["check_scores", "evaluate_with_progress", "run_evaluation"]


def run_evaluation(
    recipe: str,
    *,
    pipeline: str | None,
    limit: int | None,
    pipeline_overrides: Sequence[str],
    overrides: Sequence[str],
    until: LastStage,
    rankings: Path | None,
    out: Path | None,
    check: bool,
    root: Path | None,
    as_json: bool,
) -> None:
    """Evaluate as a recipe says; store the run; print the scores; compare with what is expected.

    Raises:
        RagFrozenError: when recipe, data, artifacts or models cannot be used.
        CheckFailedError: with ``check``, when a score is not as expected or none is expected.
    """
    from rag_frozen.cli.display import print_published, print_result
    from rag_frozen.evaluation.load import load_examples
    from rag_frozen.evaluation.runs import RunOptions, run_folder, run_recipe, store_run
    from rag_frozen.evaluation.stored_runs import copy_run, refuse_copy, replay_stored
    from rag_frozen.evaluation.text_metrics import TEXT_METRICS
    from rag_frozen.recipes.evaluation import EvalRecipe
    from rag_frozen.recipes.loading import load_recipe

    changes = [*overrides, *([] if limit is None else [f"limit={limit}"])]
    settings = load_recipe(recipe, EvalRecipe, folder="eval", overrides=changes)
    if check:
        _refuse_unexpecting(settings)
    if out is not None:
        refuse_copy(out)
    data = load_examples(settings)
    if check:
        _refuse_other_data(settings, data.sha256)
    changes = [*pipeline_overrides, *_replaying(rankings, pipeline or settings.pipeline)]
    with stages() as report:
        built, data = _pipeline(settings, pipeline, data, changes, until, root, report)
    if rankings is not None and settings.passages == "retrieved":
        replay_stored(built, rankings, data)
    run_folder(root, pipeline=built.name, data=data.name)  # a wrong name is told before the work
    evaluation = settings.model_dump(mode="json")
    if out is not None:
        refuse_copy(out, run_recipe(built, evaluation, until=until))
    options = RunOptions(
        chunk_size=settings.chunk_size,
        overlap=settings.overlap,
        search_corpus=settings.search_corpus,
        until=until,
        metrics=tuple(name for name in settings.metrics if name in TEXT_METRICS),
    )
    with _progress(answers=until == "read") as (told, report):
        run = store_run(
            built,
            data,
            root,
            options=options,
            evaluation=evaluation,
            progress=told,
            searched=lambda done: report("searching the corpus", done, len(built.store)),
        )
    folder = run.folder if out is None else copy_run(run.folder, out)
    if as_json:
        print(json.dumps({**run.result.to_json(), "folder": str(folder)}))
    else:
        print_result(run.result)
        print_published({name: one.published for name, one in settings.metrics.items()})
        if run.resumed:
            print(f"continued: {run.resumed} questions had been answered before")
        print(f"stored: {folder}")
    if check:
        check_scores(settings, run.result.metrics)


def evaluate_with_progress(pipeline: Pipeline, data: ExampleSet, *, chunk_size: int) -> EvalResult:
    """Evaluate in memory, with questions done, exact match so far and time left on stderr."""
    from rag_frozen.evaluation.runner import evaluate

    with _progress() as (told, _):
        return evaluate(pipeline, data, chunk_size=chunk_size, progress=told)


@contextmanager
def _progress(*, answers: bool = True) -> Iterator[tuple[Callable[[EvalProgress], None], Report]]:
    running = 0.0

    def told(progress: EvalProgress) -> None:
        nonlocal running
        running = progress.exact_match
        report("questions", progress.done, progress.total)

    def note(name: str) -> str:
        return f"exact match {running:.1f}" if name == "questions" and answers else ""

    with stages(note) as report:
        yield told, report


def _replaying(rankings: Path | None, pipeline: str) -> list[str]:
    """Overrides that put a stored ranking in the place of the stages that made it."""
    if rankings is None:
        return []
    from rag_frozen.evaluation.stored_runs import stored_ranking, stored_scores
    from rag_frozen.recipes.loading import load_recipe
    from rag_frozen.recipes.pipeline import CrossEncoder, PipelineRecipe

    path, reranked = stored_ranking(rankings)
    scores = {stage: str(file) for stage, file in stored_scores(rankings).items()}
    stored = {"kind": "replay", "run": str(path), "scores": scores}
    changes = [f"retrieval={json.dumps(stored)}"]
    reranker = load_recipe(pipeline, PipelineRecipe, folder="pipelines", overrides=()).reranker
    if reranked and isinstance(reranker, CrossEncoder):
        changes.append(f"reranker={{kind: none, depth: {reranker.depth}}}")
    return changes


def check_scores(settings: EvalRecipe, found: Mapping[str, float]) -> None:
    """Compare scores with what a recipe expects.

    Raises:
        CheckFailedError: naming every metric that is out of its tolerance or was not measured.
    """
    wrong = []
    for name, metric in settings.metrics.items():
        if metric.expected is None:
            continue
        value = found.get(name)
        wanted = f"expected {metric.expected:.2f} ± {metric.tolerance:g}"
        if value is None:
            wrong.append(f"{name} was not measured, {wanted}")
        elif abs(value - metric.expected) > metric.tolerance:
            wrong.append(f"{name} is {value:.2f}, {wanted}")
    if wrong:
        raise CheckFailedError(
            f"{'; '.join(wrong)}. Compare recipe.yaml and the models' digests in manifest.json "
            "with those of the run in which the expected scores were measured."
        )


def _refuse_unexpecting(settings: EvalRecipe) -> None:
    if all(metric.expected is None for metric in settings.metrics.values()):
        raise CheckFailedError(
            f"The evaluation {settings.name} expects no score yet (expected: null), so there is "
            "nothing to check. Give one with: --set metrics.exact_match.expected=…"
        )


def _refuse_other_data(settings: EvalRecipe, sha256: str) -> None:
    if settings.expected_data is None:
        return
    own = "--set expected_data=null --set metrics.exact_match.expected=…"
    if sha256 != settings.expected_data:
        raise CheckFailedError(
            f"The expected scores of {settings.name} were measured on data with the SHA-256 "
            f"{settings.expected_data}, and this is {sha256}. Leave --check out, or expect "
            f"scores of your own: {own}"
        )
    if settings.limit is not None:
        raise CheckFailedError(
            f"The expected scores of {settings.name} are those of all questions, not of the first "
            f"{settings.limit}. Leave --limit or --check out, or expect scores of your own: {own}"
        )


def _pipeline(
    settings: EvalRecipe,
    named: str | None,
    data: ExampleSet,
    overrides: Sequence[str],
    until: LastStage,
    root: Path | None,
    report: Report,
) -> tuple[Pipeline, ExampleSet]:
    from rag_frozen.build import load_pipeline
    from rag_frozen.evaluation.gold import WITHOUT_RETRIEVAL, with_gold_passages

    recipe = named or settings.pipeline
    if settings.passages == "retrieved":
        built = load_pipeline(recipe, root=root, overrides=overrides, until=until, report=report)
        return built, data
    changes = [*overrides, *WITHOUT_RETRIEVAL]
    return with_gold_passages(load_pipeline(recipe, root=root, overrides=changes), data)
