"""The scores of an evaluation as a table: for terminals (rich) and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from rag_frozen.evaluation.scoring import FINAL
from rag_frozen.evaluation.summary import EvalResult

__all__ = ["footnotes", "markdown_report", "score_table"]

_COLUMNS = ("questions", "n", "exact match", "F1")


def score_table(result: EvalResult) -> Table:
    """A table of all questions with an answer and of each group."""
    table = Table(title=Text(_title(result)))
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == _COLUMNS[0] else "right")
    for number, row in enumerate(_rows(result)):
        table.add_row(*(Text(cell, style="" if number else "bold") for cell in row))
    return table


def markdown_report(result: EvalResult) -> str:
    """The same table and its footnotes as Markdown."""
    lines = [f"# {_title(result)}", "", _line(_COLUMNS), "|---|--:|--:|--:|"]
    lines += [_line(row) for row in _rows(result)]
    lines += [f"\n{note}" for note in footnotes(result)]
    return "\n".join(lines) + "\n"


def footnotes(result: EvalResult) -> list[str]:
    """What stands below the table: recall, the error funnel, questions without an answer, time."""
    notes = [*_recall_notes(result), *_metric_notes(result)]
    lost = [f"{stage.stage} {stage.lost}" for stage in result.funnel]
    if result.answered and lost:
        notes.append(f"wrongly answered questions, by the stage that lost them: {', '.join(lost)}")
    if result.answered and result.unanswerable:
        notes.append(
            f"mean confidence {result.mean_confidence:.2f}; on the {result.unanswerable} questions "
            f"without an answer in the corpus {result.mean_confidence_unanswerable:.2f}"
        )
    stages = "  ".join(f"{stage} {1000 * spent:.1f}" for stage, spent in result.seconds.items())
    if stages:
        notes.append(f"milliseconds a question: {stages}")
    return notes


def _recall_notes(result: EvalResult) -> Iterator[str]:
    for name, of_one in result.recall.items():
        recall = "  ".join(f"@{k} {value:.1f}" for k, value in of_one.items())
        note = f"answer-recall, {name}: {recall}"
        if name == FINAL and result.answered:
            note += f"; answer in the prompt {result.in_prompt:.1f}"
            if result.gold_in_prompt is not None:
                note += f", gold passage {result.gold_in_prompt:.1f}"
        yield note


def _metric_notes(result: EvalResult) -> Iterator[str]:
    """Scores against qrels, and what the recipe asks for."""
    for name, scores in result.relevance.items():
        told = "  ".join(f"{measure} {value:.1f}" for measure, value in scores.items())
        yield f"against qrels, {name}: {told}"
    if result.texts:
        yield "  ".join(f"{name} {value:.1f}" for name, value in result.texts.items())


def _title(result: EvalResult) -> str:
    return f"{result.pipeline} on {result.data}"


def _rows(result: EvalResult) -> Iterator[tuple[str, str, str, str]]:
    low, high = result.exact_match_interval
    if not result.answered:
        yield "all with an answer", str(result.questions), "-", "-"
        return
    exact = f"{result.exact_match:.1f}  [{low:.1f}, {high:.1f}]" if result.questions else "-"
    f1_low, f1_high = result.intervals.get("f1", (math.nan, math.nan))
    f1 = f"{result.f1:.1f}  [{f1_low:.1f}, {f1_high:.1f}]" if result.questions else "-"
    yield "all with an answer", str(result.questions), exact, f1
    for name, (count, matched, score) in result.groups.items():
        yield name, str(count), f"{matched:.1f}", f"{score:.1f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
