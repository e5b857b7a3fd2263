"""Run a pipeline over a data set, in chunks, and score its answers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_frozen.artifacts import fingerprint, name_folder, write_artifact
from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.evaluation.metrics import METRIC_VERSIONS, exact_match, f1, has_answer
from rag_frozen.evaluation.statistics import bootstrap_interval
from rag_frozen.pipeline import Pipeline
from rag_frozen.retrieval.replay import write_trec_run
from rag_frozen.types import Answer

__all__ = ["DEPTHS", "EvalProgress", "EvalResult", "ScoredAnswer", "evaluate", "save_run"]

DEPTHS = (1, 5, 20, 100)
"""The k of answer-recall@k."""


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """An answer with its scores; ``first_answering`` is the rank (from 1) of the first hit that
    holds an answer, None where none does; ``in_prompt`` whether a packed passage holds one."""

    example: Example
    answer: Answer
    exact_match: bool
    f1: float
    first_answering: int | None
    in_prompt: bool


@dataclass(frozen=True, slots=True)
class EvalProgress:
    """Questions done, of how many, and exact match so far (percent, answerable ones)."""

    done: int
    total: int
    exact_match: float


@dataclass(frozen=True, slots=True)
class EvalResult:
    """Scores in percent. Questions without an answer are counted apart and in no score.

    ``groups`` holds the same for each value of each tag; ``seconds`` the time a question by stage;
    ``recall`` answer-recall@k for the depths that the ranking reaches.
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
    groups: Mapping[str, tuple[int, float, float]]
    unanswerable: int
    mean_confidence: float
    mean_confidence_unanswerable: float
    seconds: Mapping[str, float]
    scored: tuple[ScoredAnswer, ...]

    def to_json(self) -> dict[str, object]:
        """The scores as plain JSON values, without the answers."""
        return {
            "data": self.data,
            "data_sha256": self.data_sha256,
            "pipeline": self.pipeline,
            "questions": self.questions,
            "exact_match": round(self.exact_match, 4),
            "exact_match_interval": [round(x, 4) for x in self.exact_match_interval],
            "f1": round(self.f1, 4),
            **{f"answer_recall@{k}": round(value, 4) for k, value in self.recall.items()},
            "answer_in_prompt": round(self.in_prompt, 4),
            "groups": {
                name: {"questions": n, "exact_match": round(em, 4), "f1": round(score, 4)}
                for name, (n, em, score) in self.groups.items()
            },
            "unanswerable": self.unanswerable,
            "mean_confidence": round(self.mean_confidence, 4),
            "mean_confidence_unanswerable": round(self.mean_confidence_unanswerable, 4),
            "metric_versions": METRIC_VERSIONS,
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
    """
    scored: list[ScoredAnswer] = []
    for start in range(0, len(data.examples), chunk_size):
        chunk = data.examples[start : start + chunk_size]
        answers = pipeline.answer([example.question for example in chunk])
        scored += [_score(pipeline, *pair) for pair in zip(chunk, answers, strict=True)]
        counted = [row.exact_match for row in scored if row.example.answers]
        running = 100 * sum(counted) / max(1, len(counted))
        progress(EvalProgress(len(scored), len(data.examples), running))
    return _summary(pipeline, data, scored)


def save_run(result: EvalResult, pipeline: Pipeline, root: Path | None) -> Path:
    """Write a run: predictions.jsonl, metrics.json, timings.json, run.trec; return its folder."""
    inputs = {"data": result.data_sha256, **pipeline.artifacts}
    mark = fingerprint(pipeline.recipe, inputs)
    name = f"{pipeline.name}-{result.data}"
    target = name_folder(root, "run", name=name) / mark
    with write_artifact(
        target, kind="run", name=name, recipe=pipeline.recipe, inputs=inputs
    ) as draft:
        lines = [json.dumps(_row(row), ensure_ascii=False) + "\n" for row in result.scored]
        (draft / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
        metrics = json.dumps(result.to_json(), indent=2) + "\n"
        (draft / "metrics.json").write_text(metrics, encoding="utf-8")
        (draft / "timings.json").write_text(json.dumps(dict(result.seconds)) + "\n")
        write_trec_run(
            draft / "run.trec",
            [(row.example.question.id, row.answer.hits) for row in result.scored],
            tag=pipeline.name,
        )
        draft.counts["questions"] = result.questions
    return target


def _score(pipeline: Pipeline, example: Example, answer: Answer) -> ScoredAnswer:
    ids = [hit.passage_id for hit in answer.hits[: max(DEPTHS)]]
    first = None
    if example.answers:
        passages = pipeline.store.get(ids) if ids else []
        answering = (n for n, p in enumerate(passages, 1) if has_answer(p.text, example.answers))
        first = next(answering, None)
    return ScoredAnswer(
        example=example,
        answer=answer,
        exact_match=bool(example.answers) and exact_match(answer.text, example.answers),
        f1=f1(answer.text, example.answers),
        first_answering=first,
        in_prompt=any(has_answer(e.passage.text, example.answers) for e in answer.evidence),
    )


def _summary(pipeline: Pipeline, data: ExampleSet, scored: Sequence[ScoredAnswer]) -> EvalResult:
    rows = [row for row in scored if row.example.answers]
    rest = [row for row in scored if not row.example.answers]
    low, high = bootstrap_interval([float(row.exact_match) for row in rows])
    groups: dict[str, list[ScoredAnswer]] = defaultdict(list)
    for row in rows:
        for tag, value in row.example.tags:
            groups[f"{tag}: {value}"].append(row)
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


def _row(row: ScoredAnswer) -> dict[str, object]:
    return {
        "id": row.example.question.id,
        "question": row.example.question.text,
        "answers": list(row.example.answers),
        "prediction": row.answer.text,
        "confidence": round(row.answer.confidence, 6),
        "exact_match": row.exact_match,
        "f1": round(row.f1, 6),
        "first_answering": row.first_answering,
        "packed": [evidence.passage.id for evidence in row.answer.evidence],
    }
