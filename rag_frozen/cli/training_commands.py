"""``rag-frozen train``, ``mine`` and ``cloze``: their arguments and help.

Heavy imports stand inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rag_frozen.cli.options import EXIT_CODES, Json, Overrides, Root

__all__ = ["training_app"]

training_app = typer.Typer()

_Retrieving = Annotated[
    str, typer.Option("--pipeline", help="Name or path of the pipeline that retrieves.")
]
_Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="A passage id or pattern never to train on; repeatable."),
]
_ExcludeFile = Annotated[
    Path | None, typer.Option("--exclude-file", help="A file of such ids, one a line.")
]


@training_app.command(epilog=EXIT_CODES)
def train(
    recipe: Annotated[str, typer.Argument(help="Name or path of a training recipe.")],
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train what a recipe describes; the same command continues a training that was stopped.

    A prompt whose proof fails is stored with its faults, and the exit code is 6.

    Example: rag-frozen train pocket-reader --set data.path=DIR
    """
    from rag_frozen.cli.train import run_training

    run_training(recipe, root=root, overrides=overrides or (), as_json=as_json)


@training_app.command(epilog=EXIT_CODES)
def mine(
    questions: Annotated[Path, typer.Argument(help="JSON lines with question and answers.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write (JSON lines).")],
    pipeline: _Retrieving = "pocket",
    exclude: _Exclude = None,
    exclude_file: _ExcludeFile = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Passages retrieved for a question.")] = 50,
    min_overlap: Annotated[
        float,
        typer.Option("--min-overlap", min=0, max=1, help="Share of the question in a positive."),
    ] = 0.3,
    own_passages: Annotated[
        bool,
        typer.Option("--own-passages", help="A question's own passage (text) is its positive."),
    ] = False,
    negatives: Annotated[
        int, typer.Option("--negatives", min=0, help="Hits without an answer that a row keeps.")
    ] = 8,
    spread: Annotated[
        bool, typer.Option("--spread", help="Keep them evenly spread over the hits, not the first.")
    ] = False,
    hold_out: Annotated[
        Path | None,
        typer.Option("--hold-out", help="A file for rows that are kept apart, for validation."),
    ] = None,
    hold_out_every: Annotated[
        int | None,
        typer.Option("--hold-out-every", min=2, help="Every n-th row is kept apart; 8 if not set."),
    ] = None,
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Mine training rows: for each question a passage that answers, and hard negatives.

    The same command goes on where it was stopped.

    Example: rag-frozen mine nq-train.jsonl --pipeline nq --exclude 'nq_gold:*' --out mined.jsonl
    """
    from rag_frozen.cli.train import run_mining
    from rag_frozen.errors import InputError
    from rag_frozen.training.mined_rows import MiningSettings
    from rag_frozen.training.mining import HoldOut

    if hold_out is None and hold_out_every is not None:
        raise InputError(
            f"--hold-out-every {hold_out_every} needs the file for those rows: --hold-out FILE."
        )
    run_mining(
        questions, out, pipeline,
        settings=MiningSettings(
            k=k, min_overlap=min_overlap, own_passages=own_passages,
            negatives=negatives, spread=spread,
        ),
        hold_out=None if hold_out is None else HoldOut(hold_out, hold_out_every or 8),
        exclude=exclude or (), exclude_file=exclude_file,
        root=root, overrides=overrides or (), as_json=as_json,
    )  # fmt: skip


@training_app.command(epilog=EXIT_CODES)
def cloze(
    out: Annotated[Path, typer.Option("--out", help="The file to write (JSON lines).")],
    rows: Annotated[int, typer.Option("--rows", min=1, help="Questions to write.")] = 10_000,
    pipeline: _Retrieving = "pocket",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="A pattern of ids: these passages alone; repeatable."),
    ] = None,
    exclude: _Exclude = None,
    exclude_file: _ExcludeFile = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other questions.")] = 0,
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write training rows without annotators: cloze questions that another passage answers.

    The same command goes on where it was stopped.

    Example: rag-frozen cloze --pipeline files-minilm --only 'simplewiki:*' --out cloze.jsonl
    """
    from rag_frozen.cli.train import run_cloze
    from rag_frozen.training.cloze_rows import RetrievedClozeSettings

    run_cloze(
        out, pipeline,
        settings=RetrievedClozeSettings(rows=rows, seed=seed, only=tuple(only or ())),
        exclude=exclude or (), exclude_file=exclude_file,
        root=root, overrides=overrides or (), as_json=as_json,
    )  # fmt: skip
