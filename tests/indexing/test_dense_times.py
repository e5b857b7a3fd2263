"""Estimates of what building a dense search takes: as measured, and growing as they must."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rag_frozen.indexing.dense_times import measured_flops, search_seconds
from rag_frozen.recipes.index import DenseSettings

KINDS = ("flat", "exact-torch", "scalar-fp16", "scalar-int8", "ivf-pq-fastscan", "hnsw")
ONE_CORE = 9.0e10
"""Of fp32 products a second on the core of the measurements."""


def seconds(kind: str, n: int, width: int, flops: float = ONE_CORE) -> float:
    encoder = {"kind": "sentence-transformers", "model": "any"}
    settings = TypeAdapter(DenseSettings).validate_python({"kind": kind, "encoder": encoder})
    return search_seconds(settings, n, width, flops=flops)


@given(st.sampled_from(KINDS), st.integers(1, 10**8), st.sampled_from([16, 384, 768]))
def test_more_or_wider_vectors_never_take_less_time(kind: str, n: int, width: int):
    assert 0 <= seconds(kind, n, width) <= seconds(kind, 2 * n, width)
    assert seconds(kind, n, width) <= seconds(kind, n, 2 * width)
    assert seconds(kind, n, width, flops=2 * ONE_CORE) <= seconds(kind, n, width)


def test_a_machines_products_are_counted():
    assert 1e8 < measured_flops() < 1e15
