"""Scores against qrels equal trec_eval's definitions, computed here by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.evaluation.examples import ExampleSet
from rag_frozen.evaluation.relevance import mean_relevance, relevance_scores
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.types import Hit, Ranking
from tests.evaluation import data
from tests.test_pipeline import pipeline


def ranking(*ids: str) -> Ranking:
    return tuple(Hit(one, float(len(ids) - rank)) for rank, one in enumerate(ids))


def by_hand(ids: list[str], grades: dict[str, int]) -> dict[str, float]:
    """Järvelin and Kekäläinen 2002 with gains as they are, and its companions."""
    gains = [grades.get(one, 0) for one in ids[:10]]
    ideal = sorted(grades.values(), reverse=True)[:10]
    dcg, best = (
        sum(max(gain, 0) / math.log2(rank + 1) for rank, gain in enumerate(values, 1))
        for values in (gains, ideal)
    )
    relevant = {one for one, grade in grades.items() if grade > 0}
    first = next((rank for rank, one in enumerate(ids[:10], 1) if one in relevant), None)
    return {
        "ndcg@10": dcg / best,
        "mrr@10": 0.0 if first is None else 1 / first,
        **{
            f"passage_recall@{k}": len(relevant & set(ids[:k])) / len(relevant)
            for k in (1, 5, 20, 100)
        },
    }


@given(
    st.permutations([f"p{n}" for n in range(14)]),
    st.dictionaries(st.sampled_from([f"p{n}" for n in range(20)]), st.integers(0, 3), min_size=1),
)
def test_scores_are_those_of_the_definitions(ids: list[str], grades: dict[str, int]):
    found = relevance_scores(ranking(*ids), tuple(grades.items()))
    if not any(grades.values()):
        assert found == {}
        return
    assert found == pytest.approx(by_hand(ids, grades))


def test_the_order_of_the_ranking_counts_where_scores_are_equal():
    tied = (Hit("a", 1.0), Hit("b", 1.0))
    assert relevance_scores(tied, (("a", 1),))["mrr@10"] == 1.0
    assert relevance_scores(tied, (("b", 1),))["mrr@10"] == 0.5


def test_an_empty_ranking_scores_nothing_and_a_hit_below_the_cut_counts_in_recall_alone():
    assert set(relevance_scores((), (("a", 1),)).values()) == {0.0}
    deep = relevance_scores(ranking(*(f"p{n}" for n in range(11))), (("p10", 1),))
    assert (deep["mrr@10"], deep["ndcg@10"], deep["passage_recall@20"]) == (0.0, 0.0, 1.0)


def test_the_mean_is_over_the_questions_that_have_a_relevant_passage():
    assert mean_relevance([{"mrr@10": 0.5}, {}]) == {"mrr@10": 50.0}
    assert mean_relevance([{}]) == {}


def test_an_evaluation_scores_each_ranking_against_the_gold_passages():
    result = evaluate(pipeline(), data())
    assert result.relevance["retrieve"]["mrr@10"] == pytest.approx(100 * (1 / 2 + 1 / 3) / 2)
    assert result.relevance["final"]["mrr@10"] == pytest.approx(100 * (1 + 1 / 3) / 2)
    assert result.metrics["passage_recall@5"] == 100.0
    assert result.to_json()["relevance"]["final"]["passage_recall@1"] == 50.0  # type: ignore[index]


def test_data_without_gold_passages_have_no_such_scores():
    bare = data()
    examples = tuple(type(e)(e.question, e.answers) for e in bare.examples)
    result = evaluate(pipeline(), ExampleSet("bare", examples, bare.sha256))
    assert result.relevance == {}
    assert "ndcg@10" not in result.metric_versions
