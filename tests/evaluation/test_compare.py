"""Runs are compared question by question, and only when they can be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.absent_stages import NoPacking, NoReader
from rag_frozen.cli.compare import run_comparison
from rag_frozen.errors import ArtifactMismatchError, InputError
from rag_frozen.evaluation.compare import compare_runs, find_run
from rag_frozen.evaluation.runs import RunOptions, store_run
from rag_frozen.evaluation.statistics import holm, smallest_difference
from rag_frozen.types import Generation
from tests.evaluation.test_runs import many
from tests.test_pipeline import Echo, pipeline


class Always(Echo):
    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def generate(self, contexts):
        return [Generation(self._text, -0.1, 1, "end") for _ in contexts]


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Rome is right for 20 of 30 questions, Oslo for the other 10."""
    return {
        text: store_run(pipeline(reader=Always(text)), many(30), tmp_path).folder
        for text in ("Rome", "Oslo", "Nowhere")
    }


def test_differences_are_paired_and_corrected(runs: dict[str, Path]):
    first, (oslo, nowhere) = compare_runs([runs["Rome"], runs["Oslo"], runs["Nowhere"]])
    assert first.startswith("test-many ")
    assert oslo.exact_match == pytest.approx(100 / 3)
    mean, low, high = oslo.exact_match_difference
    assert mean == pytest.approx(-100 / 3)
    assert low < mean < high
    assert (oslo.only_here, oslo.only_first) == (10, 20)
    assert (nowhere.only_here, nowhere.only_first) == (0, 20)
    assert nowhere.p == pytest.approx(2 / 2**20)
    assert nowhere.p_holm == pytest.approx(2 * nowhere.p)
    assert oslo.p_holm == pytest.approx(max(oslo.p, nowhere.p_holm))
    assert oslo.smallest_difference == pytest.approx(100 * smallest_difference(30, 30))


def test_runs_over_other_data_versions_or_questions_are_refused(
    runs: dict[str, Path], tmp_path: Path
):
    other = store_run(pipeline(), replace(many(30), sha256="2" * 64), tmp_path).folder
    with pytest.raises(ArtifactMismatchError, match="their data differ"):
        compare_runs([runs["Rome"], other])
    fewer = store_run(pipeline(), many(29), tmp_path).folder
    with pytest.raises(ArtifactMismatchError, match="different questions"):
        compare_runs([runs["Rome"], fewer])
    path = runs["Oslo"] / "metrics.json"
    path.write_text(path.read_text().replace("squad-f1/1", "squad-f1/2"))
    with pytest.raises(ArtifactMismatchError, match="versions of metrics differ"):
        compare_runs([runs["Rome"], runs["Oslo"]])
    ranked = store_run(
        pipeline(packer=NoPacking(), reader=NoReader()),
        many(30),
        tmp_path,
        options=RunOptions(until="rerank"),
    ).folder
    with pytest.raises((ArtifactMismatchError, InputError)):
        compare_runs([runs["Rome"], ranked])
    with pytest.raises(InputError, match="two runs or more"):
        compare_runs([runs["Rome"]])


def test_a_run_is_found_by_folder_or_fingerprint(runs: dict[str, Path], tmp_path: Path):
    rome = runs["Rome"]
    assert find_run(str(rome), None) == rome
    assert find_run(rome.name, tmp_path) == rome
    with pytest.raises(InputError, match="names no folder"):
        find_run("zz", tmp_path)


def test_the_command_prints_a_table_or_json(runs: dict[str, Path], capsys):
    names = [str(runs["Rome"]), str(runs["Oslo"])]
    run_comparison(names, root=None, as_json=False)
    shown = capsys.readouterr().out
    assert "10 right here alone, 20 there alone" in shown
    run_comparison(names, root=None, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["compared"][0]["only_first"] == 20


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_and_keeps_their_order(p_values: list[float]):
    corrected = holm(p_values)
    assert all(0 <= p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    assert [corrected[at] for at in order] == sorted(corrected)
    assert max(corrected) <= max(1.0, len(p_values) * max(p_values))
