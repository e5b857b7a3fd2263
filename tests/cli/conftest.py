"""Commands in this process, as they would run in one of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rag_frozen.cli.main import run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of artifacts, which is the working folder too."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def command(root: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Command:
    """Run a command; return its exit code, its stdout and its stderr."""
    monkeypatch.setenv("RAG_FROZEN_HOME", str(root))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(root)

    def ran(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rag-frozen", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            run()
        shown = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, shown.out, shown.err

    return ran
