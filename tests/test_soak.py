"""Long checks, run by ``make soak``: builds that are killed again and again."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rag_frozen.artifacts import load_manifest, verify

ROUNDS = 6
WORDS = ("river", "king", "war", "peace", "music", "star", "iron", "bread", "ship", "city", "law")


def write_corpus(path: Path, n: int) -> None:
    rng = random.Random(7)
    rows = (
        {"id": f"p{i}", "title": f"T{i // 4}", "text": " ".join(rng.choices(WORDS, k=60))}
        for i in range(n)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def command(corpus: Path, root: Path) -> list[str]:
    return [
        sys.executable, "-m", "rag_frozen.cli.main", "index", "build", "files-minilm",
        "--set", f"corpus.path={corpus}", "--set", "dense.shard_size=64", "--root", str(root),
    ]  # fmt: skip


def parts(root: Path) -> dict[str, Path]:
    return {load_manifest(p.parent).name: p.parent for p in root.rglob("manifest.json")}


@pytest.mark.soak
def test_an_index_build_killed_at_random_ends_in_the_same_artifacts(tmp_path: Path):
    write_corpus(tmp_path / "rows.jsonl", 1_500)
    began = time.monotonic()
    subprocess.run(command(tmp_path / "rows.jsonl", tmp_path / "whole"), check=True)
    whole_seconds = time.monotonic() - began
    rng = random.Random(11)
    killed = 0
    for number in range(ROUNDS):
        root = tmp_path / f"broken-{number}"
        for _ in range(2):
            process = subprocess.Popen(
                command(tmp_path / "rows.jsonl", root), stderr=subprocess.DEVNULL
            )
            try:
                process.wait(timeout=rng.uniform(0.4, 0.9) * whole_seconds)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
            for manifest in root.rglob("manifest.json"):
                verify(manifest.parent)
        subprocess.run(command(tmp_path / "rows.jsonl", root), check=True)
        same_artifacts(parts(tmp_path / "whole"), parts(root))
    print(f"{killed} kills in {ROUNDS} builds; an undisturbed one takes {whole_seconds:.1f} s")
    assert killed >= ROUNDS


def same_artifacts(whole: dict[str, Path], broken: dict[str, Path]) -> None:
    """Corpus and vectors to the byte; BM25 (segments are named at random) by counts and ids."""
    assert whole.keys() == broken.keys()
    assert len(whole) == 3
    for name, folder in whole.items():
        ours, theirs = load_manifest(folder), load_manifest(broken[name])
        assert ours.fingerprint == theirs.fingerprint
        assert ours.counts == theirs.counts
        assert ours.digests == theirs.digests
        if not name.endswith("bm25"):
            assert ours.files == theirs.files


EVALUATED = ("predictions.jsonl", "metrics.json", "run.trec", "retrieve.trec", "qrels.txt")
"""Files of a run that a kill must not change by a byte."""


def evaluation(root: Path) -> list[str]:
    return [
        sys.executable, "-m", "rag_frozen.cli.main", "eval", "pocket", "--limit", "64",
        "--set", "chunk_size=8", "--json", "--root", str(root),
    ]  # fmt: skip


def evaluated(root: Path) -> dict[str, bytes]:
    done = subprocess.run(evaluation(root), check=True, capture_output=True, text=True)
    folder = Path(json.loads(done.stdout.splitlines()[-1])["folder"])
    verify(folder, kind="run")
    return {name: (folder / name).read_bytes() for name in EVALUATED}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], float]:
    """A folder with the embedded indexes and one run; the run's files; its seconds."""
    root = tmp_path_factory.mktemp("evaluated")
    subprocess.run(
        [*evaluation(root)[:3], "index", "build", "pocket", "--root", str(root)], check=True
    )
    began = time.monotonic()
    files = evaluated(root)
    return root, files, time.monotonic() - began


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_the_command_killed_five_times_at_random_ends_as_an_undisturbed_one(
    undisturbed: tuple[Path, dict[str, bytes], float], tmp_path: Path, seed: int
):
    source, files, seconds = undisturbed
    root = tmp_path / "root"
    shutil.copytree(source, root, ignore=shutil.ignore_patterns("runs"))
    rng = random.Random(seed)
    kills = 0
    while kills < 5:
        process = subprocess.Popen(
            evaluation(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=rng.uniform(0.2, 0.7) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            continue
        assert evaluated(root) == files
        shutil.rmtree(root / "runs")  # it went through: begin anew
    assert evaluated(root) == files
