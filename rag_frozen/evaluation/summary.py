"""Sum up scored answers: the numbers of ``metrics.json``.

Knows scored answers alone, so that a stored run gives the same numbers as the run itself.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rag_frozen.evaluation.calibration import expected_calibration_error
from rag_frozen.evaluation.funnel import FunnelStage, funnel
from rag_frozen.evaluation.metrics import METRIC_VERSIONS
from rag_frozen.evaluation.relevance import RELEVANCE_VERSIONS, mean_relevance
from rag_frozen.evaluation.scoring import FINAL, ScoredAnswer
from rag_frozen.evaluation.statistics import bootstrap_intervals
from rag_frozen.evaluation.text_metrics import (
    TEXT_METRICS,
    intervals_of_whole,
    score_texts,
    scores_of_each,
)

__all__ = ["DEPTHS", "EvalResult", "summarize"]

DEPTHS = (1, 5, 20, 100)
"""The k of answer-recall@k."""
Interval = tuple[float, float]
_REPORTED = ("exact_match", "f1", "answer_recall")


@dataclass(frozen=True, slots=True)
class EvalResult:
    """Scores in percent. Questions without an answer are counted apart and in no score.

    ``groups`` holds questions, exact match and F1 for each value of each tag; ``seconds`` the time
    a question by stage; ``recall`` answer-recall@k of each ranking (those of each retriever of a
    fusion, ``retrieve``, ``final``) for the depths that it reaches; ``gold_in_prompt`` is over the
    questions whose data name a gold passage, None without any.
    """

    data: str
    data_sha256: str
    pipeline: str
    questions: int
    exact_match: float
    f1: float
    recall: Mapping[str, Mapping[int, float]]
    in_prompt: float
    gold_in_prompt: float | None
    groups: Mapping[str, tuple[int, float, float]]
    funnel: tuple[FunnelStage, ...]
    unanswerable: int
    mean_confidence: float
    mean_confidence_unanswerable: float
    seconds: Mapping[str, float]
    scored: tuple[ScoredAnswer, ...]
    answered: bool = True
    """False for a run that ends with rankings: scores of answers are then left out."""
    patterns: bool = False
    """True when the gold answers are regular expressions, matched as CuratedTREC's are."""
    texts: Mapping[str, float] = field(default_factory=dict)
    """The metrics that the recipe asks for beside the standing ones."""
    relevance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """nDCG, MRR and recall of each ranking against the qrels, where there are any."""
    substring_recall: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """As ``recall``, by the substring rule; empty where the answers are patterns."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """95 % bootstrap intervals over questions of each of ``metrics``."""

    @property
    def exact_match_interval(self) -> Interval:
        """That of exact match; (nan, nan) where no question has an answer."""
        return self.intervals.get("exact_match", (math.nan, math.nan))

    @property
    def metrics(self) -> dict[str, float]:
        """The scores by the names that evaluation recipes use, in percent."""
        gold = {} if self.gold_in_prompt is None else {"gold_in_prompt": self.gold_in_prompt}
        recall = {f"answer_recall@{k}": v for k, v in self.recall.get(FINAL, {}).items()}
        substring = self.substring_recall.get(FINAL, {})
        recall |= {f"substring_recall@{k}": value for k, value in substring.items()}
        recall |= self.relevance.get(FINAL, {})
        if not self.answered:
            return recall
        return {
            "exact_match": self.exact_match,
            "f1": self.f1,
            **recall,
            "answer_in_prompt": self.in_prompt,
            **gold,
            **self.texts,
        }

    @property
    def metric_versions(self) -> dict[str, str]:
        """Name and version of every metric that this result holds."""
        standing = {name: METRIC_VERSIONS[name] for name in _REPORTED}
        if self.patterns:
            standing["exact_match"] = METRIC_VERSIONS["regex_match"]
            standing["answer_recall"] = METRIC_VERSIONS["regex_recall"]
        if not self.answered:
            standing = {"answer_recall": standing["answer_recall"]}
        if self.substring_recall:
            standing["substring_recall"] = METRIC_VERSIONS["substring_recall"]
        judged = RELEVANCE_VERSIONS if self.relevance else {}
        return {**standing, **judged, **{name: TEXT_METRICS[name].version for name in self.texts}}

    def _calibration_error(self) -> float | None:
        asked = [row for row in self.scored if row.answers]
        if not asked:
            return None
        return round(
            expected_calibration_error(
                [row.confidence for row in asked], [row.exact_match for row in asked]
            ),
            4,
        )

    def to_json(self) -> dict[str, object]:
        """The scores as plain JSON values, without the answers and without times."""
        common: dict[str, object] = {
            "data": self.data,
            "data_sha256": self.data_sha256,
            "pipeline": self.pipeline,
            "questions": self.questions,
            **{name: round(value, 4) for name, value in self.metrics.items()},
            "intervals": {
                name: [round(end, 4) for end in ends]
                for name, ends in self.intervals.items()
                if not math.isnan(ends[0])
            },
            "recall": _by_depth(self.recall),
            "substring_recall": _by_depth(self.substring_recall),
            "unanswerable": self.unanswerable,
        }
        if self.relevance:
            common["relevance"] = {
                name: {measure: round(value, 4) for measure, value in of_one.items()}
                for name, of_one in self.relevance.items()
            }
        if not self.answered:
            return {**common, "metric_versions": self.metric_versions}
        interval = [round(end, 4) for end in self.exact_match_interval] if self.questions else None
        return {
            **common,
            "exact_match_interval": interval,
            "groups": {
                name: {"questions": n, "exact_match": round(em, 4), "f1": round(score, 4)}
                for name, (n, em, score) in self.groups.items()
            },
            "funnel": [asdict(stage) for stage in self.funnel],
            "mean_confidence": round(self.mean_confidence, 4),
            "mean_confidence_unanswerable": round(self.mean_confidence_unanswerable, 4),
            "expected_calibration_error": self._calibration_error(),
            "metric_versions": self.metric_versions,
        }


def summarize(
    rows: Sequence[ScoredAnswer],
    *,
    data: str,
    data_sha256: str,
    pipeline: str,
    seconds: Sequence[Mapping[str, float]] = (),
    answered: bool = True,
    patterns: bool = False,
    metrics: Sequence[str] = (),
) -> EvalResult:
    """Sum up.

    Args:
        rows: one a question.
        data, data_sha256, pipeline: names for the record.
        seconds: of each question by stage.
        answered: False when the run ends with rankings.
        patterns: the gold answers are regular expressions.
        metrics: names of ``TEXT_METRICS`` to compute beside the standing ones.

    Raises:
        InputError: when a metric is not known or cannot take these answers.
    """
    asked = [row for row in rows if row.answers]
    rest = [row for row in rows if not row.answers]
    groups: dict[str, list[ScoredAnswer]] = defaultdict(list)
    for row in asked:
        for tag, value in row.tags.items():
            groups[f"{tag}: {value}"].append(row)
    golds = [row.gold_in_prompt for row in asked if row.gold_in_prompt is not None]
    return EvalResult(
        data=data,
        data_sha256=data_sha256,
        pipeline=pipeline,
        questions=len(asked),
        exact_match=_percent(row.exact_match for row in asked),
        f1=_percent(row.f1 for row in asked),
        recall=_recall(asked, substring=False),
        substring_recall={} if patterns else _recall(asked, substring=True),
        intervals=_intervals(rows, metrics if answered else None),
        in_prompt=_percent(row.in_prompt for row in asked),
        gold_in_prompt=_percent(golds) if golds else None,
        groups={
            name: (len(of), _percent(r.exact_match for r in of), _percent(r.f1 for r in of))
            for name, of in sorted(groups.items())
        },
        funnel=funnel(asked),
        unanswerable=len(rest),
        mean_confidence=_percent(row.confidence for row in asked) / 100,
        mean_confidence_unanswerable=_percent(row.confidence for row in rest) / 100,
        seconds=_mean_seconds(seconds),
        scored=tuple(rows),
        answered=answered,
        patterns=patterns,
        texts=score_texts(
            metrics, [row.prediction for row in asked], [row.answers for row in asked]
        )
        if answered
        else {},
        relevance=_relevance(rows),
    )


def _relevance(rows: Sequence[ScoredAnswer]) -> dict[str, dict[str, float]]:
    """Over the questions with qrels, whether they have an answer or not."""
    names = dict.fromkeys(name for row in rows for name in row.relevance)
    return {name: mean_relevance(row.relevance.get(name, {}) for row in rows) for name in names}


def _recall(rows: Sequence[ScoredAnswer], *, substring: bool) -> dict[str, dict[int, float]]:
    names = list(dict.fromkeys(name for row in rows for name in row.depths))
    return {
        name: {k: _percent(hits) for k, hits in _hits(rows, name, substring=substring).items()}
        for name in names
        if not substring or all(name in row.first_containing for row in rows if row.depths)
    }


def _hits(rows: Sequence[ScoredAnswer], ranking: str, *, substring: bool) -> dict[int, list[float]]:
    """For each k that a ranking reaches: 1 for the questions with an answering hit among k."""
    deepest = max((row.depths.get(ranking, 0) for row in rows), default=0)
    ranks = [
        (row.first_containing if substring else row.first_answering).get(ranking) for row in rows
    ]
    return {
        k: [float(rank is not None and rank <= k) for rank in ranks] for k in DEPTHS if k <= deepest
    }


def _intervals(rows: Sequence[ScoredAnswer], metrics: Sequence[str] | None) -> dict[str, Interval]:
    """Of every metric; ``metrics`` names those of texts, None without answers."""
    asked = [row for row in rows if row.answers]
    predictions, answers = [row.prediction for row in asked], [row.answers for row in asked]
    columns: dict[str, list[float]] = {}
    for name, substring in (("answer_recall", False), ("substring_recall", True)):
        if not substring or all(FINAL in row.first_containing for row in asked if row.depths):
            hits = _hits(asked, FINAL, substring=substring)
            columns |= {f"{name}@{k}": [100 * hit for hit in of_k] for k, of_k in hits.items()}
    judged = [scores for row in rows if (scores := row.relevance.get(FINAL))]
    for measure in judged[0] if judged else ():
        columns[measure] = [100 * scores[measure] for scores in judged]
    if metrics is not None:
        golds = [row.gold_in_prompt for row in asked if row.gold_in_prompt is not None]
        columns |= {
            "exact_match": [100.0 * row.exact_match for row in asked],
            "f1": [100 * row.f1 for row in asked],
            "answer_in_prompt": [100.0 * row.in_prompt for row in asked],
            **({"gold_in_prompt": [100.0 * one for one in golds]} if golds else {}),
            **scores_of_each(metrics, predictions, answers),
        }
    whole = intervals_of_whole(metrics or (), predictions, answers)
    return {**bootstrap_intervals(columns), **whole}


def _by_depth(recall: Mapping[str, Mapping[int, float]]) -> dict[str, dict[str, float]]:
    return {
        name: {str(k): round(value, 4) for k, value in of_one.items()}
        for name, of_one in recall.items()
    }


def _mean_seconds(seconds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for one in seconds:
        for stage, spent in one.items():
            total[stage] += spent
    return {stage: spent / max(1, len(seconds)) for stage, spent in total.items()}


def _percent(values: Iterable[float]) -> float:
    listed = [float(value) for value in values]
    return 100 * sum(listed) / len(listed) if listed else 0.0
