"""``rag-frozen index add`` and ``index delete`` over an index of one's own files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rag_frozen.cli.index_commands import index_app
from rag_frozen.errors import InputError, UnknownPassageError


def call(*arguments: str, root: Path) -> dict[str, int]:
    """Run a command on the BM25 recipe; return passages by part."""
    command, *rest = arguments
    done = CliRunner().invoke(
        index_app, [command, "wiki-bm25", *rest, "--root", str(root), "--json"]
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return {part["role"]: part["passages"] for part in json.loads(done.stdout)["parts"]}


def rows(path: Path, *ids: str) -> Path:
    lines = [json.dumps({"id": one, "title": one, "text": f"about {one}"}) for one in ids]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_passages_are_added_replaced_and_deleted(tmp_path: Path):
    source = rows(tmp_path / "a.jsonl", "one", "two", "three")
    override = ("--set", f"corpus.path={source}", "--set", "corpus.format=jsonl")
    assert call("build", *override, root=tmp_path) == {"corpus": 3, "bm25": 3}
    more = rows(tmp_path / "b.jsonl", "three", "four")
    with pytest.raises(InputError, match="--replace"):
        call("add", str(more), root=tmp_path)
    assert call("add", str(more), "--replace", root=tmp_path) == {"corpus": 4, "bm25": 4}
    ids = tmp_path / "ids.txt"
    ids.write_text("two\n\n")
    assert call("delete", "one", "--file", str(ids), root=tmp_path) == {"corpus": 2, "bm25": 2}
    assert call("verify", root=tmp_path) == {"corpus": 2, "bm25": 2}
    told = CliRunner().invoke(index_app, ["verify", "wiki-bm25", "--root", str(tmp_path)]).stdout
    assert "bm25: 2 passages in 2 segment(s), whole and unchanged" in told
    assert "The BM25 index is searched as 2 segments" in told
    with pytest.raises(UnknownPassageError, match="'two'"):
        call("delete", "two", root=tmp_path)
    with pytest.raises(InputError, match=r"missing\.txt cannot be read"):
        call("delete", "--file", str(tmp_path / "missing.txt"), root=tmp_path)
