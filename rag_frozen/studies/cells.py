"""The cells of a study: what one method with one seed wrote on one evaluation, stored and scored.

A cell is a file that is named by everything that could change what it holds.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_frozen.artifacts.writing import atomic_write_text
from rag_frozen.evaluation.metrics import exact_match, f1
from rag_frozen.models.parameters import parameter_counts
from rag_frozen.studies.bench import Bench
from rag_frozen.studies.evaluations import Evaluation, Pieces
from rag_frozen.studies.methods import (
    Conditioned,
    answer,
    perplexity,
    voted,
    with_shots,
    with_text,
)
from rag_frozen.studies.settings import (
    EnsembleMethod,
    FewShotMethod,
    Method,
    MostFrequentMethod,
    WrittenMethod,
)
from rag_frozen.studies.table import Measured
from rag_frozen.types import Context, Generation

__all__ = ["Run", "measured_answers", "measured_perplexity", "measured_votes"]

_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Run:
    """One method with one seed; ``identity`` names what was trained, or what is written, and
    ``load`` gives what answers, asked only where a cell is not stored yet."""

    method: Method
    seed: int | None
    identity: str
    trained_parameters: int
    load: Callable[[], Conditioned]
    seconds_trained: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Answers:
    generations: list[Generation]
    seconds: float
    note: str


def measured_answers(bench: Bench, run: Run, evaluation: Evaluation) -> Measured:
    """A run's answers to an evaluation, stored or fresh, with their scores."""
    if isinstance(run.method, MostFrequentMethod):
        return _scored(bench, run, evaluation, _most_frequent(bench, len(evaluation.golds)))
    return _scored(bench, run, evaluation, _answers(bench, run, evaluation))


def measured_votes(
    bench: Bench, method: EnsembleMethod, members: Sequence[Run], evaluation: Evaluation
) -> Measured:
    """The vote of the members' answers. Its time is theirs together: N rows a question."""
    answers = [_answers(bench, member, evaluation) for member in members]
    found = _Answers(
        voted([one.generations for one in answers], method=method.vote),
        sum(one.seconds for one in answers),
        f"{len(members)} members",
    )
    together = Run(
        method,
        None,
        method.name,
        trained_parameters=sum(member.trained_parameters for member in members),
        load=members[0].load,
        seconds_trained=sum(member.seconds_trained for member in members),
    )
    return _scored(bench, together, evaluation, found)


def measured_perplexity(bench: Bench, run: Run, pieces: Pieces) -> Measured:
    """How likely a run finds running text."""
    stored = _file(bench, run, pieces.name, pieces.identity)
    if not stored.exists():
        bench.benches.tell(f"{_where(bench)}: {_who(run)} on {pieces.name}")
        value, means = perplexity(run.load(), pieces.sources, pieces.targets)
        atomic_write_text(stored, json.dumps({"perplexity": value, "logprobs": means}) + "\n")
    found = json.loads(stored.read_text(encoding="utf-8"))
    return Measured(
        reader=bench.reader_name,
        task=bench.task.name,
        evaluation=pieces.name,
        method=run.method.name,
        seed=run.seed,
        exact_match=(),
        f1=(),
        seconds=0.0,
        seconds_trained=run.seconds_trained,
        trained_parameters=run.trained_parameters,
        reader_parameters=parameter_counts(bench.reader.model)[0],
        perplexity=found["perplexity"],
        logprobs=tuple(found["logprobs"]),
    )


def _answers(bench: Bench, run: Run, evaluation: Evaluation) -> _Answers:
    """The stored answers of a cell, or fresh ones, which are stored."""
    stored = _file(bench, run, evaluation.name, evaluation.identity)
    if not stored.exists():
        contexts, note = _conditioned_contexts(bench, run.method, evaluation)
        bench.benches.tell(f"{_where(bench)}: {_who(run)} on {evaluation.name}")
        with_what = run.load()
        began = time.perf_counter()
        generations = answer(with_what, contexts)
        row = {
            "seconds": time.perf_counter() - began,
            "note": note or run.note,
            "answers": [[g.text, g.logprob, g.n_tokens, g.stop] for g in generations],
        }
        atomic_write_text(stored, json.dumps(row, ensure_ascii=False) + "\n")
    found = json.loads(stored.read_text(encoding="utf-8"))
    return _Answers(
        [Generation(*fields) for fields in found["answers"]], found["seconds"], found["note"]
    )


