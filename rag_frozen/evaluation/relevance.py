"""nDCG, MRR and recall against judged passages (qrels), by trec_eval's own code (pytrec_eval).

    ndcg@10            trec-eval-ndcg-cut-10/1     gains are the grades, discount log2(rank + 1)
    mrr@10             trec-eval-recip-rank-10/1   1 / rank of the first relevant among the first 10
    passage_recall@k   trec-eval-recall-k/1        share of the relevant that are among the first k

A passage is relevant when its grade is above 0; one that nobody judged is not. trec_eval orders
equal scores by passage id, descending; we hand it ranks in place of scores, so that the ranking
that is scored is the one that the pipeline used. Not to be mistaken for answer-recall@k, which
asks whether a passage holds an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rag_frozen.errors import MissingPackageError
from rag_frozen.types import Ranking

__all__ = ["RELEVANCE_DEPTHS", "RELEVANCE_VERSIONS", "Qrels", "mean_relevance", "relevance_scores"]

Qrels = tuple[tuple[str, int], ...]
"""(passage id, grade) of the judged passages of one question."""

RELEVANCE_DEPTHS = (1, 5, 20, 100)
RELEVANCE_VERSIONS = {
    "ndcg@10": "trec-eval-ndcg-cut-10/1",
    "mrr@10": "trec-eval-recip-rank-10/1",
    **{f"passage_recall@{k}": f"trec-eval-recall-{k}/1" for k in RELEVANCE_DEPTHS},
}
_CUT = 10


def relevance_scores(ranking: Ranking, qrels: Qrels) -> dict[str, float]:
    """Score one question's ranking, in [0, 1]; nothing where no passage is judged relevant.

    Raises:
        MissingPackageError: when pytrec_eval is not installed.

    >>> from rag_frozen.types import Hit
    >>> found = relevance_scores((Hit("a", 2.0), Hit("b", 2.0)), (("b", 1), ("c", 1)))
    >>> found["mrr@10"], found["passage_recall@5"]
    (0.5, 0.5)
    """
    relevant = {passage: grade for passage, grade in qrels if grade > 0}
    if not relevant:
        return {}
    try:
        from pytrec_eval import RelevanceEvaluator
    except ImportError as error:
        raise MissingPackageError(
            "Scores against qrels need pytrec_eval: pip install pytrec-eval-terrier"
        ) from error
    ids = list(dict.fromkeys(hit.passage_id for hit in ranking))
    cuts = ",".join(map(str, RELEVANCE_DEPTHS))
    judged = {"q": dict(qrels)}
    whole = _evaluated(RelevanceEvaluator(judged, {f"ndcg_cut.{_CUT}", f"recall.{cuts}"}), ids)
    first = _evaluated(RelevanceEvaluator(judged, {"recip_rank"}), ids[:_CUT])
    return {
        "ndcg@10": whole.get(f"ndcg_cut_{_CUT}", 0.0),
        "mrr@10": first.get("recip_rank", 0.0),
        **{f"passage_recall@{k}": whole.get(f"recall_{k}", 0.0) for k in RELEVANCE_DEPTHS},
    }


def mean_relevance(scores: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean over the questions with a relevant passage, in percent; nothing without any.

    >>> mean_relevance([{"mrr@10": 1.0}, {}, {"mrr@10": 0.5}])
    {'mrr@10': 75.0}
    """
    counted = [one for one in scores if one]
    names = list(dict.fromkeys(name for one in counted for name in one))
    return {name: 100 * sum(one[name] for one in counted) / len(counted) for name in names}


def _evaluated(evaluator: object, ids: list[str]) -> Mapping[str, float]:
    """Scores of one ranking; empty where it is empty, which trec_eval leaves out."""
    run = {"q": {passage: float(-rank) for rank, passage in enumerate(ids)}}
    found: Mapping[str, Mapping[str, float]] = evaluator.evaluate(run)  # type: ignore[attr-defined]
    return found.get("q", {})
