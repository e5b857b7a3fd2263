"""Compare stored runs question by question."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rag_frozen.artifacts import list_artifacts, load_manifest
from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError, InputError
from rag_frozen.evaluation.runs import read_run
from rag_frozen.evaluation.scoring import ScoredAnswer
from rag_frozen.evaluation.statistics import (
    holm,
    mcnemar_p,
    paired_bootstrap,
    smallest_difference,
)

__all__ = ["Comparison", "compare_rows", "compare_runs", "find_run"]

_COMPARED = {"exact_match", "f1"}
"""Metrics that are compared; others need not stand in both runs, but if so in one version."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One run beside the first one, over the questions with gold answers.

    Scores and differences are in percent (points), a difference is this run's minus the first's,
    with its 95 % paired bootstrap interval. ``p`` is McNemar's over exact match, two-sided and
    exact; ``p_holm`` the same after Holm's correction over all runs that are compared.
    ``only_here`` and ``only_first`` count the questions that one of the two alone answers rightly;
    ``smallest_difference`` is what so many questions can show, in points.
    """

    run: str
    questions: int
    exact_match: float
    f1: float
    exact_match_difference: tuple[float, float, float]
    f1_difference: tuple[float, float, float]
    only_here: int
    only_first: int
    p: float
    p_holm: float
    smallest_difference: float

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """The fields as plain JSON values."""
        return asdict(self)


def compare_runs(folders: Sequence[Path]) -> tuple[str, tuple[Comparison, ...]]:
    """Compare runs with the first one.

    Args:
        folders: of stored runs, at least two.

    Returns:
        The first run's name, and a comparison for each of the others.

    Raises:
        InputError: when there are fewer than two, or one has no answers.
        ArtifactMismatchError: when data, questions or versions of metrics differ.
        ArtifactError: when a folder holds no run.
    """
    if len(folders) < 2:
        raise InputError("A comparison needs two runs or more. Name their folders.")
    names = _names(folders)
    metrics = [_metrics(folder) for folder in folders]
    for folder, found in zip(folders[1:], metrics[1:], strict=True):
        _check_same(folders[0], metrics[0], folder, found)
    rows = [_rows(folder) for folder in folders]
    for folder, found_rows in zip(folders[1:], rows[1:], strict=True):
        if [row.id for row in found_rows] != [row.id for row in rows[0]]:
            raise ArtifactMismatchError(
                f"The runs {folders[0]} and {folder} answer different questions. Evaluate both "
                "over one data set, with the same --limit."
            )
    return names[0], compare_rows(rows[0], list(zip(names[1:], rows[1:], strict=True)))


def compare_rows(
    first: Sequence[ScoredAnswer], others: Sequence[tuple[str, Sequence[ScoredAnswer]]]
) -> tuple[Comparison, ...]:
    """Compare scored answers with the first ones; Holm's correction is over all ``others``.

    Args:
        first: one a question, with gold answers.
        others: name and scored answers, over the same questions in the same order.
    """
    compared = [_compared(name, rows, first) for name, rows in others]
    corrected = holm([one["p"] for one in compared])
    return tuple(Comparison(**one, p_holm=p) for one, p in zip(compared, corrected, strict=True))


def find_run(name: str, root: Path | None) -> Path:
    """Find a run by its folder, or by the beginning of its fingerprint below the root.

    Raises:
        InputError: when nothing or more than one run is meant.
    """
    if Path(name).is_dir():
        return Path(name)
    found = [path for path in list_artifacts(root, "run") if path.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    told = ", ".join(str(path) for path in found) or "none"
    raise InputError(
        f"{name!r} names no folder, and the runs whose fingerprint begins so are: {told}. Give the "
        "folder that rag-frozen eval printed."
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The runs' names; with the fingerprint where another has the same name."""
    names = [load_manifest(folder, kind="run").name for folder in folders]
    return [
        name if names.count(name) == 1 else f"{name} {folder.resolve().name[:8]}"
        for name, folder in zip(names, folders, strict=True)
    ]


def _metrics(folder: Path) -> Mapping[str, Any]:
    load_manifest(folder, kind="run")
    try:
        found: Mapping[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactDamagedError(f"metrics.json of {folder} cannot be read: {error}") from error
    return found


def _check_same(
    first: Path, ours: Mapping[str, Any], other: Path, theirs: Mapping[str, Any]
) -> None:
    versions, others = ours.get("metric_versions", {}), theirs.get("metric_versions", {})
    names = sorted(_COMPARED | (versions.keys() & others.keys()))
    for what, one, another in (
        ("data", ours.get("data_sha256"), theirs.get("data_sha256")),
        (
            "versions of metrics",
            {name: versions.get(name) for name in names},
            {name: others.get(name) for name in names},
        ),
    ):
        if one != another:
            raise ArtifactMismatchError(
                f"The runs {first} and {other} cannot be compared: their {what} differ "
                f"({one} and {another}). Evaluate both anew with one version over one data set."
            )


def _rows(folder: Path) -> list[ScoredAnswer]:
    return [row for row in read_run(folder).scored if row.answers]


def _compared(
    name: str, ours: Sequence[ScoredAnswer], first: Sequence[ScoredAnswer]
) -> dict[str, Any]:
    right, right_first = [r.exact_match for r in ours], [r.exact_match for r in first]
    only_here = sum(a and not b for a, b in zip(right, right_first, strict=True))
    only_first = sum(b and not a for a, b in zip(right, right_first, strict=True))
    n = len(ours)
    return {
        "run": name,
        "questions": n,
        "exact_match": 100 * sum(right) / max(1, n),
        "f1": 100 * sum(r.f1 for r in ours) / max(1, n),
        "exact_match_difference": paired_bootstrap(
            [100.0 * one for one in right], [100.0 * one for one in right_first]
        ),
        "f1_difference": paired_bootstrap([100 * r.f1 for r in ours], [100 * r.f1 for r in first]),
        "only_here": only_here,
        "only_first": only_first,
        "p": mcnemar_p(right, right_first),
        "smallest_difference": 100 * smallest_difference(n, only_here + only_first),
    }
