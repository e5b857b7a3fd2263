"""``rag-frozen eval`` from its arguments to its exit code, over the embedded questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag_frozen.artifacts import verify
from tests.cli.conftest import Command

INDEX = "kind: index\nname: words\ncorpus: {kind: pocket}\nbm25: {kind: tantivy}\n"
FEW = (
    "--limit", "6", "--set-pipeline", "retrieval={kind: bm25, k: 20}",
    "--set-pipeline", "index=words.yaml",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of artifacts, and a recipe of an index of words alone: no passage is encoded."""
    root = tmp_path_factory.mktemp("home")
    (root / "words.yaml").write_text(INDEX)
    return root


def result(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def test_the_last_line_is_one_object_with_the_scores(command: Command):
    code, out, err = command("eval", "pocket", *FEW, "--json")
    assert code == 0, err
    found = result(out)
    assert found["questions"] + found["unanswerable"] == 6
    for name in ("exact_match", "f1", "answer_recall@1", "answer_recall@20", "substring_recall@20"):
        assert 0 <= found[name] <= 100
        low, high = found["intervals"][name]
        assert low <= found[name] <= high
    assert found["metric_versions"]["exact_match"] == "squad-exact-match/1"
    assert found["metric_versions"]["answer_recall"] == "dpr-answer-recall/1"
    assert next(stage["stage"] for stage in found["funnel"]) == "corpus"
    folder = Path(found["folder"])
    assert verify(folder, kind="run").counts["questions"] == found["questions"]
    costs = json.loads((folder / "costs.json").read_text())
    assert costs["seconds"].keys() == {"retrieve", "fetch", "rerank", "pack", "read"}
    assert all(costs["tokens"][part] > 0 for part in ("prompt", "answer", "reranker"))
    assert costs["peak_memory_mib"] > 1
    assert costs["machine"]["cores"] >= 1
    assert costs["trained_share"]["flops"] > 0
    assert "6.0" in (folder / "report.html").read_text()


def test_check_fails_outside_the_tolerance_alone(command: Command):
    _, out, _ = command("eval", "pocket", *FEW, "--json")
    score = result(out)["exact_match"]
    few = (*FEW, "--check", "--set", "expected_data=null")
    others = [f"metrics.{name}.expected=null" for name in ("f1", "answer_recall@20")]
    few = (*few, *(part for one in others for part in ("--set", one)))
    near = f"metrics.exact_match={{expected: {max(0, score - 0.4)}, tolerance: 0.5}}"
    assert command("eval", "pocket", *few, "--set", near)[0] == 0
    wrong = score + 2 if score <= 98 else score - 2
    far = f"metrics.exact_match={{expected: {wrong}, tolerance: 0.5}}"
    code, _, err = command("eval", "pocket", *few, "--set", far)
    assert code == 6
    assert f"exact_match is {score:.2f}, expected {wrong:.2f} ± 0.5" in err
    code, out, err = command("eval", "pocket", *few, "--set", "metrics.exact_match.expected=null")
    assert (code, out) == (6, "")
    assert "expects no score yet" in err


def test_expected_scores_are_held_against_the_data_that_they_were_measured_on(
    command: Command, tmp_path: Path
):
    code, out, err = command("eval", "pocket", *FEW, "--check")
    assert (code, out) == (6, "")
    assert "those of all questions, not of the first 6" in err
    (tmp_path / "own.jsonl").write_text('{"id": "1", "question": "who", "answers": ["me"]}\n')
    own = ("--set", f"data={{kind: file, path: {tmp_path / 'own.jsonl'}}}")
    code, out, err = command("eval", "pocket", *own, "--check")
    assert (code, out) == (6, "")
    assert "measured on data with the SHA-256" in err


def test_passes_over_stored_rankings_give_what_one_pass_gives(command: Command):
    _, out, _ = command("eval", "pocket", *FEW, "--json")
    whole = result(out)
    folder = ""
    for until in ("retrieve", "rerank", "read"):
        given = ("--rankings", folder) if folder else ()
        code, out, err = command("eval", "pocket", *FEW, "--until", until, *given, "--json")
        assert code == 0, err
        found = result(out)
        assert ("exact_match" in found) == (until == "read")
        folder = found["folder"]
    assert found["exact_match"] == whole["exact_match"]
    assert found["recall"]["final"] == whole["recall"]["final"]
    ours, theirs = (
        [json.loads(line)["prediction"] for line in (Path(one) / "predictions.jsonl").open()]
        for one in (folder, whole["folder"])
    )
    assert ours == theirs


def test_the_run_is_copied_out_once_and_nothing_is_overwritten(command: Command, tmp_path: Path):
    out = str(tmp_path / "out")
    code, shown, err = command("eval", "pocket", *FEW, "--out", out, "--json")
    assert code == 0, err
    assert result(shown)["folder"] == out
    assert command("eval", "pocket", *FEW, "--out", out)[0] == 0  # the very same run
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    code, _, err = command("eval", "pocket", "--limit", "5", *FEW[2:], "--out", out)
    assert code == 2
    assert "holds another run" in err
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "predictions.jsonl").write_text("another recipe's")
    code, _, err = command("eval", "pocket", *FEW, "--out", str(tmp_path / "mine"))
    assert (code, "nothing was overwritten" in err) == (2, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"question": "who"}\n', "line 1: the question has no answer"),
        ('{"id": 1, "question": "a", "answers": ["x"]}\n' * 2, "line 2: the id '1'"),
        ('{"question": "a", "answers": ["x"]}\n{"quest', "line 2: not JSON"),
        ("\ufeff\n", "holds no question"),
        (b'{"question": "caf\xe9", "answers": ["x"]}\n', "line 1: not UTF-8"),
    ],
)
def test_bad_data_are_told_and_leave_no_run(
    command: Command, tmp_path: Path, content: str | bytes, said: str
):
    path = tmp_path / "data.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = ("--root", str(tmp_path / "root"), "--set", f"data.path={path}")
    code, out, err = command("eval", "nq-benchmark", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert str(path) in err
    assert not (tmp_path / "root").exists()
