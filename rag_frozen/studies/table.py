"""The table of a study: means over seeds, intervals, paired tests, the share of the gap that is
closed, and what confidences are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from rag_frozen.evaluation.statistics import (
    bootstrap_interval,
    holm,
    paired_bootstrap,
    sign_flip_p,
)
from rag_frozen.studies.confidence import ConfidenceRow, confidence_row
from rag_frozen.studies.settings import PromptStudy

__all__ = ["ComparedRow", "Measured", "MethodRow", "StudyTable", "make_table"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One method with one seed on one evaluation: scores a question, in [0, 1], in its order.

    ``perplexity`` and ``logprobs`` (a piece's mean, in nats a token) stand where text was scored
    and no questions were answered.
    """

    reader: str
    task: str
    evaluation: str
    method: str
    seed: int | None
    exact_match: tuple[float, ...]
    f1: tuple[float, ...]
    seconds: float
    seconds_trained: float
    trained_parameters: int
    reader_parameters: int
    note: str = ""
    perplexity: float | None = None
    logprobs: tuple[float, ...] = ()
    confidences: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class MethodRow:
    """A method's mean over its seeds, in percent, with 95 % intervals over the questions.

    ``exact_match_sd`` is the standard deviation between seeds (None of a single one);
    ``gap_closed`` the share of the upper method's gain over the lower one, in percent (None where
    the gain's interval holds 0, for then there is no gap to speak of);
    ``milliseconds`` a question, of the reader with what conditions it (an ensemble's: of all its
    members); ``seconds_trained`` of one seed.
    """

    reader: str
    task: str
    evaluation: str
    method: str
    seeds: int
    questions: int
    exact_match: float | None
    exact_match_interval: tuple[float, float] | None
    exact_match_sd: float | None
    f1: float | None
    f1_interval: tuple[float, float] | None
    trained_parameters: int
    trained_share: float
    milliseconds: float | None
    seconds_trained: float
    gap_closed: float | None
    perplexity: float | None
    note: str


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """A paired difference of exact match in points, with its 95 % interval, and F1's beside it.

    ``p`` is exact match's, of the sign-flip test over questions (each question's score is the mean
    over seeds), two-sided; ``p_holm`` after Holm's correction over the comparisons of the whole
    table. F1 is given with its interval alone, so that nothing is tested twice.
    """

    reader: str
    task: str
    evaluation: str
    ours: str
    theirs: str
    difference: float
    interval: tuple[float, float]
    f1_difference: float
    f1_interval: tuple[float, float]
    p: float
    p_holm: float


@dataclass(frozen=True, slots=True)
class StudyTable:
    """All rows, in the order of the recipe."""

    name: str
    methods: tuple[MethodRow, ...]
    compared: tuple[ComparedRow, ...]
    confidences: tuple[ConfidenceRow, ...] = ()

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """The rows as plain JSON values."""
        return asdict(self)

    def to_markdown(self) -> str:
        """Tables to paste."""
        lines = [
            f"# {self.name}",
            "",
            "| reader | trained on | measured on | method | seeds | exact match | F1 | trained "
            "parameters | ms a question | gap closed |",
            "| --- | --- | --- | --- | ---: | --- | --- | ---: | ---: | ---: |",
            *(_method_line(row) for row in self.methods),
        ]
        if self.compared:
            lines += [
                "",
                "| reader | trained on | measured on | difference | exact match | F1 | p | "
                "p (Holm) |",
                "| --- | --- | --- | --- | --- | --- | ---: | ---: |",
                *(_compared_line(row) for row in self.compared),
            ]
        if self.confidences:
            lines += [
                "",
                "| reader | trained on | measured on | method | calibration error | calibrated | "
                "mean risk | wrong among the surest 25 / 50 / 75 / 100 % |",
                "| --- | --- | --- | --- | ---: | ---: | ---: | --- |",
                *(_confidence_line(row) for row in self.confidences),
            ]
        notes = [(row, row.note) for row in self.methods if row.note]
        if notes:
            lines.append("")
            lines += [
                f"- {row.reader}, {row.task}, {row.evaluation}, {row.method}: {note}"
                for row, note in notes
            ]
        return "\n".join(lines) + "\n"


def make_table(study: PromptStudy, measured: Sequence[Measured]) -> StudyTable:
    """Put measured cells together: one row a method, one row a comparison that is asked for."""
    cells: dict[tuple[str, str, str], dict[str, list[Measured]]] = {}
    for one in measured:
        methods = cells.setdefault((one.reader, one.task, one.evaluation), {})
        methods.setdefault(one.method, []).append(one)
    rows, compared, sure = [], [], []
    for place, by_method in cells.items():
        bounds = _bounds(study, place[1], by_method)
        rows += [_row(place, name, runs, bounds) for name, runs in by_method.items()]
        for name, runs in by_method.items():
            judged = [(run.confidences, run.exact_match) for run in runs]
            if (row := confidence_row((*place, name), judged)) is not None:
                sure.append(row)
        for wanted in study.comparisons:
            ours, theirs = by_method.get(wanted.ours), by_method.get(wanted.theirs)
            if ours and theirs and ours[0].exact_match and theirs[0].exact_match:
                compared.append((place, wanted, ours, theirs))
    p_values = [sign_flip_p(_means(ours), _means(theirs)) for _, _, ours, theirs in compared]
    lines = []
    for found, p, p_holm in zip(compared, p_values, holm(p_values), strict=True):
        place, wanted, ours, theirs = found
        matched, *interval = paired_bootstrap(_means(ours), _means(theirs))
        overlap, *f1_interval = paired_bootstrap(_f1_means(ours), _f1_means(theirs))
        lines.append(
            ComparedRow(
                *place,
                wanted.ours,
                wanted.theirs,
                difference=100 * matched,
                interval=_percent(interval),
                f1_difference=100 * overlap,
                f1_interval=_percent(f1_interval),
                p=p,
                p_holm=p_holm,
            )
        )
    return StudyTable(study.name, tuple(rows), tuple(lines), tuple(sure))


