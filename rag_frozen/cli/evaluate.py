"""``rag-frozen eval``: run, score, store, print, check."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rag_frozen.cli.progress import Report, stages
from rag_frozen.errors import CheckFailedError

if TYPE_CHECKING:
    from rag_frozen.evaluation.examples import ExampleSet
    from rag_frozen.evaluation.runner import EvalProgress, EvalResult
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
    from rag_frozen.evaluation.runs import run_folder, save_run
    from rag_frozen.recipes.evaluation import EvalRecipe
    from rag_frozen.recipes.loading import load_recipe

    changes = [*overrides, *([] if limit is None else [f"limit={limit}"])]
    settings = load_recipe(recipe, EvalRecipe, folder="eval", overrides=changes)
    if check:
        _refuse_unexpecting(settings)
    data = load_examples(settings)
    with stages() as report:
        built, data = _pipeline(settings, pipeline, data, pipeline_overrides, root, report)
    run_folder(root, pipeline=built.name, data=data.name)  # a wrong name is told before the work
    result = evaluate_with_progress(built, data, chunk_size=settings.chunk_size)
    folder = save_run(result, built, root, evaluation=settings.model_dump(mode="json"))
    if as_json:
        print(json.dumps({**result.to_json(), "folder": str(folder)}))
    else:
        print_result(result)
        print_published({name: one.published for name, one in settings.metrics.items()})
        print(f"stored: {folder}")
    if check:
        check_scores(settings, result.metrics)


def evaluate_with_progress(pipeline: Pipeline, data: ExampleSet, *, chunk_size: int) -> EvalResult:
    """Evaluate, showing questions done, exact match so far and the time left on stderr."""
    from rag_frozen.evaluation.runner import evaluate

    running = 0.0

    def told(progress: EvalProgress) -> None:
        nonlocal running
        running = progress.exact_match
        report("questions", progress.done, progress.total)

    with stages(lambda name: f"exact match {running:.1f}") as report:
        return evaluate(pipeline, data, chunk_size=chunk_size, progress=told)


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


def _pipeline(
    settings: EvalRecipe,
    named: str | None,
    data: ExampleSet,
    overrides: Sequence[str],
    root: Path | None,
    report: Report,
) -> tuple[Pipeline, ExampleSet]:
    from rag_frozen.build import load_pipeline
    from rag_frozen.evaluation.gold import WITHOUT_RETRIEVAL, with_gold_passages

    recipe = named or settings.pipeline
    if settings.passages == "retrieved":
        return load_pipeline(recipe, root=root, overrides=overrides, report=report), data
    changes = [*overrides, *WITHOUT_RETRIEVAL]
    return with_gold_passages(load_pipeline(recipe, root=root, overrides=changes), data)
