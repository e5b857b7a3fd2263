"""How long the search of a dense kind takes to build and to tune, beside encoding: formulas.

Matrix products are counted and divided by what one core was seen to do; what is no product has a
time for each number, measured on one core of an AMD EPYC (Zen 4) over 466,961 vectors of 384
(benchmarks/README.md). Other processors and many cores differ from that: it is an estimate.
"""

from __future__ import annotations

import math
import time

import numpy as np

from rag_frozen.recipes.index import (
    ConcreteDense,
    FlatDense,
    HnswDense,
    IvfPqDense,
    ScalarFp16Dense,
    ScalarInt8Dense,
    TorchDense,
)

__all__ = ["measured_flops", "search_seconds"]

_READ = 5.6e-9
"""Seconds to read a number of a vector and to take part in its norm."""
_CODE = 1.1e-8
"""Seconds to read a number of a vector and to write its scalar code."""
_CHOOSE = 1.2e-8
"""Seconds a question and vector to keep the best of exact search."""
_SCAN_INT8 = 1.14e-10
"""Seconds a question and number of an 8-bit code."""
_PQ_CODE = 2.2e-8
"""Seconds to make one number of a product-quantised code, of 16 centroids."""
_CLIMB = 2.6e-8
"""Seconds a question and vector to climb the steps of lists probed: measured over 466,961 vectors
of 384 and over 3,000,000 of 768."""
_ITERATIONS = 10
"""Of k-means, as faiss trains inverted lists."""
_STEP = 9.3e-9
"""Seconds a number of a vector that HNSW compares with another while it builds."""
_SIDE = 1_024


def measured_flops() -> float:
    """Operations a second of a product of fp32 matrices, as many cores as numpy uses."""
    square = np.ones((_SIDE, _SIDE), dtype=np.float32)
    square @ square
    began = time.perf_counter()
    for _ in range(4):
        square @ square
    return 4 * 2.0 * _SIDE**3 / (time.perf_counter() - began)


def search_seconds(settings: ConcreteDense, n: int, width: int, *, flops: float) -> float:
    """Estimate the seconds from finished vectors to a tuned search.

    Args:
        settings: of the recipe; tuned kinds measure recall on ``tuning.n`` queries.
        n: vectors.
        width: of each.
        flops: from :func:`measured_flops`.
    """
    numbers = float(n) * width
    match settings:
        case FlatDense():
            return 0.0
        case TorchDense():
            return _READ * numbers
        case ScalarFp16Dense():
            return _CODE * numbers
        case ScalarInt8Dense():
            scanned = settings.tuning.n * _SCAN_INT8 * numbers
            return _CODE * numbers + _truth(settings.tuning.n, n, width, flops) + scanned
        case IvfPqDense():
            from rag_frozen.retrieval.dense_ivf import POINTS_A_LIST, default_lists

            lists = settings.lists or default_lists(n)
            sample = min(n, POINTS_A_LIST * lists)
            products = 2.0 * lists * width * (_ITERATIONS * sample + n)
            codes = _PQ_CODE * numbers / settings.subvector
            climbed = _CLIMB * settings.tuning.n * n
            return products / flops + codes + _truth(settings.tuning.n, n, width, flops) + climbed
        case HnswDense():
            walked = settings.build_ef * math.log2(max(n, 2)) / 16
            return _STEP * numbers * walked + _truth(settings.tuning.n, n, width, flops)


def _truth(queries: int, n: int, width: int, flops: float) -> float:
    """Seconds of the exact search that tuning is measured against."""
    return 2.0 * queries * n * width / flops + _CHOOSE * queries * n
