"""From an answer's probability to a confidence that means what it says."""

from __future__ import annotations

import math

__all__ = ["calibrated"]

_CLOSEST = 1e-6
"""Probabilities are kept so far from 0 and 1, where the logit has no value."""


def calibrated(probability: float, *, temperature: float = 1.0, bias: float = 0.0) -> float:
    """Return sigmoid(logit(p) / temperature + bias), in [0, 1] (Platt 1999; Guo et al. 2017).

    ``temperature`` above 1 draws confidences to the middle. 1 and 0 give p back unchanged.

    >>> calibrated(0.25)
    0.25
    >>> calibrated(0.9, temperature=2.0)
    0.75
    """
    if temperature == 1.0 and bias == 0.0:
        return probability
    kept = min(max(probability, _CLOSEST), 1 - _CLOSEST)
    logit = math.log(kept / (1 - kept)) / temperature + bias
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
