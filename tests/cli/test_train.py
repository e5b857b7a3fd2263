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


def test_a_folder_that_cannot_be_written_is_told_before_the_first_step(command: Command):
    for root, said in (
        ("labels.jsonl", "is a file, not a folder"),
        ("/proc/none", "not permitted"),
    ):
        code, out, err = command("train", "short.yaml", "--root", root)
        assert (code, out) == (5, "")
        assert said in err
        assert "step" not in err


def test_a_damaged_checkpoint_is_told(command: Command, root: Path):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rag_frozen.training.prompt_training.write_artifact", stop)
        assert command("train", "short.yaml", "--set", "seed=7")[0] == 130
    [state] = root.rglob("state.safetensors")
    state.write_bytes(state.read_bytes()[:100])
    code, _, err = command("train", "short.yaml", "--set", "seed=7")
    assert code == 3
    assert f"The checkpoint in {state.parent} cannot be read" in err
    assert "Remove it, and the training begins anew" in err
