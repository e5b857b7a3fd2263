"""The command line, as a process: answers on stdout, messages on stderr, documented exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command

ROWS = "".join(
    json.dumps({"id": f"{n}", "title": f"T{n % 3}", "text": f"Passage number {n} of a test."})
    + "\n"
    for n in range(40)
)


def rag_frozen(*arguments: str, root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rag_frozen.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "RAG_FROZEN_HOME": str(root), "COLUMNS": "100", **environment},
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of artifacts in which the pocket pipeline was asked once."""
    root = tmp_path_factory.mktemp("home")
    done = rag_frozen("ask", "who painted the ceiling of the sistine chapel", "--json", root=root)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["answer"]
    assert len(answer["evidence"]) == 2
    (root / "first.json").write_text(done.stdout)
    return root


@pytest.fixture(scope="module")
def root(home: Path) -> Path:
    """What commands in this process take for their artifacts' folder."""
    return home


def test_an_answer_names_its_evidence_with_offsets(home: Path):
    answer = json.loads((home / "first.json").read_text())
    assert 0 <= answer["confidence"] <= 1
    assert set(answer["seconds"]) == {"retrieve", "fetch", "rerank", "pack", "read"}
    for evidence in answer["evidence"]:
        assert {"retrieve", "rerank"} <= evidence["scores"].keys()
        for start, end in evidence["offsets"]:
            assert evidence["text"][start:end].lower() == answer["answer"].lower()


def test_a_second_question_reuses_the_indexes(home: Path):
    manifests = sorted((p, p.stat().st_mtime_ns) for p in home.rglob("manifest.json"))
    done = rag_frozen("ask", "how tall is mount everest", root=home)
    assert done.returncode == 0, done.stderr
    assert "confidence" in done.stdout
    assert "Mount Everest" in done.stdout
    assert manifests == sorted((p, p.stat().st_mtime_ns) for p in home.rglob("manifest.json"))


def test_verify_finds_a_changed_file(home: Path, tmp_path: Path):
    import shutil

    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    assert rag_frozen("index", "verify", "pocket", root=copy).returncode == 0
    victim = next((copy / "corpora").rglob("passages.arrow"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    done = rag_frozen("index", "verify", "pocket", root=copy)
    assert done.returncode == 3
    assert "passages.arrow has SHA-256" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ask", ""], 2, "is empty"),
        (["ask", "why " * 2_000], 2, "2,000 words"),
        (["ask", "who", "--pipeline", "poket"], 2, "There are: pocket"),
        (["ask", "who", "--set", "reranker.dept=1"], 2, "did you mean depth"),
        (["ask", "who", "--pipeline", "nq-bm25-llama3"], 3, "index build"),
        (["ask", "who", "--pipeline", "nq-closed-book-llama3"], 4, "hf download"),
        (["ask", "who", "--set", "reader.model=/nowhere"], 4, "no folder /nowhere"),
        (["ask", "who", "--set", "device=quantum"], 2, "Device 'quantum'"),
        (["asc", "who"], 2, "No such command"),
        (["eval", "nq-benchmark"], 2, "--set data.path=FILE"),
        (["eval", "nq-open-test"], 4, "--set data.path=FILE"),
        (["ablate", "ablation-nq"], 2, "--set data.path=FILE"),
        (["ablate", "ablation-pocket", "--set", "depths=[500]"], 2, "100 are retrieved"),
        (["ablate", "ablation-pocket", "--set", "packd=[1]"], 2, "did you mean packed"),
        (["ablate", "pocket"], 2, "kind"),
        (["index", "build", "wiki-bm25"], 2, "--set corpus.path"),
        (["index", "verify", "wiki-bm25"], 3, "rag-frozen index build wiki-bm25"),
        (["corpus", "build", "missing.jsonl"], 2, "no file or folder"),
    ],
)
def test_wrong_input_gets_a_message_and_its_exit_code(command: Command, arguments, code, said):
    found, out, err = command(*arguments)
    assert said in " ".join(err.split())
    assert found == code
    assert out == ""
    assert "Traceback" not in err


def test_a_corpus_and_indexes_of_ones_own_files(home: Path, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(ROWS + '{"id": "x"\n', encoding="utf-8")
    done = rag_frozen("corpus", "build", str(tmp_path / "rows.jsonl"), root=tmp_path / "r")
    assert done.returncode == 0
    assert "40 passages kept, 1 rows left out" in done.stdout
    assert "line 41" in done.stderr
    override = ("--set", f"corpus.path={tmp_path / 'rows.jsonl'}")
    done = rag_frozen("index", "build", "wiki-bm25", *override, "--set", "corpus.format=jsonl",
                      "--json", root=tmp_path / "r")  # fmt: skip
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout)["parts"]
    assert [(part["role"], part["passages"]) for part in parts] == [("corpus", 40), ("bm25", 40)]


def test_a_small_grid_is_run_and_found_again(home: Path):
    small = [
        "limit=3", "retrievers={bm25: {kind: bm25, k: 10}}", "rerankers=null", "depths=null",
        "packed=[1, 2]", "cells=[]", "baseline={packed: 2}",
    ]  # fmt: skip
    arguments = ["ablate", "ablation-pocket", *(part for one in small for part in ("--set", one))]
    done = rag_frozen(*arguments, "--json", root=home)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout.splitlines()[-1])
    assert [cell["name"] for cell in table["cells"]] == ["bm25-p1", "bm25-p2", "closed-book"]
    assert table["baseline"] == "bm25-p2"
    assert (Path(table["folder"]) / "ablation.html").is_file()
    again = rag_frozen(*arguments, root=home)
    assert "continued: 3 of 3 cells" in again.stdout
    assert f"stored: {table['folder']}" in again.stdout


def test_help_shows_an_example_and_the_exit_codes(home: Path):
    done = rag_frozen("ask", "--help", root=home)
    assert done.returncode == 0
    assert 'rag-frozen ask "who painted the mona lisa"' in done.stdout
    assert "130 stopped by Ctrl-C" in " ".join(done.stdout.split())


def test_doctor_and_models_tell_what_is_here(home: Path):
    done = rag_frozen("doctor", root=home)
    assert done.returncode == 0, done.stderr
    for word in (
        "torch",
        "lucene:",
        "device:",
        "pocket/reader",
        "pocket/minilm",
        "index pocket-dense",
    ):
        assert word in done.stdout
    rows = json.loads(rag_frozen("models", "list", "--json", root=home).stdout)
    assert {"pocket/minilm", "pocket/reader", "pocket/reranker"} <= {row["name"] for row in rows}
