"""Put the report together and write it beside the run's files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rag_frozen.artifacts import atomic_write_text
from rag_frozen.evaluation.calibration import area_under_risk, reliability, risk_coverage
from rag_frozen.evaluation.report.figures import Bar, Line, bars, lines
from rag_frozen.evaluation.report.numbers import (
    Group,
    answer_length,
    groups,
    packed_passages,
    question_word,
    recall_curve,
)
from rag_frozen.evaluation.scoring import FINAL, ScoredAnswer
from rag_frozen.evaluation.summary import EvalResult

__all__ = ["page_environment", "render_report", "write_report"]

_EXAMPLES = 5
_EXPLAINED = {
    "corpus": "no passage of the corpus holds an answer",
    "retrieval": "no answering passage among the first 100 hits",
    "reranking": "it fell below the depth that packing is offered",
    "packing": "it does not stand in the prompt",
    "reading": "it stands in the prompt, and the answer is wrong",
}


def write_report(path: Path, result: EvalResult, *, costs: Mapping[str, Any] | None) -> None:
    """Write ``report.html``, whole or not at all.

    Args:
        path: of the file.
        result: of a run with answers.
        costs: what ``costs.json`` holds; sections that need it are left out without it.

    Raises:
        StorageError: when it cannot be written.
    """
    atomic_write_text(path, render_report(result, costs=costs))


def render_report(
    result: EvalResult,
    *,
    costs: Mapping[str, Any] | None,
    prompts: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the page. Everything that comes from data is escaped.

    ``prompts`` are those of :func:`rag_frozen.evaluation.soft_prompts.describe_prompts`.
    """
    asked = [row for row in result.scored if row.answers]
    return (
        page_environment()
        .get_template("report.html.jinja")
        .render(
            result=result,
            tiles=_tiles(result),
            funnel=_funnel(result),
            stages=_stages(result),
            recall=_recall(result),
            breakdowns=_breakdowns(result, asked),
            calibration=_calibration(asked),
            time=_time(result),
            costs=costs,
            prompts=prompts,
            rows=_embedded([_plain(row) for row in result.scored]),
        )
    )


def page_environment() -> Environment:
    """The templates of all pages."""
    return Environment(
        loader=PackageLoader("rag_frozen.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _tiles(result: EvalResult) -> list[tuple[str, str, str, str]]:
    """(name, value, interval, note) of the scores at the top."""
    found = [
        ("exact_match", "exact match", result.exact_match, ""),
        ("f1", "F1", result.f1, ""),
    ]
    final = result.recall.get(FINAL, {})
    found += [
        (f"answer_recall@{k}", f"answer-recall@{k}", v, "final ranking") for k, v in final.items()
    ]
    found += [(name, name, value, "") for name, value in result.texts.items()]
    judged = result.relevance.get(FINAL, {})
    found += [
        (name, name, judged[name], "against qrels, final ranking")
        for name in ("ndcg@10", "mrr@10")
        if name in judged
    ]
    if result.recall:
        found.append(("answer_in_prompt", "answer in the prompt", result.in_prompt, ""))
    if result.recall and result.gold_in_prompt is not None:
        found.append(("gold_in_prompt", "gold passage in the prompt", result.gold_in_prompt, ""))
    return [
        (shown, f"{value:.1f}", _interval(result, name), note) for name, shown, value, note in found
    ]


def _interval(result: EvalResult, name: str) -> str:
    low, high = result.intervals.get(name, (math.nan, math.nan))
    return "" if math.isnan(low) else f"{low:.1f} to {high:.1f}"


def _funnel(result: EvalResult) -> Markup | None:
    total = max(1, result.questions)
    rows = [
        Bar(stage.stage, stage.passed / total, f"{stage.passed:,} left, −{stage.lost:,}")
        for stage in result.funnel
    ]
    return bars(rows, title="Questions that pass each stage") if rows else None


def _stages(result: EvalResult) -> list[dict[str, Any]]:
    """What each stage loses, with the most confident wrong answers among it."""
    found = []
    for stage in result.funnel:
        lost = [row for row in result.scored if row.lost_at == stage.stage]
        lost.sort(key=lambda row: (-row.confidence, row.id))
        found.append(
            {
                "name": stage.stage,
                "what": _EXPLAINED[stage.stage],
                "lost": stage.lost,
                "bound": stage.exact_match_if_lossless,
                "examples": lost[:_EXAMPLES],
            }
        )
    return found


def _recall(result: EvalResult) -> Markup | None:
    curves = []
    for name in result.recall:
        points = list(recall_curve(result.scored, name))
        if points:
            curves.append(Line(name, [(math.log10(k) / 2, share) for k, share in points]))
    if not curves:
        return None
    return lines(
        curves,
        title="Answer-recall@k of each ranking",
        x_ticks=[(math.log10(k) / 2, str(k)) for k in (1, 2, 5, 10, 20, 50, 100)],
        y_ticks=[(y / 5, f"{20 * y} %") for y in range(6)],
        x_label="k (logarithmic)",
    )


def _breakdowns(result: EvalResult, asked: Sequence[ScoredAnswer]) -> list[tuple[str, Markup]]:
    found = [
        ("by question word", groups(asked, lambda row: question_word(row.question))),
        ("by length of the gold answer", groups(asked, answer_length)),
        ("by packed passages", groups(asked, packed_passages)),
    ]
    for tag in sorted({tag for row in asked for tag in row.tags}):
        found.append((f"by {tag}", groups(asked, lambda row, t=tag: row.tags.get(t, "none"))))  # type: ignore[misc]
    return [(name, _group_bars(name, rows)) for name, rows in found if rows]


def _group_bars(name: str, rows: Sequence[Group]) -> Markup:
    return bars(
        [Bar(label, share / 100, f"{share:.1f}  of {n:,}") for label, n, share in rows],
        title=f"Exact match {name}",
    )


def _calibration(asked: Sequence[ScoredAnswer]) -> dict[str, Any] | None:
    if not asked:
        return None
    confidences = [row.confidence for row in asked]
    right = [row.exact_match for row in asked]
    made = reliability(confidences, right)
    error = sum(one.n * abs(one.confidence - one.right) for one in made) / len(asked)
    ticks = [(x / 5, f"{x / 5:.1f}") for x in range(6)]
    percent = [(y / 5, f"{20 * y} %") for y in range(6)]
    return {
        "error": 100 * error,
        "area": 100 * area_under_risk(confidences, right),
        "reliability": lines(
            [Line("share right", [(one.confidence, one.right) for one in made])],
            title="Share of right answers by confidence",
            x_ticks=ticks,
            y_ticks=percent,
            x_label="confidence",
            diagonal=True,
        ),
        "risk": lines(
            [Line("share wrong among the answers given", risk_coverage(confidences, right))],
            title="Risk by coverage",
            x_ticks=ticks,
            y_ticks=percent,
            x_label="share of questions answered, the most confident first",
        ),
    }


def _time(result: EvalResult) -> Markup | None:
    total = sum(result.seconds.values())
    if not total:
        return None
    rows = [
        Bar(stage, spent / total, f"{1000 * spent:.1f} ms, {100 * spent / total:.0f} %")
        for stage, spent in result.seconds.items()
    ]
    return bars(rows, title="Time a question by stage")


def _plain(row: ScoredAnswer) -> dict[str, Any]:
    return row.to_json()


def _embedded(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """JSON that cannot end the script that it stands in."""
    text = json.dumps(rows, ensure_ascii=False, allow_nan=False)
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(safe.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))
