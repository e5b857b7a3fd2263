"""Intervals and paired tests over questions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import InputError
from rag_frozen.evaluation.statistics import bootstrap_interval, mcnemar_p, paired_bootstrap

VALUES = [1.0] * 30 + [0.0] * 70


def test_the_interval_is_that_of_the_normal_approximation():
    low, high = bootstrap_interval(VALUES)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 100)
    assert low == pytest.approx(0.3 - half, abs=0.015)
    assert high == pytest.approx(0.3 + half, abs=0.015)


def test_a_lower_level_gives_a_narrower_interval():
    wide, narrow = bootstrap_interval(VALUES), bootstrap_interval(VALUES, level=0.5)
    assert wide[0] < narrow[0] < 0.3 < narrow[1] < wide[1]


def test_the_same_seed_gives_the_same_interval():
    assert bootstrap_interval(VALUES, seed=3) == bootstrap_interval(VALUES, seed=3)


def test_no_values_have_no_interval():
    assert all(math.isnan(end) for end in bootstrap_interval([]))
    assert all(math.isnan(value) for value in paired_bootstrap([], []))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_lies_within_its_values(values):
    low, high = bootstrap_interval(values, samples=50)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_pairing_narrows_the_interval_of_a_difference():
    ours = [1.0] * 32 + [0.0] * 68
    difference, low, high = paired_bootstrap(ours, VALUES)
    alone_low, alone_high = bootstrap_interval(ours)
    assert difference == pytest.approx(0.02)
    assert 0 <= low <= high
    assert high - low < (alone_high - alone_low) / 2


def test_mcnemar_is_the_binomial_test_of_the_disagreements():
    assert mcnemar_p([True] * 10 + [False], [False] * 10 + [True]) == pytest.approx(24 / 2**11)
    assert mcnemar_p([True, False], [False, True]) == 1.0
    assert mcnemar_p([True] * 2_000, [False] * 2_000) < 1e-300  # and no overflow


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_mcnemar_is_symmetric_and_a_probability(pairs):
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    assert mcnemar_p(ours, theirs) == mcnemar_p(theirs, ours)
    assert 0 < mcnemar_p(ours, theirs) <= 1


def test_scores_of_different_lengths_are_not_the_same_questions():
    with pytest.raises(InputError, match="3 scores were given and 1"):
        paired_bootstrap([1.0, 0.0, 1.0], [0.0])
    with pytest.raises(InputError, match="same questions"):
        mcnemar_p([True], [])
