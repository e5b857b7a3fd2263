"""The page of an ablation: its table, with a picture of each difference."""

from __future__ import annotations

from typing import Any

from rag_frozen.evaluation.ablation.table import AblationTable, CellScores, notes, pivot, table_rows
from rag_frozen.evaluation.report.figures import interval
from rag_frozen.evaluation.report.page import page_environment

__all__ = ["render_ablation"]


def render_ablation(table: AblationTable) -> str:
    """Return the page: one self-contained file. Everything that comes from data is escaped."""
    columns, rows = table_rows(table)
    bound = max(
        (
            abs(end)
            for cell in table.cells
            if cell.versus is not None
            for end in cell.versus.exact_match_difference
        ),
        default=0.0,
    )
    return (
        page_environment()
        .get_template("ablation.html.jinja")
        .render(
            table=table,
            notes=notes(table),
            pivot=pivot(table),
            columns=columns,
            axes=columns.index("exact match"),
            rows=[_row(cell, texts, bound) for cell, texts in zip(table.cells, rows, strict=True)],
        )
    )


def _row(cell: CellScores, texts: list[str], bound: float) -> dict[str, Any]:
    if cell.versus is None:
        return {"name": cell.name, "cells": texts, "baseline": True, "picture": None}
    mean, low, high = cell.versus.exact_match_difference
    picture = interval(low, mean, high, bound=bound, title=f"difference of {cell.name}")
    return {"name": cell.name, "cells": texts, "baseline": False, "picture": picture}
