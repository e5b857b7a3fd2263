"""``rag-frozen eval``: run, score, store, print, check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rag_frozen.cli.progress import stages
from rag_frozen.errors import CheckFailedError

__all__ = ["run_evaluation"]


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
    """Evaluate as a recipe says."""
    from rag_frozen.build import load_pipeline
    from rag_frozen.cli.display import print_result
    from rag_frozen.evaluation.load import load_examples
    from rag_frozen.evaluation.runner import EvalProgress, evaluate, save_run
    from rag_frozen.recipes.evaluation import EvalRecipe
    from rag_frozen.recipes.loading import load_recipe

    settings = load_recipe(recipe, EvalRecipe, folder="eval", overrides=overrides)
    data = load_examples(settings)
    if limit is not None:
        data = replace(data, name=f"{data.name}-first-{limit}", examples=data.examples[:limit])
    running = {"exact match": 0.0}
    with stages(lambda name: _note(name, running)) as report:
        built = load_pipeline(
            pipeline or settings.pipeline, root=root, overrides=pipeline_overrides, report=report
        )

        def told(progress: EvalProgress) -> None:
            running["exact match"] = progress.exact_match
            report("questions", progress.done, progress.total)

        result = evaluate(built, data, chunk_size=settings.chunk_size, progress=told)
    folder = save_run(result, built, root)
    if as_json:
        print(json.dumps({**result.to_json(), "folder": str(folder)}))
    else:
        print_result(result)
        print(f"stored: {folder}")
    if check:
        _check(settings.expected, {"exact_match": result.exact_match, "f1": result.f1})


def _note(name: str, running: dict[str, float]) -> str:
    return f"exact match {running['exact match']:.1f}" if name == "questions" else ""


def _check(expected: object, found: dict[str, float]) -> None:
    from rag_frozen.recipes.evaluation import ExpectedScores

    assert isinstance(expected, ExpectedScores)
    wrong = []
    for name, value in found.items():
        wanted = getattr(expected, name)
        if wanted is not None and abs(value - wanted) > expected.tolerance:
            wrong.append(f"{name} is {value:.2f}, expected {wanted:.2f} ± {expected.tolerance}")
    if expected.exact_match is None and expected.f1 is None:
        raise CheckFailedError(
            "The recipe expects no score yet (expected: null); nothing to check."
        )
    if wrong:
        raise CheckFailedError("; ".join(wrong))
