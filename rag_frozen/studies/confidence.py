"""What a method's confidences are worth: calibration error before and after fitting a temperature,
and the risk that is left when the least confident answers are withheld."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rag_frozen.errors import InputError
from rag_frozen.evaluation.calibration import (
    area_under_risk,
    expected_calibration_error,
    fit_calibration,
    risk_coverage,
)
from rag_frozen.reader.confidence import calibrated

__all__ = ["ConfidenceRow", "confidence_row"]

_COVERAGES = (0.25, 0.5, 0.75, 1.0)
_LEAST = 20
"""Answers that a temperature is fitted on at least."""


@dataclass(frozen=True, slots=True)
class ConfidenceRow:
    """Means over a method's seeds, in percent.

    ``error`` is the expected calibration error of the probabilities as they are and
    ``error_calibrated`` that after temperature and bias were fitted, both on every other answer;
    they were fitted on the rest. ``risk_area`` is the mean share of wrong answers over all
    coverages, ``risk_at`` that share when the most confident quarter, half, three quarters or all
    are answered.
    """

    reader: str
    task: str
    evaluation: str
    method: str
    error: float
    error_calibrated: float
    risk_area: float
    risk_at: tuple[float, ...]


def confidence_row(
    place: tuple[str, str, str, str],
    runs: Sequence[tuple[Sequence[float], Sequence[float]]],
) -> ConfidenceRow | None:
    """Measure the confidences of a method's runs.

    Args:
        place: reader, task, evaluation, method.
        runs: of each seed the confidences, in [0, 1], and whether each answer was right, 1 or 0.

    Returns:
        None where a run has too few answers, or only right or only wrong ones.
    """
    rows = []
    for confidences, scores in runs:
        right = [score > 0 for score in scores]
        if len(confidences) < 2 * _LEAST or len(confidences) != len(right):
            return None
        try:
            fitted = fit_calibration(confidences[::2], right[::2])
        except InputError:  # all right or all wrong: there is nothing to calibrate
            return None
        held, judged = confidences[1::2], right[1::2]
        after = [calibrated(p, temperature=fitted.temperature, bias=fitted.bias) for p in held]
        rows.append(
            (
                expected_calibration_error(held, judged),
                expected_calibration_error(after, judged),
                area_under_risk(confidences, right),
                *(_risk_at(confidences, right, coverage) for coverage in _COVERAGES),
            )
        )
    error, fitted_error, area, *risks = (100 * fmean(values) for values in zip(*rows, strict=True))
    return ConfidenceRow(*place, error, fitted_error, area, tuple(risks))


def _risk_at(confidences: Sequence[float], right: Sequence[bool], coverage: float) -> float:
    """The share wrong among the most confident answers, of the first threshold that covers it.

    >>> _risk_at([0.9, 0.8, 0.2, 0.1], [True, False, True, False], 0.25)
    0.0
    >>> _risk_at([0.9, 0.8, 0.2, 0.1], [True, False, True, False], 0.5)
    0.5
    """
    return next(risk for covered, risk in risk_coverage(confidences, right) if covered >= coverage)
