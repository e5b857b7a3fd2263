"""``rag-frozen calibrate``: what to write into a pipeline's recipe so that confidences hold."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["run_calibration"]


def run_calibration(run: str, *, root: Path | None, as_json: bool) -> None:
    """Fit temperature and bias on every other answer of a stored run; measure on the rest.

    Raises:
        InputError, ArtifactError: when the run cannot be read, or holds nothing to fit.
    """
    from rag_frozen.errors import InputError
    from rag_frozen.evaluation.calibration import expected_calibration_error, fit_calibration
    from rag_frozen.evaluation.compare import find_run
    from rag_frozen.evaluation.runs import read_run
    from rag_frozen.reader.confidence import calibrated

    result = read_run(find_run(run, root))
    rows = [row for row in result.scored if row.answers]
    fitted_on, rest = rows[::2], rows[1::2]
    if len(rest) < 2:
        raise InputError(f"The run has {len(rows)} answers; four are the least that can be split.")
    fitted = fit_calibration(
        [row.confidence for row in fitted_on], [row.exact_match for row in fitted_on]
    )
    right = [row.exact_match for row in rest]
    before = [row.confidence for row in rest]
    after = [calibrated(p, temperature=fitted.temperature, bias=fitted.bias) for p in before]
    found = {
        "temperature": round(fitted.temperature, 4),
        "bias": round(fitted.bias, 4),
        "expected_calibration_error": round(expected_calibration_error(before, right), 4),
        "expected_calibration_error_calibrated": round(expected_calibration_error(after, right), 4),
        "fitted_on": len(fitted_on),
        "measured_on": len(rest),
    }
    if as_json:
        print(json.dumps(found))
        return
    print(f"confidence: {{temperature: {found['temperature']}, bias: {found['bias']}}}")
    print(
        f"expected calibration error {100 * found['expected_calibration_error']:.1f} % as the run "
        f"says it, {100 * found['expected_calibration_error_calibrated']:.1f} % calibrated "
        f"(fitted on {found['fitted_on']} answers, measured on the other {found['measured_on']})"
    )
