"""``rag-frozen``: ask, demo, index, corpus, eval, train, models, doctor.

Answers go to stdout; progress, logs and errors to stderr. Heavy imports stand inside the commands,
so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rag_frozen.cli.index_commands import corpus_app, index_app
from rag_frozen.cli.options import EXIT_CODES, STOPPED, Json, Overrides, Root
from rag_frozen.cli.prompts import prompts_app
from rag_frozen.errors import InputError, RagFrozenError

if TYPE_CHECKING:
    from rag_frozen.pipeline import Pipeline

__all__ = ["app", "run"]

app = typer.Typer(
    name="rag-frozen",
    help="Open-domain question answering around a language model whose weights never change.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Models at hand.", no_args_is_help=True)
app.add_typer(index_app, name="index")
app.add_typer(corpus_app, name="corpus")
app.add_typer(models_app, name="models")
app.add_typer(prompts_app, name="prompts")


def _print_version(wanted: bool) -> None:
    if wanted:
        from rag_frozen import __version__

        print(f"rag-frozen {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show logs and tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if not debug:
        for noisy in ("transformers", "sentence_transformers", "httpx", "datasets"):
            logging.getLogger(noisy).setLevel(logging.ERROR)


@app.command(epilog=EXIT_CODES)
def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from stdin.")],
    pipeline: Annotated[str, typer.Option(help="Name or path of a pipeline recipe.")] = "pocket",
    k: Annotated[int | None, typer.Option("--k", min=1, help="Retrieve so many passages.")] = None,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Withhold an answer of less confidence.")
    ] = 0.0,
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Answer a question, with the passages that the answer rests on.

    Example: rag-frozen ask "who wrote hamlet"
    """
    text = _question(question)
    changes = [*(overrides or ()), *([] if k is None else [f"retrieval.k={k}"])]
    answer = _load(pipeline, root, changes).ask(text, min_confidence=min_confidence)
    if as_json:
        from rag_frozen.cli.display import answer_json

        print(json.dumps(answer_json(answer), ensure_ascii=False))
    else:
        from rag_frozen.cli.display import print_answer

        print_answer(answer)


@app.command(epilog=EXIT_CODES)
def demo(root: Root = None) -> None:
    """Build the embedded corpus and indexes, answer some questions, evaluate all of them.

    Example: rag-frozen demo
    """
    from rag_frozen.cli.demo import run_demo

    run_demo(root)


@app.command("eval", epilog=EXIT_CODES)
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


@app.command(epilog=EXIT_CODES)
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


@app.command(epilog=EXIT_CODES)
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


@app.command(epilog=EXIT_CODES)
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


@app.command(epilog=EXIT_CODES)
def train(
    recipe: Annotated[str, typer.Argument(help="Name or path of a training recipe.")],
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train what a recipe describes; the same command continues a training that was stopped.

    Example: rag-frozen train pocket-reader --set data.path=DIR
    """
    from rag_frozen.cli.train import run_training

    run_training(recipe, root=root, overrides=overrides or (), as_json=as_json)


@app.command(epilog=EXIT_CODES)
def mine(
    questions: Annotated[Path, typer.Argument(help="JSON lines with question and answers.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write (JSON lines).")],
    pipeline: Annotated[
        str, typer.Option("--pipeline", help="Name or path of the pipeline that retrieves.")
    ] = "pocket",
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="A passage id or pattern never to train on; repeatable."),
    ] = None,
    exclude_file: Annotated[
        Path | None, typer.Option("--exclude-file", help="A file of such ids, one a line.")
    ] = None,
    k: Annotated[int, typer.Option("--k", help="Passages retrieved for a question.")] = 50,
    min_overlap: Annotated[
        float, typer.Option("--min-overlap", help="Share of the question in a positive, 0 to 1.")
    ] = 0.3,
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Mine training rows: for each question a passage that answers, and hard negatives.

    Example: rag-frozen mine nq-train.jsonl --pipeline nq --exclude 'nq_gold:*' --out mined.jsonl
    """
    from rag_frozen.cli.train import run_mining
    from rag_frozen.training.mining import MiningSettings

    run_mining(
        questions, out, pipeline,
        settings=MiningSettings(k=k, min_overlap=min_overlap),
        exclude=exclude or (), exclude_file=exclude_file,
        root=root, overrides=overrides or (), as_json=as_json,
    )  # fmt: skip


@models_app.command("list", epilog=EXIT_CODES)
def models_list(as_json: Json = False) -> None:
    """List the models that need no download.

    Example: rag-frozen models list
    """
    from rag_frozen.cli.doctor import list_models

    list_models(as_json=as_json)


@app.command(epilog=EXIT_CODES)
def doctor(root: Root = None, as_json: Json = False) -> None:
    """Tell what is installed, what this machine can do, and what to type for what is missing.

    Example: rag-frozen doctor
    """
    from rag_frozen.cli.doctor import run_doctor

    run_doctor(root, as_json=as_json)


def run() -> None:
    """Entry point: every error of ours becomes a message and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that cannot show a letter gets a ?
            stream.reconfigure(errors="replace")
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("rag-frozen: stopped", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        sys.exit(_told(error))
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: Exception) -> int:
    """Print what went wrong on stderr, and return the exit code."""
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    if isinstance(error, RagFrozenError):
        print(f"rag-frozen: {error}", file=sys.stderr)
        return error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error of typer's
        message = str(error.format_message()).strip()
        if message:  # there is none where the help was printed instead
            end = "" if message.endswith((".", "?")) else "."
            print(f"rag-frozen: {message}{end} Try --help.", file=sys.stderr)
        return InputError.exit_code
    print(
        f"rag-frozen: unexpected {type(error).__name__}: {error}. For the traceback run: "
        "rag-frozen --debug …",
        file=sys.stderr,
    )
    return 1


def _question(given: str) -> str:
    """Take the question from the argument or stdin, and refuse a wrong one before models load.

    Raises:
        InputError: when it is no text, empty or too long.
    """
    text = sys.stdin.read() if given == "-" else given
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "The question is no UTF-8 text. Type it as text, or convert the file that it comes "
            "from, such as with: iconv -f LATIN1 -t UTF-8"
        ) from error
    from rag_frozen.pipeline import as_questions

    return as_questions([text.strip()])[0].text


def _load(pipeline: str, root: Path | None, overrides: list[str] | None) -> Pipeline:
    from rag_frozen.build import load_pipeline
    from rag_frozen.cli.progress import stages

    with stages() as report:
        return load_pipeline(pipeline, root=root, overrides=overrides or (), report=report)


if __name__ == "__main__":
    run()
