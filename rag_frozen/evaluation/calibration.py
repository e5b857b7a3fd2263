"""Does a confidence mean what it says? Calibration error, a fitted temperature, risk and coverage.

Pure functions over confidences in [0, 1] and whether each answer was right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag_frozen.errors import InputError

__all__ = [
    "Calibration",
    "ReliabilityBin",
    "area_under_risk",
    "expected_calibration_error",
    "fit_calibration",
    "reliability",
    "risk_coverage",
]

_CLOSEST = 1e-6
_STEPS = 50
_STEEPEST, _FLATTEST = 0.05, 20.0
"""Slopes of the fitted line are kept between these: temperatures of 20 to 0.05."""


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Answers whose confidence lies in [low, high): how many, mean confidence, share right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """confidence = sigmoid(logit(p) / temperature + bias); see ``reader.confidence``."""

    temperature: float
    bias: float


def reliability(
    confidences: Sequence[float], right: Sequence[bool], *, bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Group answers by confidence into bins of equal width; empty ones are left out.

    Raises:
        InputError: when the two are not of one length.
    """
    p, hit = _checked(confidences, right)
    place = np.minimum((p * bins).astype(int), bins - 1)
    made = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            made.append(
                ReliabilityBin(
                    number / bins,
                    (number + 1) / bins,
                    int(inside.sum()),
                    float(p[inside].mean()),
                    float(hit[inside].mean()),
                )
            )
    return tuple(made)


def expected_calibration_error(
    confidences: Sequence[float], right: Sequence[bool], *, bins: int = 10
) -> float:
    """The mean distance of confidence and share right over bins of equal width, weighted by their
    answers (Naeini et al. 2015), in [0, 1]; nan without answers.

    >>> round(expected_calibration_error([0.9, 0.9, 0.1, 0.1], [True, False, False, False]), 3)
    0.25
    """
    made = reliability(confidences, right, bins=bins)
    total = sum(one.n for one in made)
    if total == 0:
        return math.nan
    return sum(one.n * abs(one.confidence - one.right) for one in made) / total


def fit_calibration(confidences: Sequence[float], right: Sequence[bool]) -> Calibration:
    """Fit temperature and bias by maximum likelihood (Platt 1999), on validation answers.

    The line is found by Newton's method with a weak prior on its slope (variance 100), so that
    answers which a threshold separates perfectly do not drive it to infinity.

    Raises:
        InputError: when all answers are right or all are wrong: there is nothing to fit.
    """
    p, hit = _checked(confidences, right)
    if len(p) == 0 or hit.all() or not hit.any():
        raise InputError(
            f"A confidence cannot be calibrated on {len(p)} answers of which {int(hit.sum())} are "
            "right: some must be right and some wrong."
        )
    p = p.clip(_CLOSEST, 1 - _CLOSEST)
    inputs = np.stack([np.log(p / (1 - p)), np.ones_like(p)], axis=1)
    weights = np.array([1.0, 0.0])
    prior = np.diag([0.01, 0.0])
    for _ in range(_STEPS):
        made = 1 / (1 + np.exp(-(inputs @ weights)))
        gradient = inputs.T @ (made - hit) + prior @ (weights - np.array([1.0, 0.0]))
        curvature = (inputs * (made * (1 - made))[:, None]).T @ inputs + prior
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        weights = weights - step
        weights[0] = min(max(weights[0], _STEEPEST), _FLATTEST)
        if float(np.abs(step).max()) < 1e-10:
            break
    return Calibration(float(1 / weights[0]), float(weights[1]))


def risk_coverage(
    confidences: Sequence[float], right: Sequence[bool]
) -> tuple[tuple[float, float], ...]:
    """(coverage, risk) when only the most confident answers are given: coverage rises from 1/n to
    1, risk is the share wrong among the given ones. Equal confidences are given together.

    >>> risk_coverage([0.9, 0.5, 0.5], [True, False, True])
    ((0.3333333333333333, 0.0), (1.0, 0.3333333333333333))
    """
    p, hit = _checked(confidences, right)
    order = np.argsort(-p, kind="stable")
    wrong = np.cumsum(~hit[order])
    ordered = p[order]
    points = []
    for place in range(len(p)):
        if place + 1 == len(p) or ordered[place + 1] != ordered[place]:
            points.append(((place + 1) / len(p), float(wrong[place]) / (place + 1)))
    return tuple(points)


def area_under_risk(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """The mean risk over all coverages (Geifman and El-Yaniv 2017), in [0, 1]; lower is better, nan
    without answers.

    >>> area_under_risk([0.9, 0.5], [True, False])
    0.25
    """
    points = risk_coverage(confidences, right)
    area, before = 0.0, 0.0
    for coverage, risk in points:
        area += (coverage - before) * risk
        before = coverage
    return area if points else math.nan


def _checked(
    confidences: Sequence[float], right: Sequence[bool]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    if len(confidences) != len(right):
        raise InputError(
            f"{len(confidences)} confidences and {len(right)} judgements were given; each answer "
            "needs one of both."
        )
    p = np.asarray(confidences, dtype=np.float64)
    if len(p) and not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1):
        raise InputError("Confidences must lie in [0, 1].")
    return p, np.asarray(right, dtype=np.bool_)
