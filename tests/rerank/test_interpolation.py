"""A reranker's scores and the retrieval's, joined."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import InputError
from rag_frozen.rerank.interpolation import interpolate
from rag_frozen.types import Hit, Ranking, sort_hits

scores = st.floats(-100, 100, allow_nan=False)
lists = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.tuples(scores, scores))


def rankings(pairs: dict[str, tuple[float, float]]) -> tuple[Ranking, Ranking]:
    reranked = sort_hits(Hit(name, ours) for name, (ours, _) in pairs.items())
    retrieved = sort_hits(Hit(name, first) for name, (_, first) in pairs.items())
    return reranked, retrieved


@given(lists, st.floats(0, 1_000))
def test_the_joined_score_is_the_weighted_sum(pairs: dict[str, tuple[float, float]], weight: float):
    joined = interpolate(*rankings(pairs), weight=weight)
    assert {hit.passage_id for hit in joined} == set(pairs)
    assert list(joined) == sorted(joined, key=lambda hit: (-hit.score, hit.passage_id))
    for hit in joined:
        ours, first = pairs[hit.passage_id]
        assert hit.score == pytest.approx(ours + weight * first)


@given(lists)
def test_without_weight_the_rerankers_order_stands(pairs: dict[str, tuple[float, float]]):
    reranked, retrieved = rankings(pairs)
    assert interpolate(reranked, retrieved, weight=0) == reranked


def test_hits_that_were_not_reranked_stay_out():
    joined = interpolate((Hit("a", 1.0),), (Hit("b", 9.0), Hit("a", 2.0)), weight=0.5)
    assert joined == (Hit("a", 2.0),)


def test_weights_and_passages_that_cannot_be_joined_are_refused():
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="0 or more"):
            interpolate((), (), weight=weight)
    with pytest.raises(InputError, match="1 of 2 reranked passages were not retrieved, 'b'"):
        interpolate((Hit("b", 2.0), Hit("a", 1.0)), (Hit("a", 1.0),), weight=1.0)
