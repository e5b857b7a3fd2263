"""An index build that is killed in any of its steps goes on, and ends in the same artifacts."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rag_frozen.artifacts import load_manifest, verify
from rag_frozen.indexing import build as building
from rag_frozen.indexing import encoders, opening, parts
from rag_frozen.recipes.index import IndexRecipe
from rag_frozen.types import Question
from tests.contracts.test_retriever import HashEncoder
from tests.corpus.test_resume import write_dumps, write_rows

pytest.importorskip("mwxml")
pytest.importorskip("mwparserfromhell")

CHECKOUT = Path(__file__).parents[2]
KINDS = ("files", "mediawiki")
SHARD = 500

CHILD = """
import sys, time
from pathlib import Path
from tests.indexing.test_kill import build

def slow(role, done, total):
    print(role, flush=True)
    time.sleep(0.01)

if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), report=slow)
"""


def recipe(kind: str, folder: Path) -> IndexRecipe:
    """An index with all parts over files or dumps, which are written when they are not there."""
    path = folder / kind
    if not path.exists():
        if kind == "files":
            path.mkdir()
            write_rows(path / "rows.jsonl")
        else:
            write_dumps(path, damaged=False)
    corpus: dict[str, object] = {"kind": kind, "path": path}
    if kind == "mediawiki":
        corpus["chunk_words"] = 10
    return IndexRecipe.model_validate(
        {
            "kind": "index",
            "name": "small",
            "corpus": corpus,
            "bm25": {"kind": "tantivy"},
            "dense": {
                "kind": "flat",
                "encoder": {"kind": "sentence-transformers", "model": "any"},
                "shard_size": 256,
            },
        }
    )


def build(
    kind: str, folder: Path, root: Path, report: parts.Report = lambda *_: None
) -> parts.BuiltIndex:
    """Build in small shards, with an encoder that needs no model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "make_encoder", lambda settings, device=None: HashEncoder())
        patch.setattr("rag_frozen.corpus.build._SHARD", SHARD)
        patch.setattr("rag_frozen.corpus.build._TOLD", 100)
        return building.build_index(recipe(kind, folder), root=root, report=report)


def kill_at(kind: str, folder: Path, root: Path, *, role: str = "", line: int, wait: float) -> bool:
    """Build in a process of its own; kill it ``wait`` seconds after a line of progress of a step,
    of any where none is named. False when it was done before."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, kind, str(folder), str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=CHECKOUT,
    )
    assert process.stdout is not None
    seen = 0
    while seen < line and (told := process.stdout.readline()):
        seen += told.startswith(role)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    return process.wait() == -signal.SIGKILL


def same(whole: parts.BuiltIndex, broken: parts.BuiltIndex) -> None:
    """Corpus and vectors to the byte; BM25, whose engine names its files at random, by counts, ids
    and rankings."""
    assert [part.role for part in whole.parts] == [part.role for part in broken.parts]
    for part in whole.parts:
        ours, theirs = load_manifest(part.folder), verify(broken.part(part.role).folder)
        assert ours.fingerprint == theirs.fingerprint
        assert (ours.counts, ours.digests) == (theirs.counts, theirs.digests)
        if part.role != "bm25":
            assert ours.files == theirs.files
            for name in ours.files:
                there = broken.part(part.role).folder / name
                assert (part.folder / name).read_bytes() == there.read_bytes()
        assert theirs.digests["ids"] == load_manifest(broken.part("corpus").folder).digests["ids"]
    asked = [Question(str(n), f"text {n * 37} w{n}x3") for n in range(12)]
    rankings = [opening.open_bm25(built).retrieve(asked, k=30) for built in (whole, broken)]
    assert rankings[0] == rankings[1]
    assert any(len(ranking) > 1 for ranking in rankings[0])


def nothing_else(root: Path) -> None:
    left = [path for path in root.rglob("*") if "unfinished" in path.name or ".tmp" in path.name]
    assert left == []


def test_an_index_build_killed_in_each_of_its_steps_ends_in_the_same_artifacts(
    tmp_path: Path,
) -> None:
    whole = build("files", tmp_path, tmp_path / "whole")
    root = tmp_path / "broken"
    assert kill_at("files", tmp_path, root, role="corpus", line=25, wait=0.0)
    assert len(list(root.rglob("unfinished-*/shard-*.json"))) == 2
    assert not list(root.rglob("manifest.json"))
    assert kill_at("files", tmp_path, root, role="bm25", line=1, wait=0.0)
    assert len(list(root.rglob("manifest.json"))) == 1
    assert kill_at("files", tmp_path, root, role="dense index", line=6, wait=0.0)
    assert len(list(root.rglob("manifest.json"))) == 2
    assert list(root.rglob("unfinished-*/vectors-*"))
    same(whole, build("files", tmp_path, root))
    nothing_else(root)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_index_builds_killed_at_thirty_random_moments_end_in_the_same_artifacts(
    tmp_path: Path, kind: str
) -> None:
    """Fifteen kills of each kind; every third build is let to its end and compared."""
    told: list[str] = []
    whole = build(kind, tmp_path, tmp_path / "whole", report=lambda role, *_: told.append(role))
    rng = random.Random(kind)
    killed = rounds = 0
    while killed < 15:
        root = tmp_path / f"broken-{rounds}"
        for _ in range(3):
            line, wait = rng.randrange(1, len(told)), rng.uniform(0.0, 0.05)
            killed += kill_at(kind, tmp_path, root, line=line, wait=wait)
            for manifest in root.rglob("manifest.json"):
                verify(manifest.parent)
        same(whole, build(kind, tmp_path, root))
        nothing_else(root)
        rounds += 1
        assert rounds < 20
