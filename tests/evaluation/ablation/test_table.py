"""The table of an ablation: differences from the baseline, as JSON, Markdown and a page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rag_frozen.evaluation.ablation.grid import make_grid
from rag_frozen.evaluation.ablation.table import (
    AblationTable,
    make_table,
    markdown_table,
    notes,
    pivot,
    short_rows,
    table_rows,
)
from rag_frozen.evaluation.report.ablation_page import render_ablation
from rag_frozen.evaluation.scoring import ScoredAnswer
from rag_frozen.evaluation.statistics import holm, mcnemar_p
from rag_frozen.evaluation.summary import EvalResult, summarize
from tests.evaluation.ablation import grid

N = 40


def answered(right: Sequence[bool], *, passages: bool = True) -> EvalResult:
    rows = [
        ScoredAnswer(
            id=f"q{i}", question="?", answers=("x",), tags={}, prediction="x" if good else "y",
            confidence=0.5, logprob=-1.0, answer_tokens=1, prompt_tokens=1, exact_match=good,
            f1=float(good), first_answering={"final": 1 if good else None} if passages else {},
            depths={"final": 6} if passages else {}, reranked=2, evidence=(), dropped={},
            in_prompt=good and passages, gold_in_prompt=None,
        )
        for i, good in enumerate(right)
    ]  # fmt: skip
    return summarize(rows, data="cities", data_sha256="2" * 64, pipeline="p")


def table(folder: Path) -> tuple[AblationTable, dict[str, list[bool]]]:
    """Cells of which each is right on more questions than the one before it."""
    recipe = grid(folder, depths=None, packed=None)
    made = make_grid(recipe)
    right = {c.name: [i < 10 + 4 * at for i in range(N)] for at, c in enumerate(made.cells)}
    results = [
        (cell, f"{at:016x}", answered(right[cell.name], passages=not cell.closed_book))
        for at, cell in enumerate(made.cells)
    ]
    return make_table(recipe, made, results), right


def test_each_cell_is_compared_with_the_baseline_and_corrected_over_all(tmp_path: Path):
    made, right = table(tmp_path)
    base = right[made.baseline]
    others = [cell for cell in made.cells if cell.versus is not None]
    assert [c.name for c in made.cells if c.versus is None] == [made.baseline] == ["bm25-none"]
    p_values = [mcnemar_p(right[cell.name], base) for cell in others]
    assert [cell.versus.p for cell in others if cell.versus] == p_values
    assert [cell.versus.p_holm for cell in others if cell.versus] == holm(p_values)
    for cell in others:
        mean, low, high = cell.versus.exact_match_difference  # type: ignore[union-attr]
        assert mean == pytest.approx(100 * (sum(right[cell.name]) - sum(base)) / N)
        assert low <= mean <= high
    first = made.cells[0]
    assert first.exact_match == 25.0
    assert first.exact_match_interval == first.f1_interval
    assert first.recall == {1: 25.0, 5: 25.0}


def test_the_json_holds_every_number_and_no_nan(tmp_path: Path):
    made, _ = table(tmp_path)
    stored = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert stored["metric_versions"]["answer_recall"] == "dpr-answer-recall/1"
    assert stored["cells"][1]["versus"]["only_here"] == 4
    assert stored["cells"][0]["versus"] is None
    assert stored["cells"][1]["recall"] == {"1": 35.0, "5": 35.0}


def test_the_markdown_has_a_row_a_cell_and_the_table_of_retriever_and_reranker(tmp_path: Path):
    made, _ = table(tmp_path)
    text = markdown_table(made)
    columns, rows = table_rows(made)
    assert columns[:3] == ["retriever", "reranker", "exact match"]
    assert all(len(row) == len(columns) for row in rows)
    assert "| bm25 | none | 25.0 [" in text
    assert "| baseline |  |  |  |" in text
    assert "+10.0 [" in text
    small = pivot(made)
    assert small == (
        ["", "none", "cross"],
        [
            ["bm25", "25.0 (bm25-none)", "35.0 (bm25-cross)"],
            ["dense", "45.0 (dense-none)", "55.0 (dense-cross)"],
            ["fused", "65.0 (fused-none)", "75.0 (fused-cross)"],
            ["closed-book", "85.0 (closed-book)", ""],
        ],
    )
    assert "| fused | 65.0 (fused-none) | 75.0 (fused-cross) |" in text
    assert short_rows(made)[1][0][0] == "bm25-none"


def test_the_note_tells_what_so_many_questions_can_show(tmp_path: Path):
    made, _ = table(tmp_path)
    shown = max(c.versus.smallest_difference for c in made.cells if c.versus is not None)
    assert f"at {shown:.1f} points" in notes(made)[0]
    assert not math.isnan(shown)
    assert "corrected by Holm over all 6 cells" in notes(made)[0]


class Page(HTMLParser):
    """Counts rows and pictures, and collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[str | None] = []
        self.pictures = 0
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "tr" and "id" in given:
            self.rows.append(given["id"])
        self.pictures += tag == "svg"
        for name in ("src", "href"):
            if given.get(name) and not str(given[name]).startswith("data:"):
                self.outside.append(str(given[name]))


def test_the_page_is_whole_shows_each_difference_and_escapes_names(tmp_path: Path):
    made, _ = table(tmp_path)
    text = render_ablation(made)
    page = Page()
    page.feed(text)
    assert page.rows == [cell.name for cell in made.cells]
    assert page.pictures == len(made.cells) - 1
    assert page.outside == []
    assert "prefers-color-scheme: dark" in text
    hostile = AblationTable(
        name="<script>x</script>", data="&", data_sha256="", questions=1,
        baseline=made.baseline, metric_versions={}, cells=made.cells,
    )  # fmt: skip
    assert "<script>x" not in render_ablation(hostile)
