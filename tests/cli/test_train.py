"""``rag-frozen train`` from its arguments to its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Command
from tests.tiny import save_reader_and_rows
from tests.training.test_prompt_training import settings


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny reader and rows, and the recipe of a prompt that has no time to learn from them."""
    home = tmp_path_factory.mktemp("home")
    save_reader_and_rows(home)
    recipe = settings(home, steps=1).model_dump(mode="json", exclude_defaults=True)
    (home / "short.yaml").write_text(yaml.safe_dump(recipe))
    return home


def test_a_prompt_whose_proof_fails_is_stored_and_has_its_own_exit_code(command: Command):
    code, out, err = command("train", "short.yaml", "--json")
    assert code == 6
    done = json.loads(out)
    folder = Path(done["folder"])
    assert (folder / "manifest.json").is_file()
    [fault] = done["faults"]
    assert "no gain over the plain reader" in fault
    assert json.loads((folder / "proof.json").read_text())["faults"] == [fault]
    said = err.splitlines()[-1]
    assert said.startswith(f"rag-frozen: The prompt was stored, but its proof failed: {fault}. ")
    assert said.endswith(f"rag-frozen prompts show {folder}")
    code, out, err = command("train", "short.yaml")
    assert code == 6
    assert f"Was there already: {folder}" in out
    assert fault in err
    assert command("prompts", "show", folder)[0] == 0
