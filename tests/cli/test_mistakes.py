"""What newcomers get wrong: each mistake has a message that names it, what to do, and a code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and folders that are not what commands need."""
    home = tmp_path_factory.mktemp("mistakes")
    (home / "folder").mkdir()
    (home / "folder.yaml").mkdir()
    (home / "text").write_text("hello\n")
    (home / "empty.jsonl").write_text("")
    (home / "empty.yaml").write_text("")
    (home / "list.yaml").write_text("- a\n")
    (home / "unclosed.yaml").write_text("kind: pipeline\nname: [unclosed\n")
    (home / "latin.yaml").write_bytes(b"kind: pipeline\nname: caf\xe9\n")
    (home / "latin.jsonl").write_bytes(b'{"question": "caf\xe9", "answers": ["a"]}\n')
    (home / "words.yaml").write_text("kind: index\nname: w\ncorpus: {kind: pocket}\n")
    asked = {"question": "who wrote hamlet", "answers": ["William Shakespeare"]}
    (home / "asked.jsonl").write_text(json.dumps(asked) + "\n")
    return home


MINE = ["mine", "asked.jsonl", "--pipeline", "pocket", "--out"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        # recipes
        (["ask", "who", "--pipeline", "./none.yaml"], 2, "There is no recipe file none.yaml. Give"),
        (["ask", "who", "--pipeline", "./words"], 2, "did you mean words.yaml?"),
        (["ask", "who", "--pipeline", "./folder"], 2, "folder is a folder, not a recipe file"),
        (["ask", "who", "--pipeline", "folder.yaml"], 2, "folder.yaml is a folder"),
        (["ask", "who", "--pipeline", "unclosed.yaml"], 2, "YAML: line 3, column 1: expected ','"),
        (["ask", "who", "--pipeline", "empty.yaml"], 2, "is empty; it must be a mapping"),
        (["ask", "who", "--pipeline", "list.yaml"], 2, "holds list at the top; it must be"),
        (["ask", "who", "--pipeline", "latin.yaml"], 2, "no UTF-8 text: byte 25 is 0xe9. Convert"),
        (["ask", "who", "--pipeline", "words.yaml"], 2, "is of kind 'index'; one of kind pipeline"),
        (["eval", "ablation-pocket"], 2, "is of kind 'ablation'; one of kind eval is needed"),
        (["prompts", "study", "pocket"], 2, "is of kind 'eval'; one of kind prompt-study is"),
        (["ask", "who", "--set", "retrieval={"], 2, "not well-formed YAML: line 1, column 2:"),
        # questions
        (["ask", "  "], 2, "The question is empty. Ask something in words"),
        # prompts
        (["ask", "who", "--set", "prompt={kind: soft-prompt, path: none}"], 3,
         "none holds no trained prompt"),
        (["ask", "who", "--set", "prompt={kind: soft-prompt, path: text}"], 3,
         "text is a file, not the folder of a trained prompt"),
        (["ask", "who", "--set", "prompt={kind: ensemble, paths: [text, none]}"], 3,
         "text is a file, not the folder of a trained prompt"),
        # the artifacts' folder
        (["index", "build", "pocket", "--root", "text"], 5, "A part of this path is a file"),
        (["index", "build", "pocket", "--root", "/proc/none"], 5, "or choose another folder with"),
        # trainings
        (["train", "words.yaml"], 2, "what can be trained is pocket-reader"),
        (["train", "pocket-reader"], 4, "Allow the network, or name a folder"),
        (["train", "prompt-reading-static"], 4, "--set data.path=DIR"),
        (["train", "pocket-reader", "--set", "data.path=none"], 2, "No such file or directory"),
        (["train", "pocket-reader", "--set", "data.path=text"], 2, "Not a directory"),
        (["train", "pocket-reranker", "--set", "data.path=folder"], 2, "No such file or directory"),
        (["train", "pocket-reader", "--set", "data.path=folder",
          "--set", "data.passages.exclude=null"], 2, "No file below folder is named as in"),
        # mining: told before the pipeline is built
        ([*MINE, "folder"], 2, "folder is a folder. Name the file to write"),
        (["mine", "none.jsonl", "--out", "o"], 2, "No such file or directory. Check the path"),
        (["mine", "text", "--out", "o"], 2, "text, line 1: a line is not JSON"),
        (["mine", "latin.jsonl", "--out", "o"], 2, "latin.jsonl, line 1: not UTF-8"),
        (["mine", "empty.jsonl", "--out", "o"], 2, "empty.jsonl holds no question"),
        ([*MINE, "o", "--k", "0"], 2, "greater than or equal to 1 (found '0')"),
        ([*MINE, "o", "--hold-out-every", "4"], 2, "needs the file for those rows: --hold-out"),
        ([*MINE, "o", "--min-overlap", "2"], 2, "less than or equal to 1 (found '2')"),
        ([*MINE, "o", "--exclude-file", "none"], 2, "No such file or directory. Name a text file"),
        (["index", "delete", "pocket", "--file", "folder"], 2, "Is a directory. Name a text file"),
        # evaluations: told before the work
        (["eval", "pocket", "--out", "text/run"], 2, "text is a file. Name a new folder"),
        (["eval", "pocket", "--out", "folder.yaml/../text"], 2, "exists and is not empty"),
        # PEFT's adapters
        (["prompts", "import", "folder", "o", "--model", "none"], 4, "There is no folder none"),
    ],
)  # fmt: skip
def test_a_mistake_is_told(command: Command, root: Path, arguments, code: int, said: str):
    before = sorted(root.iterdir())
    found, out, err = command(*arguments)
    assert said in " ".join(err.split())
    assert found == code
    assert out == ""
    assert "Traceback" not in err
    assert "unexpected" not in err
    assert sorted(root.iterdir()) == before
