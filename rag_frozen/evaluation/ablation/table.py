"""The table of an ablation: each cell's scores, and its paired difference from the baseline.

Knows scored answers; nothing about files or pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rag_frozen.evaluation.ablation.grid import Cell, Grid
from rag_frozen.evaluation.compare import Comparison, compare_rows
from rag_frozen.evaluation.scoring import FINAL, ScoredAnswer
from rag_frozen.evaluation.statistics import bootstrap_interval
from rag_frozen.evaluation.summary import EvalResult
from rag_frozen.recipes.ablation import AblationRecipe, AxisName

__all__ = [
    "AblationTable",
    "CellScores",
    "make_table",
    "markdown_table",
    "notes",
    "pivot",
    "table_rows",
]

_AXES: tuple[AxisName, ...] = ("retriever", "reranker", "depth", "packed", "reading", "prompt")
_REPORTED = ("exact_match", "f1", "answer_recall")


@dataclass(frozen=True, slots=True)
class CellScores:
    """One cell, scores in percent with 95 % intervals.

    ``recall`` is answer-recall@k of the final ranking, for the depths that it reaches (empty for
    a closed-book cell, whose ``in_prompt`` is 0); ``versus`` the paired difference from the
    baseline, None for the baseline itself. ``run`` is the fingerprint of the cell's run.
    """

    name: str
    levels: Mapping[AxisName, str]
    run: str
    exact_match: float
    exact_match_interval: tuple[float, float]
    f1: float
    f1_interval: tuple[float, float]
    recall: Mapping[int, float]
    in_prompt: float
    versus: Comparison | None


@dataclass(frozen=True, slots=True)
class AblationTable:
    """All cells in the recipe's order, over ``questions`` questions with an answer."""

    name: str
    data: str
    data_sha256: str
    questions: int
    baseline: str
    metric_versions: Mapping[str, str]
    cells: tuple[CellScores, ...]

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """The table as plain JSON values, numbers with six digits."""
        return {
            "name": self.name,
            "data": self.data,
            "data_sha256": self.data_sha256,
            "questions": self.questions,
            "baseline": self.baseline,
            "metric_versions": dict(self.metric_versions),
            "cells": [_rounded(asdict(cell)) for cell in self.cells],
        }


def make_table(
    recipe: AblationRecipe, grid: Grid, results: Sequence[tuple[Cell, str, EvalResult]]
) -> AblationTable:
    """Compare all cells with the baseline; Holm's correction is over all of them.

    Args:
        recipe, grid: of the ablation.
        results: cell, fingerprint of its run, and its scores, in the grid's order.
    """
    asked = {cell.name: _asked(result) for cell, _, result in results}
    first = asked[grid.baseline.name]
    _, _, any_result = results[0]
    others = [(name, rows) for name, rows in asked.items() if name != grid.baseline.name]
    versus = {one.run: one for one in compare_rows(first, others)}
    cells = tuple(
        _scores(cell, run, result, asked[cell.name], versus.get(cell.name))
        for cell, run, result in results
    )
    return AblationTable(
        name=recipe.name,
        data=any_result.data,
        data_sha256=any_result.data_sha256,
        questions=len(first),
        baseline=grid.baseline.name,
        metric_versions={name: any_result.metric_versions[name] for name in _REPORTED},
        cells=cells,
    )


def table_rows(table: AblationTable) -> tuple[list[str], list[list[str]]]:
    """The table as text: its columns, and a row a cell."""
    axes = [axis for axis in _AXES if any(axis in cell.levels for cell in table.cells)]
    depths = sorted({k for cell in table.cells for k in cell.recall})
    columns = [*axes, "exact match", "F1", *(f"R@{k}" for k in depths), "in prompt"]
    columns += ["difference", "p", "p (Holm)", "F1 difference"]
    return columns, [_row(cell, axes, depths) for cell in table.cells]


def short_rows(table: AblationTable) -> tuple[list[str], list[list[str]]]:
    """The columns that fit a terminal."""
    columns, rows = table_rows(table)
    wanted = ("exact match", "difference", "p (Holm)")
    places = [columns.index(column) for column in wanted]
    cells = zip(table.cells, rows, strict=True)
    return ["cell", *wanted], [[cell.name, *(row[at] for at in places)] for cell, row in cells]


