"""How answers, builds and scores look in a terminal and as JSON."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rag_frozen.types import Answer, Evidence, ReadAlone

if TYPE_CHECKING:
    from rag_frozen.corpus.build import CorpusArtifact
    from rag_frozen.evaluation.runner import EvalResult
    from rag_frozen.indexing.parts import BuiltIndex
    from rag_frozen.indexing.plan import IndexPlan

__all__ = [
    "answer_json",
    "built_json",
    "corpus_json",
    "print_answer",
    "print_built",
    "print_plan",
    "print_published",
    "print_result",
]

_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")


def print_answer(answer: Answer, *, console: Console | None = None) -> None:
    """Show an answer, its confidence, its evidence with the answer marked, and its seconds."""
    console = console or Console(highlight=False)
    console.print(Text(_printable(answer.text) or "(no answer)", style="bold green"), end="")
    console.print(f"   confidence {answer.confidence:.2f}")
    for evidence in answer.evidence:
        scores = "  ".join(f"{stage} {score:.3g}" for stage, score in evidence.scores)
        console.print(Text(f"  {_printable(evidence.passage.title)}", style="bold"), end="")
        console.print(Text(f"  [{_printable(evidence.passage.id)}]  {scores}", style="dim"))
        if evidence.own is not None:
            console.print(Text(f"    {_own(evidence.own)}", style="dim"))
        styled = console.is_terminal and not console.is_dumb_terminal
        console.print(Padding(_marked(evidence, styled), (0, 0, 0, 4)))
    total = sum(spent for _, spent in answer.seconds)
    stages = "  ".join(f"{stage} {1000 * spent:.0f} ms" for stage, spent in answer.seconds)
    console.print(Text(f"  {stages}  = {total:.2f} s", style="dim"))


def _own(read: ReadAlone) -> str:
    said = _printable(read.generation.text) or "(no answer)"
    return (
        f"alone: {said}   log-probability {read.generation.logprob:.2f}   "
        f"counts {math.exp(read.logprior):.2f}"
    )


def _marked(evidence: Evidence, styled: bool) -> Text:
    """The passage with the answer reversed, or between « and » where nothing can be styled."""
    passage = _printable(evidence.passage.text)
    text, at = Text(), 0
    for start, end in evidence.offsets:
        text.append(passage[at:start])
        found = passage[start:end]
        text.append(found if styled else f"«{found}»", style="bold reverse")
        at = end
    text.append(passage[at:])
    return text


def _printable(text: str) -> str:
    """Put a space for each control character, so that no text of a corpus steers the terminal.

    >>> _printable("a\\x1b[2Jb\\n")
    'a [2Jb '
    """
    return text.translate(_CONTROLS)


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
                **({} if evidence.own is None else {"alone": _own_json(evidence.own)}),
            }
            for evidence in answer.evidence
        ],
        "seconds": dict(answer.seconds),
    }


def _own_json(read: ReadAlone) -> dict[str, Any]:
    logprob = read.generation.logprob
    return {
        "answer": read.generation.text,
        "logprob": logprob if math.isfinite(logprob) else None,
        "prior": math.exp(read.logprior),
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
                "segments": part.segments,
                "bytes": part.size,
                "seconds": round(part.seconds, 3),
                "reused": part.reused,
            }
            for part in built.parts
        ],
    }


def corpus_json(built: CorpusArtifact) -> dict[str, Any]:
    """A built corpus, and what came of reading its files, as plain JSON values."""
    report = built.report
    return {
        "name": built.manifest.name,
        "fingerprint": built.manifest.fingerprint,
        "folder": str(built.folder),
        "passages": report.kept,
        "left_out": report.malformed,
        "reasons": dict(report.reasons),
        "reused": built.reused,
    }


def print_built(built: BuiltIndex) -> None:
    """One line a part: what, how much, how long, where."""
    for part in built.parts:
        took = "was there already" if part.reused else f"built in {part.seconds:.1f} s"
        size = f"{part.size / 2**20:,.1f} MiB"
        print(f"{part.role:>7}: {part.n_passages:,} passages, {size}, {took}: {part.folder}")


def print_plan(plan: IndexPlan) -> None:
    """Tables of what a build will take, and of what each kind of dense index would."""
    console = Console(highlight=False)
    table = Table(title=f"{plan.name}: {plan.n_passages:,} passages ({plan.basis})")
    for column in ("part", "disk", "time", "memory while building"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for step in plan.steps:
        table.add_row(
            step.part, _mib(step.disk_bytes), f"{step.seconds:,.1f} s", _mib(step.memory_bytes)
        )
    console.print(table)
    if plan.kinds:
        served = Table(title="kinds of dense indexes when they serve")
        columns = (
            "kind", "disk", "own memory", "mapped files", "search built in", "and memory",
            "fits here",
        )  # fmt: skip
        for column in columns:
            served.add_column(column, justify="left" if column == "kind" else "right")
        for kind in plan.kinds:
            name = f"{kind.kind} (this recipe)" if kind.kind == plan.chosen_kind else kind.kind
            fits = "yes" if kind.fits else "no"
            sizes = [_mib(size) for size in (kind.disk, kind.own, kind.mapped)]
            served.add_row(name, *sizes, f"{kind.build_seconds:,.1f} s", _mib(kind.building), fits)
        console.print(served)
    free, memory = plan.free_bytes / 2**30, plan.memory_bytes / 2**30
    print(f"free on the disk: {free:,.1f} GiB; memory of this machine: {memory:,.1f} GiB")
    if not plan.fits:
        others = [kind.kind for kind in plan.kinds if kind.fits]
        also = f", or another dense.kind: {', '.join(others)}" if others else ""
        print(f"This does not fit. Choose a larger disk with --root{also}.", file=sys.stderr)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def print_result(result: EvalResult, *, console: Console | None = None) -> None:
    """The scores of an evaluation as a table, recall and time below it."""
    from rag_frozen.evaluation.table import footnotes, score_table

    console = console or Console(highlight=False)
    console.print(score_table(result))
    for note in footnotes(result):
        console.print(Text(note))


def print_published(published: Mapping[str, Mapping[str, float]]) -> None:
    """Others' scores by metric, one line each; nothing where a recipe names none."""
    for metric, scores in published.items():
        if scores:
            print(f"published {metric}: {'  '.join(f'{k} {v}' for k, v in scores.items())}")
