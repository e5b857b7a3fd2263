"""``rag-frozen compare``: stored runs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["run_comparison"]


def run_comparison(runs: Sequence[str], *, root: Path | None, as_json: bool) -> None:
    """Compare runs with the first one, and print the differences.

    Raises:
        InputError, ArtifactError: when they cannot be compared.
    """
    from rag_frozen.evaluation.compare import compare_runs, find_run

    first, others = compare_runs([find_run(name, root) for name in runs])
    if as_json:
        print(json.dumps({"first": first, "compared": [one.to_json() for one in others]}))
        return
    table = Table(title=Text(f"compared with {first}"))
    for column in ("run", "exact match", "difference", "F1", "difference", "p", "p (Holm)"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for one in others:
        table.add_row(
            Text(one.run),
            f"{one.exact_match:.1f}",
            _difference(one.exact_match_difference),
            f"{one.f1:.1f}",
            _difference(one.f1_difference),
            f"{one.p:.2g}",
            f"{one.p_holm:.2g}",
        )
    Console(highlight=False).print(table)
    for one in others:
        print(
            f"{one.run}: of {one.questions:,} questions {one.only_here:,} right here alone, "
            f"{one.only_first:,} there alone; so many questions show a difference of "
            f"{one.smallest_difference:.1f} points (80 % power, 5 % level)"
        )


def _difference(values: tuple[float, float, float]) -> str:
    mean, low, high = values
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
