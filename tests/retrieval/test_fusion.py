"""Fusion keeps what must always hold, whatever the runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import InputError
from rag_frozen.retrieval.fusion import (
    reciprocal_rank_fusion,
    spider_fusion,
    weighted_min_max_sum,
)
from rag_frozen.types import Hit, sort_hits

scores = st.integers(-50, 50).map(lambda n: n / 4)
run = st.dictionaries(st.sampled_from("abcdefghij"), scores, max_size=10).map(
    lambda found: sort_hits(Hit(name, score) for name, score in found.items())
)
runs = st.lists(run, min_size=1, max_size=4)


def close(ours, theirs):
    ours, theirs = ({h.passage_id: h.score for h in r} for r in (ours, theirs))
    return ours.keys() == theirs.keys() and all(
        abs(ours[name] - theirs[name]) < 1e-9 for name in ours
    )


@given(runs)
def test_fusion_keeps_every_passage_once_and_sorts_them(of):
    for fuse in (reciprocal_rank_fusion, weighted_min_max_sum):
        fused = fuse(of)
        assert {h.passage_id for h in fused} == {h.passage_id for r in of for h in r}
        assert fused == sort_hits(fused)
        assert len({h.passage_id for h in fused}) == len(fused)


@given(runs, st.randoms())
def test_fusion_ignores_the_order_of_runs(of, rng):
    shuffled = list(of)
    rng.shuffle(shuffled)
    assert close(reciprocal_rank_fusion(of), reciprocal_rank_fusion(shuffled))
    assert close(weighted_min_max_sum(of), weighted_min_max_sum(shuffled))


@given(runs, st.integers(1, 20), st.integers(-9, 9))
def test_rrf_ignores_score_scale(of, factor, shift):
    scaled = [tuple(Hit(h.passage_id, factor * h.score + shift) for h in r) for r in of]
    assert reciprocal_rank_fusion(of) == reciprocal_rank_fusion(scaled)
    assert close(weighted_min_max_sum(of), weighted_min_max_sum(scaled))


@given(run, run, st.floats(0.1, 3))
def test_spider_gives_a_missing_passage_the_lists_minimum(first, second, weight):
    fused = {h.passage_id: h.score for h in spider_fusion([first, second], weight=weight)}
    ours, theirs = ({h.passage_id: h.score for h in r} for r in (first, second))
    for name, score in fused.items():
        low, low_theirs = min(ours.values(), default=0.0), min(theirs.values(), default=0.0)
        wanted = ours.get(name, low) + weight * theirs.get(name, low_theirs)
        assert score == pytest.approx(wanted)


def test_spider_fuses_two_runs_only():
    with pytest.raises(InputError, match="two runs"):
        spider_fusion([(), (), ()])


def test_weights_are_one_a_run():
    with pytest.raises(InputError, match="2 weights for 1 runs"):
        reciprocal_rank_fusion([()], weights=[1.0, 2.0])
