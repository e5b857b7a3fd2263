"""``rag-frozen prompts …``: look at trained prompts, prove them again, exchange them with PEFT."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from rag_frozen.cli.options import EXIT_CODES, Json, Overrides, Root

__all__ = ["prompts_app"]

prompts_app = typer.Typer(help="Trained soft prompts.", no_args_is_help=True)

_SHOWN = "who wrote the origin of species"
"""The question for which ``show`` makes an input-dependent prompt, where none is given."""

Folder = Annotated[Path, typer.Argument(help="Folder of a trained prompt.")]


@prompts_app.command("study", epilog=EXIT_CODES)
def study(
    recipe: Annotated[str, typer.Argument(help="Name or path of a study recipe (eval/).")],
    root: Root = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train and measure all methods of a study; the same command continues one that was stopped.

    Example: rag-frozen prompts study prompt-table --set data_path=DIR
    """
    from rag_frozen.cli.train import progress_line
    from rag_frozen.recipes.loading import load_recipe
    from rag_frozen.studies.prompt_study import run_study
    from rag_frozen.studies.settings import PromptStudy

    settings = load_recipe(recipe, PromptStudy, folder="eval", overrides=overrides or ())
    done = run_study(
        settings,
        root=root,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
        progress=lambda one: print(progress_line(one), file=sys.stderr, flush=True),
    )
    if as_json:
        print(json.dumps({"folder": str(done.folder), **done.table.to_json()}))
    else:
        print(done.table.to_markdown())
        print(f"Stored: {done.folder}")


@prompts_app.command("verify", epilog=EXIT_CODES)
def verify(
    folder: Folder,
    data: Annotated[
        Path | None,
        typer.Option(help="The training's data.path: measure the gain again on its rows."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove a prompt again: base unchanged, output changed, nothing lost on disk, and a gain (as
    it was recorded, or measured again with --data).

    Example: rag-frozen prompts verify heads/prompt-reading-static/0123456789abcdef
    """
    from rag_frozen.errors import CheckFailedError
    from rag_frozen.training.prompt_verification import verify_prompt

    found = verify_prompt(folder, data=data)
    if as_json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name.replace('_', ' ')}: {value}")
    if found["faults"]:
        raise CheckFailedError(f"The prompt in {folder} is not good: {'; '.join(found['faults'])}")


@prompts_app.command("show", epilog=EXIT_CODES)
def show(
    folder: Folder,
    question: Annotated[
        str | None, typer.Option(help="What an input-dependent prompt is made for.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, max=50, help="Tokens a vector.")] = 5,
    as_json: Json = False,
) -> None:
    """Show the vocabulary tokens nearest to each vector, with their cosine.

    Example: rag-frozen prompts show FOLDER --question "who painted the mona lisa"
    """
    from rag_frozen.prompting.nearest import nearest_tokens
    from rag_frozen.training.prompt_verification import open_prompt
    from rag_frozen.types import Context, Question

    reader, head = open_prompt(folder)
    text = question or _SHOWN
    vectors = head.generate([Context(Question("0", text), text, 0)])[0]
    rows = nearest_tokens(vectors, reader.embedding_table, token=reader.token_text, k=k)
    if as_json:
        print(json.dumps([[[one.token, round(one.cosine, 4)] for one in row] for row in rows]))
        return
    for number, (row, vector) in enumerate(zip(rows, vectors, strict=True), 1):
        near = "  ".join(f"{one.token} {one.cosine:.2f}" for one in row)
        print(f"{number:>3}  norm {float(vector.norm()):.2f}  {near}")


@prompts_app.command("attention", epilog=EXIT_CODES)
def attention(
    folder: Folder,
    question: Annotated[str, typer.Argument(help="What the encoder reads.")],
    out: Annotated[Path, typer.Option(help="The picture, an SVG or PNG file.")],
) -> None:
    """Draw which input tokens each vector of an input-dependent prompt attends to.

    Example: rag-frozen prompts attention FOLDER "who painted the mona lisa" --out attention.svg
    """
    from rag_frozen.errors import InputError
    from rag_frozen.prompting.heads import DependentHead
    from rag_frozen.prompting.pictures import draw_attention
    from rag_frozen.training.prompt_verification import open_prompt
    from rag_frozen.types import Context, Question

    if out.suffix.lower() not in (".svg", ".png"):
        raise InputError(f"{out.name}: name the picture .svg or .png")
    _, head = open_prompt(folder)
    if not isinstance(head, DependentHead):
        raise InputError(
            f"The prompt in {folder} is static: it is the same for every question. Show it with: "
            f"rag-frozen prompts show {folder}"
        )
    tokens, weights = head.attention(Context(Question("0", question), question, 0))
    draw_attention(out, tokens, weights, title=question)
    print(f"drawn: {out}")


@prompts_app.command("export", epilog=EXIT_CODES)
def export(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="New folder of the adapter.")],
) -> None:
    """Write a static prompt as an adapter of PEFT, for models of transformers.

    Example: rag-frozen prompts export FOLDER my-adapter
    """
    from rag_frozen.errors import InputError
    from rag_frozen.prompting.heads import StaticHead
    from rag_frozen.prompting.peft_adapters import export_peft
    from rag_frozen.reader.transformers_reader import TransformersReader
    from rag_frozen.training.prompt_verification import open_prompt

    reader, head = open_prompt(folder)
    if not isinstance(head, StaticHead) or not isinstance(reader, TransformersReader):
        what = f"for {reader.name}" if isinstance(head, StaticHead) else "an input-dependent one"
        raise InputError(
            f"PEFT's prompt tuning holds static prompts of models of transformers; this is {what}."
        )
    config = reader.model.config
    export_peft(
        head.module,
        out,
        base_model=reader.name,
        task="CAUSAL_LM" if reader.kind == "causal" else "SEQ_2_SEQ_LM",
        layers=int(config.num_hidden_layers),
        heads=int(config.num_attention_heads),
    )
    print(f"written: {out}")


@prompts_app.command("import", epilog=EXIT_CODES)
def import_(
    adapter: Annotated[Path, typer.Argument(help="Folder of a PEFT prompt-tuning adapter.")],
    out: Annotated[Path, typer.Argument(help="New folder of the prompt.")],
    model: Annotated[str, typer.Option(help="Folder or name of the frozen model.")],
    kind: Annotated[Literal["causal", "seq2seq"], typer.Option(help="What it is.")] = "causal",
) -> None:
    """Take over an adapter of PEFT as a prompt for a frozen reader.

    Example: rag-frozen prompts import my-adapter my-prompt --model Qwen/Qwen2.5-0.5B-Instruct
    """
    from rag_frozen.artifacts import write_artifact
    from rag_frozen.prompting.heads import StaticHead, save_head
    from rag_frozen.prompting.peft_adapters import import_peft
    from rag_frozen.reader.make import make_reader
    from rag_frozen.recipes.pipeline import CausalReader, Seq2SeqReader

    settings = (
        CausalReader(kind="causal", model=model)
        if kind == "causal"
        else Seq2SeqReader(kind="seq2seq", model=model)
    )
    reader = make_reader(settings)
    head = StaticHead(import_peft(adapter, width=reader.embedding_width))
    recipe = {"kind": "imported", "reader": settings.model_dump(mode="json")}
    with write_artifact(
        out, kind="head", name="imported", recipe=recipe, inputs={"reader": reader.base_digest}
    ) as draft:
        save_head(
            draft.folder, head, reader=reader.name, reader_digest=reader.base_digest,
            notes="imported from PEFT",
        )  # fmt: skip
    print(f"written: {out} ({head.length} vectors for {reader.name})")
