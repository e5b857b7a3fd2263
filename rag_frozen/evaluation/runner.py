"""Run a pipeline over a data set, in chunks, and score its answers.

Knows pipelines and metrics; nothing about files (``rag_frozen.evaluation.runs`` stores a result).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.evaluation.metrics import METRIC_VERSIONS, exact_match, f1, has_answer
from rag_frozen.evaluation.statistics import bootstrap_interval
from rag_frozen.pipeline import Pipeline, as_questions
from rag_frozen.types import Answer

__all__ = ["DEPTHS", "EvalProgress", "EvalResult", "ScoredAnswer", "evaluate"]

DEPTHS = (1, 5, 20, 100)
"""The k of answer-recall@k."""
_REPORTED = ("exact_match", "f1", "answer_recall")


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """An answer with its scores.

    ``first_answering`` is the rank (from 1) of the first hit that holds an answer, None where none
    does; ``in_prompt`` whether a packed passage holds one (a passage of which only the beginning
    fitted counts whole); ``gold_in_prompt`` whether the gold passage is packed, None where the
    data name none.
    """

    example: Example
    answer: Answer
    exact_match: bool
    f1: float
    first_answering: int | None
    in_prompt: bool
    gold_in_prompt: bool | None


@dataclass(frozen=True, slots=True)
class EvalProgress:
    """Questions done, of how many, and exact match so far (percent, answerable ones)."""

    done: int
    total: int
    exact_match: float


@dataclass(frozen=True, slots=True)
class EvalResult:
    """Scores in percent. Questions without an answer are counted apart and in no score.

    ``groups`` holds questions, exact match and F1 for each value of each tag; ``seconds`` the time
    a question by stage; ``recall`` answer-recall@k for the depths that the ranking reaches;
    ``gold_in_prompt`` is over the questions whose data name a gold passage, None without any.
    The interval is (nan, nan) where no question has an answer.
    """

    data: str
    data_sha256: str
    pipeline: str
    questions: int
    exact_match: float
    exact_match_interval: tuple[float, float]
    f1: float
    recall: Mapping[int, float]
    in_prompt: float
    gold_in_prompt: float | None
    groups: Mapping[str, tuple[int, float, float]]
    unanswerable: int
    mean_confidence: float
    mean_confidence_unanswerable: float
    seconds: Mapping[str, float]
    scored: tuple[ScoredAnswer, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """The scores by the names that evaluation recipes use, in percent."""
        gold = {} if self.gold_in_prompt is None else {"gold_in_prompt": self.gold_in_prompt}
        return {
            "exact_match": self.exact_match,
            "f1": self.f1,
            **{f"answer_recall@{k}": value for k, value in self.recall.items()},
            "answer_in_prompt": self.in_prompt,
            **gold,
        }

    def to_json(self) -> dict[str, object]:
        """The scores as plain JSON values, without the answers."""
        interval = [round(end, 4) for end in self.exact_match_interval] if self.questions else None
        return {
            "data": self.data,
            "data_sha256": self.data_sha256,
            "pipeline": self.pipeline,
            "questions": self.questions,
            **{name: round(value, 4) for name, value in self.metrics.items()},
            "exact_match_interval": interval,
            "groups": {
                name: {"questions": n, "exact_match": round(em, 4), "f1": round(score, 4)}
                for name, (n, em, score) in self.groups.items()
            },
            "unanswerable": self.unanswerable,
            "mean_confidence": round(self.mean_confidence, 4),
            "mean_confidence_unanswerable": round(self.mean_confidence_unanswerable, 4),
            "metric_versions": {name: METRIC_VERSIONS[name] for name in _REPORTED},
        }


def evaluate(
    pipeline: Pipeline,
    data: ExampleSet,
    *,
    chunk_size: int = 64,
    progress: Callable[[EvalProgress], None] = lambda progress: None,
) -> EvalResult:
    """Answer every question and score the answers.

    Args:
        pipeline: answers.
        data: questions with answers.
        chunk_size: questions a batch.
        progress: is told after each chunk.

    Raises:
        InputError: when a question cannot be asked; before any is answered.
    """
    as_questions([example.question for example in data.examples])
    scored: list[ScoredAnswer] = []
    for start in range(0, len(data.examples), chunk_size):
        chunk = data.examples[start : start + chunk_size]
        answers = pipeline.answer([example.question for example in chunk])
        scored += [_score(pipeline, *pair) for pair in zip(chunk, answers, strict=True)]
        counted = [row.exact_match for row in scored if row.example.answers]
        running = 100 * sum(counted) / max(1, len(counted))
        progress(EvalProgress(len(scored), len(data.examples), running))
    return _summary(pipeline, data, scored)


def _score(pipeline: Pipeline, example: Example, answer: Answer) -> ScoredAnswer:
    ids = [hit.passage_id for hit in answer.hits[: max(DEPTHS)]]
    first = None
    if example.answers:
        passages = pipeline.store.get(ids) if ids else []
        answering = (n for n, p in enumerate(passages, 1) if has_answer(p.text, example.answers))
        first = next(answering, None)
    packed = {evidence.passage.id for evidence in answer.evidence}
    gold = example.gold_passage_id
    return ScoredAnswer(
        example=example,
        answer=answer,
        exact_match=bool(example.answers) and exact_match(answer.text, example.answers),
        f1=f1(answer.text, example.answers),
        first_answering=first,
        in_prompt=any(has_answer(e.passage.text, example.answers) for e in answer.evidence),
        gold_in_prompt=None if gold is None else gold in packed,
    )


def _summary(pipeline: Pipeline, data: ExampleSet, scored: Sequence[ScoredAnswer]) -> EvalResult:
    rows = [row for row in scored if row.example.answers]
    rest = [row for row in scored if not row.example.answers]
    low, high = bootstrap_interval([float(row.exact_match) for row in rows])
    groups: dict[str, list[ScoredAnswer]] = defaultdict(list)
    for row in rows:
        for tag, value in row.example.tags:
            groups[f"{tag}: {value}"].append(row)
    golds = [row.gold_in_prompt for row in rows if row.gold_in_prompt is not None]
    deepest = max((len(row.answer.hits) for row in rows), default=0)
    seconds: dict[str, float] = defaultdict(float)
    for row in scored:
        for stage, spent in row.answer.seconds:
            seconds[stage] += spent / len(scored)
    return EvalResult(
        data=data.name,
        data_sha256=data.sha256,
        pipeline=pipeline.name,
        questions=len(rows),
        exact_match=_percent(row.exact_match for row in rows),
        exact_match_interval=(100 * low, 100 * high),
        f1=_percent(row.f1 for row in rows),
        recall={
            k: _percent(
                row.first_answering is not None and row.first_answering <= k for row in rows
            )
            for k in DEPTHS
            if k <= deepest
        },
        in_prompt=_percent(row.in_prompt for row in rows),
        gold_in_prompt=_percent(golds) if golds else None,
        groups={
            name: (len(of), _percent(r.exact_match for r in of), _percent(r.f1 for r in of))
            for name, of in sorted(groups.items())
        },
        unanswerable=len(rest),
        mean_confidence=_percent(row.answer.confidence for row in rows) / 100,
        mean_confidence_unanswerable=_percent(row.answer.confidence for row in rest) / 100,
        seconds=dict(seconds),
        scored=tuple(scored),
    )


def _percent(values: Iterable[float]) -> float:
    listed = [float(value) for value in values]
    return 100 * sum(listed) / len(listed) if listed else 0.0
