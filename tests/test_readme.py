"""What the README says is there: the tree, the commands, the recipes that it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from rag_frozen.cli.main import app
from rag_frozen.recipes.ablation import AblationRecipe
from rag_frozen.recipes.evaluation import EvalRecipe
from rag_frozen.recipes.index import IndexRecipe
from rag_frozen.recipes.loading import find_recipe, list_recipes, load_recipe, read_recipe
from rag_frozen.recipes.pipeline import PipelineRecipe
from rag_frozen.studies.settings import PromptStudy

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


FOLDERS = ["benchmarks", "eval", "indexes", "pipelines", "pipelines/train"]
RECIPES: dict[str, Any] = {
    "eval": EvalRecipe, "ablate": AblationRecipe, "study": PromptStudy, "build": IndexRecipe,
    "plan": IndexRecipe, "verify": IndexRecipe, "add": IndexRecipe, "delete": IndexRecipe,
}  # fmt: skip


def written_commands() -> list[str]:
    """Every command of the command line that stands in a code block of a README."""
    lines = []
    for folder in (".", *FOLDERS):
        text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
        for block in text.split("```")[1::2]:
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("rag-frozen "):
                    lines.append(" ".join(line.split("  #")[0].split()))
    return sorted(set(lines))


def parsed(words: list[str]) -> Any:  # Any: typer's context
    """The context of the command that the words call; a wrong option or value is an error."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("rag-frozen", words)
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        context = command.make_context(name, rest, parent=context)
    return context


def test_the_tree_is_on_disk():
    tree = README.split("## The tree")[1].split("```")[1]
    rooms = re.findall(r"\b([a-z_]+/|[a-z_]+\.py)", tree)
    assert len(rooms) > 20
    missing = [
        room
        for room in rooms
        if not (ROOT / room).exists() and not (ROOT / "rag_frozen" / room).exists()
    ]
    assert missing == []


def test_the_rooms_on_disk_are_in_the_tree():
    tree = README.split("## The tree")[1].split("```")[1]
    rooms = [p.name for p in (ROOT / "rag_frozen").iterdir() if (p / "__init__.py").exists()]
    assert [room for room in rooms if f"{room}/" not in tree] == []


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make ([a-z]+)`|^make ([a-z]+)", README, flags=re.MULTILINE))
    named = {name for pair in targets for name in pair if name}
    assert {"demo", "test", "check", "soak"} <= named
    assert all(re.search(rf"^{name}:", makefile, flags=re.MULTILINE) for name in named)


def test_recipes_that_are_named_exist():
    named = set(re.findall(r"(?:--pipeline|build|plan|eval|train)\s+([a-z][\w.-]+)", README))
    known = {
        name
        for folder in ("indexes", "pipelines", "eval", "pipelines/train")
        for name in list_recipes(folder)  # type: ignore[arg-type]
    }
    assert {name for name in named if "-" in name or name == "pocket"} <= known


@pytest.mark.parametrize("line", written_commands())
def test_a_command_that_is_written_down_is_understood(line: str):
    context = parsed(shlex.split(line)[1:])
    given, name = context.params, context.info_name
    folder: Any = {"eval": "eval", "ablate": "eval", "study": "eval"}.get(name, "indexes")
    if name == "train":
        path = find_recipe(given["recipe"], "pipelines/train")
        assert read_recipe(path, overrides=given["overrides"] or ())["kind"]
    elif "recipe" in given:
        load_recipe(
            given["recipe"], RECIPES[name], folder=folder, overrides=given["overrides"] or ()
        )
    used = given.get("pipeline")
    if used is not None and not used.endswith(".yaml"):
        changes = given.get("pipeline_overrides") or (given["overrides"] if name == "ask" else ())
        load_recipe(used, PipelineRecipe, folder="pipelines", overrides=changes or ())


def test_there_are_commands_of_every_kind():
    words = " ".join(written_commands())
    assert len(written_commands()) > 25
    for kind in ("ask", "eval", "train", "ablate", "index build", "index add", "prompts verify"):
        assert f"rag-frozen {kind}" in words


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_a_folder_is_named_in_its_readme(folder: str):
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    files = [p for p in (ROOT / folder).iterdir() if p.suffix in (".py", ".yaml")]
    assert files
    named = [p.name if p.suffix == ".py" else p.stem for p in files]
    assert [name for name in named if f"`{name}`" not in text] == []


def test_recipes_of_trainings_stand_with_the_pipelines():
    text = (ROOT / "pipelines" / "README.md").read_text(encoding="utf-8")
    assert [one for one in list_recipes("pipelines/train") if f"- `{one}`: " not in text] == []


def test_continuous_integration_runs_the_readmes_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
