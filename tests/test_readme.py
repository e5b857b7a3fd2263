"""What the README says is there: the tree, the commands, the recipes that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rag_frozen.recipes.loading import list_recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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


@pytest.mark.parametrize(
    "folder", ["benchmarks", "eval", "indexes", "pipelines", "pipelines/train"]
)
def test_every_file_of_a_folder_is_named_in_its_readme(folder: str):
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    files = [p for p in (ROOT / folder).iterdir() if p.suffix in (".py", ".yaml")]
    assert files
    named = [p.name if p.suffix == ".py" else p.stem for p in files]
    assert [name for name in named if f"`{name}`" not in text] == []


def test_continuous_integration_runs_the_readmes_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
