"""``rag-frozen eval``, ``ablate``, ``compare`` and ``calibrate``: their arguments and help.

Heavy imports stand inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rag_frozen.cli.options import EXIT_CODES, Json, Overrides, Root

__all__ = ["evaluation_app"]

evaluation_app = typer.Typer()


@evaluation_app.command("eval", epilog=EXIT_CODES)
def evaluate(
    recipe: Annotated[str, typer.Argument(help="Name or path of an evaluation recipe.")],
    pipeline: Annotated[
        str | None, typer.Option(help="Another pipeline than the recipe's.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many questions.")
    ] = None,
    pipeline_overrides: Annotated[
        list[str] | None,
        typer.Option("--set-pipeline", metavar="a.b=c", help="Change the pipeline's recipe."),
    ] = None,
    until: Annotated[
        Literal["retrieve", "rerank", "read"],
        typer.Option(help="The last stage; before read, rankings are stored and nothing is read."),
    ] = "read",
    rankings: Annotated[
        Path | None,
        typer.Option(help="A stored run (folder or TREC file) in place of what it ranked."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also copy the finished run there.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Fail when a score is not as expected.")
    ] = False,
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline over a data set and score it; stopped, the same command goes on.

    Example: rag-frozen eval pocket
    """
    from rag_frozen.cli.evaluate import run_evaluation

    run_evaluation(
        recipe,
        pipeline=pipeline,
        limit=limit,
        pipeline_overrides=pipeline_overrides or (),
        until=until,
        rankings=rankings,
        out=out,
        overrides=overrides or (),
        check=check,
        root=root,
        as_json=as_json,
    )


@evaluation_app.command(epilog=EXIT_CODES)
def ablate(
    recipe: Annotated[str, typer.Argument(help="Name or path of an ablation recipe.")],
    pipeline: Annotated[
        str | None, typer.Option(help="Another pipeline than the recipe's as base.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many questions.")
    ] = None,
    pipeline_overrides: Annotated[
        list[str] | None,
        typer.Option("--set-pipeline", metavar="a.b=c", help="Change the pipeline in every cell."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also copy the finished table there.")] = None,
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Run a grid of pipelines over one data set and compare them; stopped, the command goes on.

    Example: rag-frozen ablate ablation-pocket --limit 100
    """
    from rag_frozen.cli.ablate import run_ablation_command

    run_ablation_command(
        recipe,
        pipeline=pipeline,
        limit=limit,
        pipeline_overrides=pipeline_overrides or (),
        overrides=overrides or (),
        out=out,
        root=root,
        as_json=as_json,
    )


@evaluation_app.command(epilog=EXIT_CODES)
def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Folders of stored runs; the first is the base.")
    ],
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Compare stored runs question by question: paired intervals and tests, Holm's correction.

    Example: rag-frozen compare RUN_A RUN_B
    """
    from rag_frozen.cli.compare import run_comparison

    run_comparison(runs, root=root, as_json=as_json)


@evaluation_app.command(epilog=EXIT_CODES)
def calibrate(
    run: Annotated[str, typer.Argument(help="Folder of a stored run over validation questions.")],
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Fit the confidence of a pipeline on a stored run, and print the lines for its recipe.

    Example: rag-frozen calibrate RUN
    """
    from rag_frozen.cli.calibrate import run_calibration

    run_calibration(run, root=root, as_json=as_json)
