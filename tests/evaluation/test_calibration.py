"""Calibration errors of worked cases, a temperature that is found again, risk and coverage."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.cli.calibrate import run_calibration
from rag_frozen.errors import InputError
from rag_frozen.evaluation.calibration import (
    area_under_risk,
    expected_calibration_error,
    fit_calibration,
    reliability,
    risk_coverage,
)
from rag_frozen.evaluation.runs import store_run
from rag_frozen.reader.confidence import calibrated
from tests.evaluation.test_runs import many
from tests.test_pipeline import pipeline

answers = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


def test_a_worked_case():
    confidences = [0.95, 0.85, 0.85, 0.15]
    right = [True, True, False, False]
    bins = reliability(confidences, right)
    assert [(b.n, b.right) for b in bins] == [(1, 0.0), (2, 0.5), (1, 1.0)]
    assert expected_calibration_error(confidences, right) == pytest.approx(
        (1 * 0.15 + 2 * 0.35 + 1 * 0.05) / 4
    )
    assert risk_coverage(confidences, right) == ((0.25, 0.0), (0.75, 1 / 3), (1.0, 0.5))
    assert area_under_risk(confidences, right) == pytest.approx(0.5 / 3 + 0.25 * 0.5)
    assert math.isnan(expected_calibration_error([], []))


def test_the_temperature_that_spoilt_confidences_is_found_again():
    chance = np.random.default_rng(0)
    true = chance.uniform(0.02, 0.98, 20_000)
    right = chance.uniform(size=len(true)) < true
    spoilt = [calibrated(float(p), temperature=0.4, bias=1.0) for p in true]
    fitted = fit_calibration(spoilt, right.tolist())
    # undoing x / 0.4 + 1: divide by 2.5, subtract 0.4
    assert fitted.temperature == pytest.approx(2.5, rel=0.05)
    assert fitted.bias == pytest.approx(-0.4, abs=0.05)
    again = [calibrated(p, temperature=fitted.temperature, bias=fitted.bias) for p in spoilt]
    assert expected_calibration_error(spoilt, right.tolist()) > 0.1
    assert expected_calibration_error(again, right.tolist()) < 0.02


def test_separable_answers_give_a_finite_line():
    fitted = fit_calibration([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert 0 < fitted.temperature < 20
    assert math.isfinite(fitted.bias)


@pytest.mark.parametrize("right", [[True, True], [False, False], []])
def test_nothing_to_fit_is_told(right: list[bool]):
    with pytest.raises(InputError, match="some must be right and some wrong"):
        fit_calibration([0.5] * len(right), right)


def test_a_line_is_found_where_confidences_are_high_and_close_together():
    """Steps by curvature alone run away here: the answers' logits lie far from zero."""
    right = [n % 2 == 0 for n in range(200)]
    sure = [0.99 if one != (n % 20 < 2) else 0.97 for n, one in enumerate(right)]
    fitted = fit_calibration(sure, right)
    made = [calibrated(p, temperature=fitted.temperature, bias=fitted.bias) for p in (0.99, 0.97)]
    for p, level in zip((0.99, 0.97), made, strict=True):
        share = [one for one, said in zip(right, sure, strict=True) if said == p]
        assert level == pytest.approx(sum(share) / len(share), abs=0.01)


@given(answers)
def test_fitting_never_makes_the_answers_less_likely(pairs):
    confidences, right = [p for p, _ in pairs], [hit for _, hit in pairs]
    if len(set(right)) < 2:
        return

    def surprise(temperature: float, bias: float) -> float:
        told = [calibrated(p, temperature=temperature, bias=bias) for p in confidences]
        kept = [min(max(p, 1e-6), 1 - 1e-6) for p in told]
        lost = -sum(math.log(p if hit else 1 - p) for p, hit in zip(kept, right, strict=True))
        return lost + 0.005 * (1 / temperature - 1) ** 2

    fitted = fit_calibration(confidences, right)
    assert surprise(fitted.temperature, fitted.bias) <= surprise(1.0, 0.0) + 1e-3


def test_wrong_lengths_and_values_are_told():
    with pytest.raises(InputError, match="1 confidences and 2 judgements"):
        reliability([0.5], [True, False])
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        reliability([1.5], [True])


@given(answers)
def test_bins_and_curves_hold_all_answers(rows):
    confidences, right = [p for p, _ in rows], [hit for _, hit in rows]
    assert sum(one.n for one in reliability(confidences, right)) == len(rows)
    assert 0 <= expected_calibration_error(confidences, right) <= 1
    curve = risk_coverage(confidences, right)
    assert curve[-1] == (1.0, pytest.approx(1 - sum(right) / len(right)))
    assert 0 <= area_under_risk(confidences, right) <= 1


def test_the_command_fits_on_one_half_and_measures_on_the_other(tmp_path: Path, capsys):
    run = store_run(pipeline(), many(30), tmp_path)
    run_calibration(str(run.folder), root=None, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["fitted_on"], found["measured_on"]) == (15, 15)
    assert (
        found["expected_calibration_error_calibrated"] <= found["expected_calibration_error"] + 0.05
    )
    run_calibration(str(run.folder), root=None, as_json=False)
    assert "confidence: {temperature:" in capsys.readouterr().out
