"""Does a confidence mean what it says? Calibration error, a fitted temperature, risk and coverage.

Pure functions over confidences in [0, 1] and whether each answer was right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
_STEPS = 60
"""Halvings of an interval: to the last bit."""
_PRIOR = 0.01
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

    The slope has a weak prior (variance 100), so that answers which a threshold separates perfectly
    do not drive it to infinity. Both are found by halving: the likelihood is concave, so its
    derivative by the bias, and then that of the best bias by the slope, has one root.

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
    logits = np.log(p / (1 - p))

    def misfit(slope: float) -> NDArray[np.float64]:
        """How far each answer is from the line of this slope with its best bias."""
        return _sigmoid(slope * logits + _best_bias(slope * logits, hit)) - hit

    def too_steep(slope: float) -> bool:
        return float(misfit(slope) @ logits) + _PRIOR * (slope - 1) > 0

    slope = _halved(_STEEPEST, _FLATTEST, too_steep)
    return Calibration(1 / slope, _best_bias(slope * logits, hit))


def _best_bias(logits: NDArray[np.float64], hit: NDArray[np.bool_]) -> float:
    """The bias with which as many are expected to be right as are right."""
    far = float(np.abs(logits).max()) + math.log(len(hit)) + 1
    return _halved(-far, far, lambda bias: bool(_sigmoid(logits + bias).sum() > hit.sum()))


def _halved(low: float, high: float, beyond: Callable[[float], bool]) -> float:
    """Where ``beyond`` becomes true between ``low`` and ``high``; an end where it does not."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return (low + high) / 2


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    halved: NDArray[np.float64] = 0.5 * (1 + np.tanh(logits / 2))
    return halved


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
