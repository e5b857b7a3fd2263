"""Imports run one way, importing is light, and nothing unsafe is used anywhere."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "rag_frozen"
COMPONENTS = {
    "artifacts", "corpus", "indexing", "models", "packing", "prompting", "reader", "recipes",
    "rerank", "retrieval",
}  # fmt: skip
# Who may import whom: a room may import rooms of its own level and below, never above.
LEVEL = {
    "errors": 0, "normalization": 0, "types": 0, "protocols": 1, "questions": 1, "absent_stages": 1,
    **dict.fromkeys(COMPONENTS, 2),
    "answers": 3, "training": 3, "pipeline": 3, "build": 4, "evaluation": 4, "studies": 4,
    "server": 5, "cli": 5, "__init__": 5,
}  # fmt: skip
# The trainings measure exact match and test it; metrics and statistics know strings and numbers.
ALLOWED = {("training", "evaluation.metrics"), ("training", "evaluation.statistics")}


def room_of(module: str) -> str:
    return module.split(".")[0]


def imports() -> Iterator[tuple[Path, str, str]]:
    """Every import of the package within itself: file, importing room, imported module."""
    for file in sorted(PACKAGE.rglob("*.py")):
        own = file.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module]
                if node.module == "rag_frozen":
                    names = [f"rag_frozen.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                if name.startswith("rag_frozen."):
                    yield file, own, name.removeprefix("rag_frozen.")


def test_every_room_is_known():
    rooms = {p.stem for p in PACKAGE.glob("*.py")} | {
        p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()
    }
    assert rooms - {"pocket"} <= set(LEVEL)


def test_imports_run_one_way():
    found = list(imports())
    assert len(found) > 50
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file, own, name in found
        if LEVEL.get(room_of(name), 5) > LEVEL[own]
        and (own, name) not in ALLOWED
        and name != "__version__"
    ]
    assert wrong == []


def test_gold_answers_are_known_to_evaluation_alone():
    seen = {
        own
        for _, own, name in imports()
        if name.startswith("evaluation.") and (own, name) not in ALLOWED
    }
    assert seen <= {"evaluation", "studies", "cli"}


def test_nothing_unsafe_is_called_or_imported_in_the_package():
    unsafe = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            remote = (
                isinstance(node, ast.keyword)
                and node.arg == "trust_remote_code"
                and ast.unparse(node.value) != "False"
            )
            if called in {"eval", "exec", "torch.load"} or "pickle" in names or remote:
                unsafe.append(f"{file}:{getattr(node, 'lineno', 0)}")
    assert unsafe == []


def test_importing_the_package_loads_no_model_library_and_changes_no_environment():
    code = (
        "import os, sys; before = dict(os.environ); import rag_frozen; "
        "assert dict(os.environ) == before; "
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'faiss', 'tantivy', "
        "'datasets', 'pyserini', 'jnius', 'ray'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
