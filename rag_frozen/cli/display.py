"""How answers, builds and scores look in a terminal and as JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rag_frozen.types import Answer, Evidence

if TYPE_CHECKING:
    from rag_frozen.evaluation.runner import EvalResult
    from rag_frozen.indexing.build import BuiltIndex
    from rag_frozen.indexing.plan import IndexPlan

__all__ = [
    "answer_json",
    "built_json",
    "print_answer",
    "print_built",
    "print_plan",
    "print_result",
]


def print_answer(answer: Answer, *, console: Console | None = None) -> None:
    """Show an answer, its confidence, its evidence with the answer marked, and its seconds."""
    console = console or Console(highlight=False)
    console.print(Text(answer.text or "(no answer)", style="bold green"), end="")
    console.print(f"   confidence {answer.confidence:.2f}")
    for evidence in answer.evidence:
        scores = "  ".join(f"{stage} {score:.3g}" for stage, score in evidence.scores)
        console.print(Text(f"  {evidence.passage.title}", style="bold"), end="")
        console.print(Text(f"  [{evidence.passage.id}]  {scores}", style="dim"))
        console.print(Padding(_marked(evidence, console.is_terminal), (0, 0, 0, 4)))
    total = sum(spent for _, spent in answer.seconds)
    stages = "  ".join(f"{stage} {1000 * spent:.0f} ms" for stage, spent in answer.seconds)
    console.print(Text(f"  {stages}  = {total:.2f} s", style="dim"))


def _marked(evidence: Evidence, terminal: bool) -> Text:
    text, at = Text(), 0
    for start, end in evidence.offsets:
        text.append(evidence.passage.text[at:start])
        found = evidence.passage.text[start:end]
        text.append(found if terminal else f"«{found}»", style="bold reverse")
        at = end
    text.append(evidence.passage.text[at:])
    return text


def answer_json(answer: Answer) -> dict[str, Any]:  # Any: JSON values
    """An answer as plain JSON values."""
    return {
        "question": answer.question.text,
        "answer": answer.text,
        "confidence": answer.confidence,
        "evidence": [
            {
                "id": evidence.passage.id,
                "title": evidence.passage.title,
                "text": evidence.passage.text,
                "scores": dict(evidence.scores),
                "offsets": [list(pair) for pair in evidence.offsets],
            }
            for evidence in answer.evidence
        ],
        "seconds": dict(answer.seconds),
    }


def built_json(built: BuiltIndex) -> dict[str, Any]:
    """A built index as plain JSON values."""
    return {
        "name": built.name,
        "parts": [
            {
                "role": part.role,
                "folder": str(part.folder),
                "passages": part.n_passages,
                "bytes": part.size,
                "seconds": round(part.seconds, 3),
                "reused": part.reused,
            }
            for part in built.parts
        ],
    }


def print_built(built: BuiltIndex) -> None:
    """One line a part: what, how much, how long, where."""
    for part in built.parts:
        took = "was there already" if part.reused else f"built in {part.seconds:.1f} s"
        size = f"{part.size / 2**20:,.1f} MiB"
        print(f"{part.role:>7}: {part.n_passages:,} passages, {size}, {took}: {part.folder}")


def print_plan(plan: IndexPlan) -> None:
    """A table of what a build will take."""
    table = Table(title=f"{plan.name}: {plan.n_passages:,} passages ({plan.basis})")
    for column in ("part", "disk", "time"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for step in plan.steps:
        table.add_row(step.part, f"{step.disk_bytes / 2**20:,.1f} MiB", f"{step.seconds:,.1f} s")
    Console(highlight=False).print(table)
    print(f"free on the disk: {plan.free_bytes / 2**30:,.1f} GiB")
    if not plan.fits:
        print("This does not fit on the disk. Choose another folder with --root.", file=sys.stderr)


def print_result(result: EvalResult, *, console: Console | None = None) -> None:
    """The scores of an evaluation as a table, recall and time below it."""
    console = console or Console(highlight=False)
    table = Table(title=f"{result.pipeline} on {result.data}")
    for column in ("questions", "n", "exact match", "F1"):
        table.add_column(column, justify="left" if column == "questions" else "right")
    low, high = result.exact_match_interval
    table.add_row(
        Text("all with an answer", style="bold"),
        str(result.questions),
        Text(f"{result.exact_match:.1f}  [{low:.1f}, {high:.1f}]", style="bold"),
        Text(f"{result.f1:.1f}", style="bold"),
    )
    for name, (count, exact, score) in result.groups.items():
        table.add_row(name, str(count), f"{exact:.1f}", f"{score:.1f}")
    console.print(table)
    recall = "  ".join(f"@{k} {value:.1f}" for k, value in result.recall.items())
    if recall:
        console.print(f"answer-recall {recall}; answer in the prompt {result.in_prompt:.1f}")
    if result.unanswerable:
        console.print(
            f"mean confidence {result.mean_confidence:.2f}; on the {result.unanswerable} questions "
            f"without an answer in the corpus {result.mean_confidence_unanswerable:.2f}"
        )
    stages = "  ".join(f"{stage} {1000 * spent:.1f}" for stage, spent in result.seconds.items())
    console.print(f"milliseconds a question: {stages}")
