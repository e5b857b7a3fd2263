"""``rag-frozen``: ask, demo, index, corpus, eval, train, models, doctor.

Answers go to stdout; progress, logs and errors to stderr. Heavy imports stand inside the commands,
so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from rag_frozen.errors import InputError, RagFrozenError

__all__ = ["app", "run"]

EXIT_CODES = (
    "Exit codes: 0 done; 2 wrong input or recipe; 3 an artifact is missing, damaged or does not "
    "fit; 4 a model or a package is missing; 5 the disk is full or read-only; 6 a check failed; "
    "1 anything else; 130 stopped by Ctrl-C."
)

app = typer.Typer(
    name="rag-frozen",
    help="Open-domain question answering around a language model whose weights never change.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
index_app = typer.Typer(help="Build, check and plan indexes.", no_args_is_help=True)
corpus_app = typer.Typer(help="Build a corpus from files of passages.", no_args_is_help=True)
models_app = typer.Typer(help="Models at hand.", no_args_is_help=True)
app.add_typer(index_app, name="index")
app.add_typer(corpus_app, name="corpus")
app.add_typer(models_app, name="models")

Root = Annotated[
    Path | None,
    typer.Option(
        "--root", help="Folder of artifacts (default: RAG_FROZEN_HOME, else the user's cache)."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=c", help="Change a setting of the recipe; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show logs and tracebacks.")] = False,
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
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Answer a question, with the passages that the answer rests on.

    Example: rag-frozen ask "who wrote hamlet"
    """
    text = sys.stdin.read() if question == "-" else question
    from rag_frozen.pipeline import as_questions

    as_questions([text])  # a wrong question is told before anything is loaded
    answer = _load(pipeline, root, overrides).ask(text)
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
    check: Annotated[
        bool, typer.Option("--check", help="Fail when a score is not as expected.")
    ] = False,
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline over a data set and score it.

    Example: rag-frozen eval pocket
    """
    from rag_frozen.cli.evaluate import run_evaluation

    run_evaluation(
        recipe,
        pipeline=pipeline,
        limit=limit,
        pipeline_overrides=pipeline_overrides or (),
        overrides=overrides or (),
        check=check,
        root=root,
        as_json=as_json,
    )


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


@index_app.command("build", epilog=EXIT_CODES)
def index_build(
    recipe: Annotated[str, typer.Argument(help="Name or path of an index recipe.")],
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Build a corpus and its indexes; what is finished is not built twice.

    Example: rag-frozen index build pocket
    """
    from rag_frozen.build import build_index
    from rag_frozen.cli.display import built_json, print_built
    from rag_frozen.cli.progress import stages

    with stages() as report:
        built = build_index(recipe, root=root, overrides=overrides or (), report=report)
    if as_json:
        print(json.dumps(built_json(built)))
    else:
        print_built(built)


@index_app.command("verify", epilog=EXIT_CODES)
def index_verify(
    recipe: Annotated[str, typer.Argument(help="Name or path of an index recipe.")],
    root: Root = None,
    overrides: Overrides = None,
) -> None:
    """Hash every file of a recipe's artifacts and check that they belong together.

    Example: rag-frozen index verify pocket
    """
    from rag_frozen.artifacts import verify
    from rag_frozen.cli.progress import stages
    from rag_frozen.indexing.build import check_agreement, index_parts
    from rag_frozen.recipes.index import IndexRecipe
    from rag_frozen.recipes.loading import load_recipe

    settings = load_recipe(recipe, IndexRecipe, folder="indexes", overrides=overrides or ())
    built = index_parts(settings, root=root)
    with stages() as report:
        for part in built.parts:
            verify(part.folder, progress=lambda done, total, p=part: report(p.role, done, total))  # type: ignore[misc]
            check_agreement(built, part)
    for part in built.parts:
        print(f"{part.role}: {part.n_passages:,} passages, whole and unchanged: {part.folder}")


@index_app.command("plan", epilog=EXIT_CODES)
def index_plan(
    recipe: Annotated[str, typer.Argument(help="Name or path of an index recipe.")],
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Estimate passages, disk and time of a build on this machine, from a sample.

    Example: rag-frozen index plan pocket
    """
    from rag_frozen.cli.display import print_plan
    from rag_frozen.indexing.plan import plan_index
    from rag_frozen.recipes.index import IndexRecipe
    from rag_frozen.recipes.loading import load_recipe

    settings = load_recipe(recipe, IndexRecipe, folder="indexes", overrides=overrides or ())
    plan = plan_index(settings, root=root)
    if as_json:
        print(json.dumps(plan.to_json()))
    else:
        print_plan(plan)


@corpus_app.command("build", epilog=EXIT_CODES)
def corpus_build(
    files: Annotated[list[Path], typer.Argument(help="JSONL or DPR TSV files, or folders.")],
    name: Annotated[str, typer.Option(help="Name of the corpus.")] = "corpus",
    chunk_words: Annotated[
        int | None, typer.Option(min=10, help="Cut documents into passages of so many words.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first malformed row.")] = False,
    root: Root = None,
) -> None:
    """Build a corpus store from files of passages.

    Example: rag-frozen corpus build psgs_w100.tsv.gz --name wiki --root DIR
    """
    from rag_frozen.cli.progress import stages
    from rag_frozen.corpus import build_corpus

    with stages() as report:
        built = build_corpus(
            [str(file) for file in files],
            root,
            name=name,
            chunk_words=chunk_words,
            strict=strict,
            progress=lambda done, total: report("corpus", done, total),
        )
    print(f"{built.report.summary()}: {built.folder}")
    for problem in built.report.problems[:5]:
        print(f"  left out: {problem}", file=sys.stderr)


@models_app.command("list", epilog=EXIT_CODES)
def models_list(as_json: Json = False) -> None:
    """List the models that need no download.

    Example: rag-frozen models list
    """
    from rag_frozen.cli.doctor import list_models

    list_models(as_json)


@app.command(epilog=EXIT_CODES)
def doctor(root: Root = None) -> None:
    """Tell what is installed, what this machine can do, and what to type for what is missing.

    Example: rag-frozen doctor
    """
    from rag_frozen.cli.doctor import run_doctor

    run_doctor(root)


def run() -> None:
    """Entry point: every error of ours becomes a message and its exit code."""
    try:
        app(standalone_mode=False)
    except RagFrozenError as error:
        print(f"rag-frozen: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("rag-frozen: stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error
            print(f"rag-frozen: {error.format_message()}", file=sys.stderr)
            sys.exit(InputError.exit_code)
        if "--debug" in sys.argv:
            raise
        print(
            f"rag-frozen: unexpected {type(error).__name__}: {error}. For the traceback run: "
            "rag-frozen --debug …",
            file=sys.stderr,
        )
        sys.exit(1)


def _load(pipeline: str, root: Path | None, overrides: list[str] | None):  # type: ignore[no-untyped-def]
    from rag_frozen.build import load_pipeline
    from rag_frozen.cli.progress import stages

    with stages() as report:
        return load_pipeline(pipeline, root=root, overrides=overrides or (), report=report)


if __name__ == "__main__":
    run()