def _means(runs: Sequence[Measured]) -> list[float]:
    """Each question's exact match, averaged over seeds."""
    return [fmean(scores) for scores in zip(*(run.exact_match for run in runs), strict=True)]


def _f1_means(runs: Sequence[Measured]) -> list[float]:
    """Each question's F1, averaged over seeds."""
    return [fmean(scores) for scores in zip(*(run.f1 for run in runs), strict=True)]


def _bounds(
    study: PromptStudy, task: str, by_method: Mapping[str, Sequence[Measured]]
) -> tuple[float, float] | None:
    [least] = [one.lower or study.lower for one in study.tasks if one.name == task] or [study.lower]
    if study.upper is None or least is None:
        return None
    found = [by_method.get(least), by_method.get(study.upper)]
    if not all(runs and runs[0].exact_match for runs in found):
        return None
    lower, upper = (_means(runs) for runs in found if runs)
    _, gained, _ = paired_bootstrap(upper, lower)
    return (fmean(lower), fmean(upper)) if gained > 0 else None


def _row(
    place: tuple[str, str, str],
    name: str,
    runs: Sequence[Measured],
    bounds: tuple[float, float] | None,
) -> MethodRow:
    first = runs[0]
    answered = bool(first.exact_match)
    matched = _means(runs) if answered else []
    overlap = _f1_means(runs)
    mean = fmean(matched) if answered else None
    seconds = sum(run.seconds for run in runs)
    perplexities = [run.perplexity for run in runs if run.perplexity is not None]
    return MethodRow(
        *place,
        name,
        seeds=len(runs),
        questions=len(matched) or len(first.logprobs),
        exact_match=None if mean is None else 100 * mean,
        exact_match_interval=_percent(bootstrap_interval(matched)) if answered else None,
        exact_match_sd=100 * stdev(fmean(run.exact_match) for run in runs)
        if answered and len(runs) > 1
        else None,
        f1=100 * fmean(overlap) if answered else None,
        f1_interval=_percent(bootstrap_interval(overlap)) if answered else None,
        trained_parameters=first.trained_parameters,
        trained_share=100 * first.trained_parameters / max(1, first.reader_parameters),
        milliseconds=1_000 * seconds / (len(runs) * len(matched)) if seconds and answered else None,
        seconds_trained=sum(run.seconds_trained for run in runs) / len(runs),
        gap_closed=None
        if bounds is None or mean is None
        else 100 * (mean - bounds[0]) / (bounds[1] - bounds[0]),
        perplexity=fmean(perplexities) if perplexities else None,
        note=first.note,
    )


def _percent(interval: Sequence[float]) -> tuple[float, float]:
    low, high = interval
    return 100 * low, 100 * high


def _method_line(row: MethodRow) -> str:
    if row.perplexity is not None:
        scores = f"perplexity {row.perplexity:.2f} |"
    else:
        scores = f"{_with(row.exact_match, row.exact_match_interval, row.exact_match_sd)} | "
        scores += _with(row.f1, row.f1_interval, None)
    milliseconds = "" if row.milliseconds is None else f"{row.milliseconds:.1f}"
    closed = "" if row.gap_closed is None else f"{row.gap_closed:.0f} %"
    trained = f"{row.trained_parameters:,} ({row.trained_share:.2f} %)"
    return (
        f"| {row.reader} | {row.task} | {row.evaluation} | {row.method} | {row.seeds} | {scores} | "
        f"{trained if row.trained_parameters else '0'} | {milliseconds} | {closed} |"
    )


def _confidence_line(row: ConfidenceRow) -> str:
    risks = " / ".join(f"{risk:.1f}" for risk in row.risk_at)
    return (
        f"| {row.reader} | {row.task} | {row.evaluation} | {row.method} | {row.error:.1f} | "
        f"{row.error_calibrated:.1f} | {row.risk_area:.1f} | {risks} |"
    )


def _with(
    value: float | None, interval: tuple[float, float] | None, deviation: float | None
) -> str:
    if value is None or interval is None:
        return ""
    between = "" if deviation is None else f" ± {deviation:.1f}"
    return f"{value:.1f}{between} [{interval[0]:.1f}, {interval[1]:.1f}]"


def _compared_line(row: ComparedRow) -> str:
    return (
        f"| {row.reader} | {row.task} | {row.evaluation} | {row.ours} - {row.theirs} | "
        f"{_signed(row.difference, row.interval)} | {_signed(row.f1_difference, row.f1_interval)} "
        f"| {row.p:.4f} | {row.p_holm:.4f} |"
    )


def _signed(value: float, interval: tuple[float, float]) -> str:
    return f"{value:+.1f} [{interval[0]:+.1f}, {interval[1]:+.1f}]"
