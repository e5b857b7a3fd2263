"""A reranker's scores and the retrieval's, joined."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import InputError
from rag_frozen.rerank.interpolation import JoinedScores, interpolate
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


RERANKED = (Hit("a", 2.0), Hit("b", 1.5), Hit("c", 1.0))
STAGES = {
    "retrieve": (Hit("c", 0.03), Hit("b", 0.02), Hit("a", 0.01)),
    "dense": (Hit("c", 0.9), Hit("z", 0.4), Hit("b", 0.3)),
}


def test_the_scores_of_one_stage_are_joined_and_what_it_did_not_find_has_its_lowest():
    assert JoinedScores()(RERANKED, STAGES) == RERANKED
    whole = JoinedScores(100.0)(RERANKED, STAGES)
    assert [(hit.passage_id, hit.score) for hit in whole] == [("c", 4.0), ("b", 3.5), ("a", 3.0)]
    part = JoinedScores(10.0, "dense")(RERANKED, STAGES)
    assert [(hit.passage_id, hit.score) for hit in part] == [("c", 10.0), ("a", 5.0), ("b", 4.5)]


def test_a_stage_that_did_not_rank_and_a_passage_that_nothing_found_are_told():
    with pytest.raises(InputError, match=r"no scores of the stage bm25; .* are: retrieve, dense\."):
        JoinedScores(1.0, "bm25")(RERANKED, STAGES)
    with pytest.raises(InputError, match="1 of 1 reranked passages were not retrieved, 'q'"):
        JoinedScores(1.0)((Hit("q", 1.0),), STAGES)