def _most_frequent(bench: Bench, n_answers: int) -> _Answers:
    """The training rows' most frequent target, the first of equals, as sure as it is frequent."""
    counts = Counter(row.target for row in bench.shots)
    [(target, count)] = counts.most_common(1)
    one = Generation(target, math.log(count / counts.total()), 0, "end")
    return _Answers([one] * n_answers, 0.0, repr(target))


def _file(bench: Bench, run: Run, name: str, identity: str) -> Path:
    described = (_FORMAT, bench.data_identity, run.identity, identity)
    sha = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
    seed = "" if run.seed is None else f"-{run.seed}"
    return bench.benches.folder / "answers" / f"{name}-{run.method.name}{seed}-{sha}.json"


def _where(bench: Bench) -> str:
    return f"{bench.reader_name}, {bench.task.name}"


def _who(run: Run) -> str:
    return run.method.name if run.seed is None else f"{run.method.name}, seed {run.seed},"


def _conditioned_contexts(
    bench: Bench, method: Method, evaluation: Evaluation
) -> tuple[Sequence[Context], str]:
    contexts = evaluation.contexts()
    if isinstance(method, WrittenMethod):
        text, score = _best_text(bench, bench.task.texts or method.texts)
        return with_text(contexts, text), f"{text!r}, validation exact match {score:.1f}"
    if isinstance(method, FewShotMethod):
        made = with_shots(
            contexts,
            bench.shots[: method.shots],
            reader=bench.reader,
            window=bench.reader.window,
            answer_tokens=bench.settings.decoding.max_new_tokens,
        )
        return made, f"up to {method.shots} shots"
    return contexts, ""


def _best_text(bench: Bench, texts: Sequence[str]) -> tuple[str, float]:
    """The written prompt that answers the most validation rows, the first of equals.

    Each text's share of right answers is stored.
    """
    rows = bench.rows.validation
    best = ("", -1.0)
    for text in texts:
        sha = hashlib.sha256(f"{bench.data_identity}:{text}".encode()).hexdigest()[:16]
        stored = bench.benches.folder / "validation" / f"text-{sha}.json"
        if not stored.exists():
            bench.benches.tell(f"{_where(bench)}: trying {text!r}")
            contexts = with_text([row.context for row in rows], text)
            written = answer(Conditioned(bench.reader, None), contexts)
            right = sum(
                exact_match(generation.text, row.answers)
                for generation, row in zip(written, rows, strict=True)
            )
            found = {"text": text, "exact_match": 100 * right / len(rows)}
            atomic_write_text(stored, json.dumps(found, ensure_ascii=False) + "\n")
        score = float(json.loads(stored.read_text(encoding="utf-8"))["exact_match"])
        if score > best[1]:
            best = (text, score)
    return best


def _scored(bench: Bench, run: Run, evaluation: Evaluation, found: _Answers) -> Measured:
    pairs = list(zip(found.generations, evaluation.golds, strict=True))
    return Measured(
        reader=bench.reader_name,
        task=bench.task.name,
        evaluation=evaluation.name,
        method=run.method.name,
        seed=run.seed,
        exact_match=tuple(float(exact_match(g.text, golds)) for g, golds in pairs),
        f1=tuple(f1(g.text, golds) for g, golds in pairs),
        seconds=found.seconds,
        seconds_trained=run.seconds_trained,
        trained_parameters=run.trained_parameters,
        reader_parameters=parameter_counts(bench.reader.model)[0],
        note=found.note,
        confidences=tuple(math.exp(min(g.logprob, 0.0)) for g in found.generations),
    )
