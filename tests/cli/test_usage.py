"""What is wrong with a command's words is told in one line that says where its help is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from rag_frozen.cli.main import app
from tests.cli.conftest import Command


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:  # Any: typer's commands
    """Every command below one, by the words that call it."""
    for name, one in getattr(command, "commands", {}).items():
        words = f"{path} {name}".strip()
        yield words, one
        yield from commands(one, words)


EVERY = dict(commands(typer.main.get_command(app)))
GROUPS = ["", *(words for words, one in EVERY.items() if hasattr(one, "commands"))]
SINGLE = [words for words in EVERY if words not in GROUPS]


@pytest.mark.parametrize("words", GROUPS)
def test_a_group_without_a_command_shows_its_help_as_a_wrong_call(command: Command, words: str):
    code, out, err = command(*words.split())
    assert code == 2
    assert f"Usage: rag-frozen {words}".strip() in out
    assert "Commands" in out
    assert err == ""


@pytest.mark.parametrize("words", GROUPS)
def test_a_wrong_command_is_named(command: Command, words: str):
    code, out, err = command(*words.split(), "nosuch")
    where = f"rag-frozen {words}".strip()
    assert (code, out) == (2, "")
    assert err == f"rag-frozen: No such command 'nosuch'. See: {where} --help\n"


@pytest.mark.parametrize("words", SINGLE)
def test_a_wrong_option_is_named(command: Command, words: str):
    code, out, err = command(*words.split(), "--zzqqjj")
    assert (code, out) == (2, "")
    assert err == f"rag-frozen: No such option: --zzqqjj. See: rag-frozen {words} --help\n"


@pytest.mark.parametrize("words", SINGLE)
def test_help_holds_an_example_of_the_command(command: Command, words: str):
    code, out, _ = command(*words.split(), "--help")
    assert code == 0
    text = " ".join(re.sub("[^ -~]", " ", out).split())
    assert f"Example: rag-frozen {words}" in text
    assert "6 a score or a prompt's proof failed its check" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ask", "who", "wrote", "hamlet"], "Too many arguments: wrote hamlet. Put an argument of "
         "several words in quotes. See: rag-frozen ask --help"),
        (["ask", "who", "--pipelin", "x"], "No such option: --pipelin. Did you mean --pipeline? "
         "See: rag-frozen ask --help"),
        (["index", "bild"], "No such command 'bild'. Did you mean 'build'? See: rag-frozen index "
         "--help"),
        (["train"], "Missing argument 'recipe'. See: rag-frozen train --help"),
        (["ask", "who", "--k", "two"], "unable to parse string as an integer (found 'two'). See: "
         "rag-frozen ask --help"),
        (["eval", "pocket", "--until", "now"], "Invalid value for '--until': 'now' is not one of "
         "'retrieve', 'rerank', 'read'. See: rag-frozen eval --help"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_line(command: Command, arguments: list[str], said: str):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