def pivot(table: AblationTable) -> tuple[list[str], list[list[str]]] | None:
    """Exact match by retriever (rows) and reranker (columns), the best over all other axes; None
    where there are not two of both. A closed-book row stands in the first column.

    It has the form of the papers' tables; which cell is the best was chosen on these questions, so
    that it flatters a little.
    """
    rows = _levels(table, "retriever")
    columns = _levels(table, "reranker")
    if len(rows) < 2 or len(columns) < 2:
        return None
    best: dict[tuple[str | None, str | None], CellScores] = {}
    for cell in table.cells:
        place = (cell.levels.get("retriever"), cell.levels.get("reranker", columns[0]))
        if place not in best or cell.exact_match > best[place].exact_match:
            best[place] = cell
    body = []
    for retriever in rows:
        found = [best.get((retriever, reranker)) for reranker in columns]
        told = ["" if one is None else f"{one.exact_match:.1f} ({one.name})" for one in found]
        body.append([retriever, *told])
    return ["", *columns], body


def markdown_table(table: AblationTable) -> str:
    """The table as Markdown, to paste."""
    columns, rows = table_rows(table)
    axes = sum(column in _AXES for column in columns)
    lines = [f"# {table.name} on {table.data}", "", *notes(table), ""]
    lines += [_line(columns), _line(["---"] * axes + ["--:"] * (len(columns) - axes))]
    lines += [_line(row) for row in rows]
    small = pivot(table)
    if small is not None:
        head, body = small
        lines += ["", "Exact match by retriever and reranker, the best cell of each:", ""]
        lines += [_line(head), _line(["---"] + ["--:"] * (len(head) - 1))]
        lines += [_line(row) for row in body]
    return "\n".join(lines) + "\n"


def notes(table: AblationTable) -> list[str]:
    """What a reader of the table must know."""
    shown = [cell.versus.smallest_difference for cell in table.cells if cell.versus is not None]
    return [
        f"{table.questions:,} questions with an answer; scores in percent, intervals of 95 %. "
        f"Differences are from {table.baseline}, paired by question; p is McNemar's, exact and "
        f"two-sided, then corrected by Holm over all {len(shown)} cells. What so many "
        f"questions can show lies at {max(shown):.1f} points for the cell that disagrees most with "
        "the baseline (80 % power, 5 % level)."
    ]


def _asked(result: EvalResult) -> list[ScoredAnswer]:
    return [row for row in result.scored if row.answers]


def _scores(
    cell: Cell,
    run: str,
    result: EvalResult,
    asked: Sequence[ScoredAnswer],
    versus: Comparison | None,
) -> CellScores:
    return CellScores(
        name=cell.name,
        levels=dict(cell.levels),
        run=run,
        exact_match=result.exact_match,
        exact_match_interval=result.exact_match_interval,
        f1=result.f1,
        f1_interval=bootstrap_interval([100 * row.f1 for row in asked]),
        recall=dict(result.recall.get(FINAL, {})),
        in_prompt=result.in_prompt,
        versus=versus,
    )


def _row(cell: CellScores, axes: Sequence[AxisName], depths: Sequence[int]) -> list[str]:
    low, high = cell.exact_match_interval
    f1_low, f1_high = cell.f1_interval
    recall = [f"{cell.recall[k]:.1f}" if k in cell.recall else "" for k in depths]
    row = [cell.levels.get(axis, "") for axis in axes]
    row += [f"{cell.exact_match:.1f} [{low:.1f}, {high:.1f}]"]
    row += [f"{cell.f1:.1f} [{f1_low:.1f}, {f1_high:.1f}]", *recall]
    row += [f"{cell.in_prompt:.1f}" if cell.recall else ""]
    if cell.versus is None:
        return [*row, "baseline", "", "", ""]
    return [
        *row,
        _difference(cell.versus.exact_match_difference),
        f"{cell.versus.p:.2g}",
        f"{cell.versus.p_holm:.2g}",
        _difference(cell.versus.f1_difference),
    ]


def _difference(values: tuple[float, float, float]) -> str:
    mean, low, high = values
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _levels(table: AblationTable, axis: AxisName) -> list[str]:
    return list(dict.fromkeys(cell.levels[axis] for cell in table.cells if axis in cell.levels))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _rounded(value: Any) -> Any:  # Any: JSON values
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {str(key): _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value
