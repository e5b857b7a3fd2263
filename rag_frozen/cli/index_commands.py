"""``rag-frozen index`` and ``rag-frozen corpus``: build, check and plan.

Heavy imports stand inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag_frozen.cli.options import EXIT_CODES, Json, Overrides, Root

if TYPE_CHECKING:
    from rag_frozen.types import Passage

__all__ = ["corpus_app", "index_app"]

index_app = typer.Typer(help="Build, check, plan and change indexes.", no_args_is_help=True)
corpus_app = typer.Typer(help="Build a corpus from files of passages.", no_args_is_help=True)


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
    as_json: Json = False,
) -> None:
    """Hash every file of a recipe's artifacts and check that they belong together.

    Example: rag-frozen index verify pocket
    """
    from rag_frozen.artifacts import verify
    from rag_frozen.cli.display import built_json
    from rag_frozen.cli.progress import stages
    from rag_frozen.indexing.bm25 import segments_advice
    from rag_frozen.indexing.opening import check_agreement
    from rag_frozen.indexing.parts import index_parts
    from rag_frozen.recipes.index import IndexRecipe
    from rag_frozen.recipes.loading import load_recipe

    settings = load_recipe(recipe, IndexRecipe, folder="indexes", overrides=overrides or ())
    built = index_parts(settings, root=root)
    with stages() as report:
        for part in built.parts:
            verify(part.folder, progress=partial(report, part.role))
            check_agreement(built, part)
    if as_json:
        print(json.dumps(built_json(built)))
        return
    for part in built.parts:
        of = "" if part.segments is None else f" in {part.segments:,} segment(s)"
        print(f"{part.role}: {part.n_passages:,} passages{of}, whole and unchanged: {part.folder}")
        if advice := segments_advice(settings.bm25, part.segments):
            print(advice)


@index_app.command("plan", epilog=EXIT_CODES)
def index_plan(
    recipe: Annotated[str, typer.Argument(help="Name or path of an index recipe.")],
    root: Root = None,
    overrides: Overrides = None,
    passages: Annotated[
        int | None,
        typer.Option(min=1, help="Plan as if the corpus had so many passages of its kind."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate passages, disk, time and memory of a build on this machine, from a sample.

    Example: rag-frozen index plan pocket
    """
    from rag_frozen.cli.display import print_plan
    from rag_frozen.indexing.plan import plan_index
    from rag_frozen.recipes.index import IndexRecipe
    from rag_frozen.recipes.loading import load_recipe

    settings = load_recipe(recipe, IndexRecipe, folder="indexes", overrides=overrides or ())
    plan = plan_index(settings, root=root, n_passages=passages)
    if as_json:
        print(json.dumps(plan.to_json()))
    else:
        print_plan(plan)


@index_app.command("add", epilog=EXIT_CODES)
def index_add(
    recipe: Annotated[str, typer.Argument(help="Name or path of the recipe of a built index.")],
    files: Annotated[list[Path], typer.Argument(help="JSONL or DPR TSV files, or folders.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace passages whose ids are there already.")
    ] = False,
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Add passages to a built corpus and its indexes, without building them again.

    Example: rag-frozen index add files-minilm more.jsonl --root DIR
    """
    from rag_frozen.corpus import read_passages

    added = read_passages([str(file) for file in files], strict=True)
    _change(recipe, root, overrides, as_json, add=added, replace=replace)


@index_app.command("delete", epilog=EXIT_CODES)
def index_delete(
    recipe: Annotated[str, typer.Argument(help="Name or path of the recipe of a built index.")],
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of passages.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file of ids, one a line.")] = None,
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Delete passages by id from a built corpus and its indexes, without building them again.

    Example: rag-frozen index delete files-minilm doc-17 doc-18 --root DIR
    """
    wanted = list(ids or ())
    if file is not None:
        from rag_frozen.training.files import read_ids

        wanted += read_ids(file)
    _change(recipe, root, overrides, as_json, delete=wanted)


def _change(
    recipe: str,
    root: Path | None,
    overrides: list[str] | None,
    as_json: bool,
    *,
    add: Iterable[Passage] = (),
    delete: Sequence[str] = (),
    replace: bool = False,
) -> None:
    from rag_frozen.cli.display import built_json, print_built
    from rag_frozen.cli.progress import stages
    from rag_frozen.indexing.changes import change_index
    from rag_frozen.recipes.index import IndexRecipe
    from rag_frozen.recipes.loading import load_recipe

    settings = load_recipe(recipe, IndexRecipe, folder="indexes", overrides=overrides or ())
    with stages() as report:
        built = change_index(
            settings, add=add, delete=delete, replace=replace, root=root, report=report
        )
    if as_json:
        print(json.dumps(built_json(built)))
    else:
        print_built(built)


@corpus_app.command("build", epilog=EXIT_CODES)
def corpus_build(
    files: Annotated[list[Path], typer.Argument(help="JSONL or DPR TSV files, or folders.")],
    name: Annotated[str, typer.Option(help="Name of the corpus.")] = "corpus",
    chunk_words: Annotated[
        int | None, typer.Option(min=10, help="Cut documents into passages of so many words.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first malformed row.")] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Build a corpus store from files of passages.

    Example: rag-frozen corpus build psgs_w100.tsv.gz --name wiki --root DIR
    """
    from rag_frozen.cli.display import corpus_json
    from rag_frozen.cli.progress import stages
    from rag_frozen.corpus import build_corpus

    with stages() as report:
        built = build_corpus(
            [str(file) for file in files],
            root,
            name=name,
            chunk_words=chunk_words,
            strict=strict,
            progress=partial(report, "corpus"),
        )
    if as_json:
        print(json.dumps(corpus_json(built)))
    else:
        print(f"{built.report.summary()}: {built.folder}")
    for problem in built.report.problems[:5]:
        print(f"  left out: {problem}", file=sys.stderr)
