"""``rag-frozen ablate``: run a grid of pipelines, and print what each change is worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rag_frozen.cli.progress import stages

__all__ = ["run_ablation_command"]


def run_ablation_command(
    recipe: str,
    *,
    pipeline: str | None,
    limit: int | None,
    pipeline_overrides: Sequence[str],
    overrides: Sequence[str],
    out: Path | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Run an ablation as its recipe says, store it, print its table.

    Raises:
        RagFrozenError: when recipe, data, artifacts or models cannot be used.
    """
    from rag_frozen.evaluation.ablation.run import run_ablation
    from rag_frozen.evaluation.ablation.table import notes, short_rows
    from rag_frozen.evaluation.load import load_examples
    from rag_frozen.evaluation.stored_runs import copy_run, refuse_copy
    from rag_frozen.recipes.ablation import AblationRecipe
    from rag_frozen.recipes.loading import load_recipe

    changes = [*overrides, *([] if limit is None else [f"limit={limit}"])]
    settings = load_recipe(recipe, AblationRecipe, folder="eval", overrides=changes)
    if out is not None:
        refuse_copy(out)
    data = load_examples(settings)
    with stages() as report:
        done = run_ablation(
            settings,
            data,
            root=root,
            pipeline=pipeline,
            overrides=pipeline_overrides,
            report=report,
        )
    folder = done.folder if out is None else copy_run(done.folder, out)
    if as_json:
        print(json.dumps({**done.table.to_json(), "folder": str(folder)}))
        return
    columns, rows = short_rows(done.table)
    table = Table(title=Text(f"{done.table.name} on {done.table.data}"))
    for column in columns:
        table.add_column(column, no_wrap=True, justify="left" if column == "cell" else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
    for note in notes(done.table):
        print(note)
    if done.resumed:
        print(f"continued: {done.resumed} of {len(done.table.cells)} cells had been done before")
    print(f"stored: {folder}")
