"""``rag-frozen``: the commands put together, ``ask``, ``demo``, ``models`` and ``doctor``.

Answers go to stdout; progress, logs and errors to stderr. Heavy imports stand inside the commands,
so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag_frozen.cli.evaluation_commands import evaluation_app
from rag_frozen.cli.failures import told
from rag_frozen.cli.index_commands import corpus_app, index_app
from rag_frozen.cli.options import EXIT_CODES, STOPPED, Json, Overrides, Root
from rag_frozen.cli.prompts import prompts_app
from rag_frozen.cli.training_commands import training_app
from rag_frozen.errors import InputError

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
app.add_typer(evaluation_app)
app.add_typer(training_app)
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

    Example: rag-frozen ask "who painted the mona lisa"
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
        code = app(prog_name="rag-frozen", standalone_mode=False)
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
        sys.exit(told(error, debug="--debug" in sys.argv))
    sys.exit(code if isinstance(code, int) else 0)


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
    if not text.strip():
        raise InputError(
            "The question is empty. Ask something in words: "
            'rag-frozen ask "who painted the mona lisa"'
        )
    from rag_frozen.questions import as_questions

    return as_questions([text.strip()])[0].text


def _load(pipeline: str, root: Path | None, overrides: list[str] | None) -> Pipeline:
    from rag_frozen.build import load_pipeline
    from rag_frozen.cli.progress import stages

    with stages() as report:
        return load_pipeline(pipeline, root=root, overrides=overrides or (), report=report)


if __name__ == "__main__":
    run()
