"""Intervals and paired tests over questions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rag_frozen.errors import InputError

__all__ = [
    "bootstrap_counts",
    "bootstrap_interval",
    "bootstrap_intervals",
    "holm",
    "mcnemar_p",
    "paired_bootstrap",
    "sign_flip_p",
    "smallest_difference",
]

_POWER_AND_LEVEL = 1.959964 + 0.841621
"""Normal quantiles of a two-sided level of 5 % and a power of 80 %."""

_AT_ONCE = 100
"""Resamples that are drawn together."""


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, samples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979); (nan, nan) of no values.

    >>> bootstrap_interval([1.0, 1.0])
    (1.0, 1.0)
    """
    return bootstrap_intervals({"": values}, level=level, samples=samples, seed=seed)[""]


def bootstrap_intervals(
    columns: Mapping[str, Sequence[float]],
    *,
    level: float = 0.95,
    samples: int = 2_000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """The :func:`bootstrap_interval` of each of several means, by name; columns of one length are
    resampled together.

    >>> bootstrap_intervals({"a": [1.0, 1.0], "b": []})
    {'a': (1.0, 1.0), 'b': (nan, nan)}
    """
    made: dict[str, tuple[float, float]] = {}
    for n in {len(values) for values in columns.values()}:
        names = [name for name, values in columns.items() if len(values) == n]
        if n == 0:
            made |= dict.fromkeys(names, (math.nan, math.nan))
            continue
        values = [np.asarray(columns[name], dtype=np.float64) for name in names]
        drawn = _resampled_means(values, samples, seed)
        ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=1)
        made |= {
            name: (float(low), float(high))
            for name, low, high in zip(names, ends[0], ends[1], strict=True)
        }
    return {name: made[name] for name in columns}


def bootstrap_counts(n: int, *, samples: int = 1_000, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """How often each of ``n`` questions stands in a resample: ``[some, n]`` at a time, ``samples``
    in all. For scores of a whole set, which are no mean.

    >>> [counts.sum(axis=1).tolist() for counts in bootstrap_counts(3, samples=2)]
    [[3, 3]]
    """
    generator = np.random.default_rng(seed)
    for done in range(0, samples, _AT_ONCE):
        drawn = generator.integers(0, n, (min(_AT_ONCE, samples - done), n))
        yield np.stack([np.bincount(one, minlength=n) for one in drawn])


def paired_bootstrap(
    ours: Sequence[float], theirs: Sequence[float], *, samples: int = 2_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean difference ours - theirs over the same questions, with its 95 % interval.

    Raises:
        InputError: when the two are not of one length, which cannot be the same questions.

    >>> paired_bootstrap([1.0, 1.0], [0.0, 0.0])
    (1.0, 1.0, 1.0)
    """
    _check_paired(ours, theirs)
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    low, high = bootstrap_interval(difference.tolist(), samples=samples, seed=seed)
    mean = float(difference.mean()) if len(difference) else math.nan
    return mean, low, high


def mcnemar_p(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Exact two-sided McNemar test: how likely so uneven a split of the disagreements is by chance.

    Raises:
        InputError: when the two are not of one length, which cannot be the same questions.

    >>> mcnemar_p([True] * 5, [False] * 5)
    0.0625
    >>> mcnemar_p([True], [True])
    1.0
    """
    _check_paired(ours, theirs)
    only_ours = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    only_theirs = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    n = only_ours + only_theirs
    tail = sum(math.comb(n, k) for k in range(min(only_ours, only_theirs) + 1))
    return min(1.0, float(2 * tail / 2**n))


def sign_flip_p(
    ours: Sequence[float], theirs: Sequence[float], *, samples: int = 9_999, seed: int = 0
) -> float:
    """Two-sided p of a paired difference of means: how often random signs of the differences give
    a mean at least as far from 0 (Fisher's randomisation test, by sampling).

    For scores that are no single yes or no, such as means over seeds. The smallest p that
    ``samples`` draws can give is 1 / (samples + 1).

    Raises:
        InputError: when the two are not of one length, which cannot be the same questions.

    >>> sign_flip_p([1.0] * 30, [0.0] * 30)
    0.0001
    >>> sign_flip_p([1.0, 0.5], [1.0, 0.5])
    1.0
    """
    _check_paired(ours, theirs)
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    difference = difference[difference != 0]
    if len(difference) == 0:
        return 1.0
    random = np.random.default_rng(seed)
    reached, done = 0, 0
    bound = abs(difference.sum()) - 1e-9
    while done < samples:
        n = min(1_000, samples - done)
        signs = random.integers(0, 2, size=(n, len(difference)), dtype=np.int8) * 2 - 1
        reached += int((abs(signs @ difference) >= bound).sum())
        done += n
    return (1 + reached) / (1 + samples)


def smallest_difference(n: int, disagreements: int) -> float:
    """The smallest difference of two proportions, in [0, 1], that ``n`` paired questions show with
    80 % power at the 5 % level, if systems disagree as often as these two do.

    With z the sum of the two normal quantiles and d the share of disagreements, the difference
    delta solves delta^2 = z^2 (d - delta^2) / n, the variance of a paired difference (Connor 1987).

    >>> round(smallest_difference(1_000, 200), 3)
    0.039
    >>> smallest_difference(0, 0)
    nan
    """
    if n == 0:
        return math.nan
    squared = _POWER_AND_LEVEL**2
    return math.sqrt(squared * (disagreements / n) / (n + squared))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of several tests' p (Holm 1979), in their order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def _check_paired(ours: Sequence[float], theirs: Sequence[float]) -> None:
    if len(ours) != len(theirs):
        raise InputError(
            f"A paired test compares the same questions: {len(ours):,} scores were given and "
            f"{len(theirs):,} to compare with. Evaluate both over one data set."
        )


def _resampled_means(
    columns: Sequence[NDArray[np.float64]], samples: int, seed: int
) -> NDArray[np.float64]:
    """Means of each column, of one length each, in each resample: ``[columns, samples]``."""
    generator = np.random.default_rng(seed)
    n = len(columns[0])
    means = np.empty((len(columns), samples))
    for done in range(0, samples, _AT_ONCE):
        drawn = generator.integers(0, n, (min(_AT_ONCE, samples - done), n))
        for place, values in enumerate(columns):
            means[place, done : done + len(drawn)] = values[drawn].mean(axis=1)
    return means
