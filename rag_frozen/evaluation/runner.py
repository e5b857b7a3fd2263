"""Run a pipeline over a data set, in chunks, and score its answers.

Knows pipelines and metrics; nothing about files (``rag_frozen.evaluation.runs`` stores a run).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.evaluation.funnel import with_losses
from rag_frozen.evaluation.in_corpus import answers_in_corpus
from rag_frozen.evaluation.scoring import FINAL, KnownAnswers, ScoredAnswer, score_answer
from rag_frozen.evaluation.summary import DEPTHS, EvalResult, summarize
from rag_frozen.pipeline import Pipeline, Prepared
from rag_frozen.questions import as_questions
from rag_frozen.types import Answer

__all__ = [
    "DEPTHS",
    "ChunkDone",
    "EvalProgress",
    "EvalResult",
    "ScoredAnswer",
    "answer_chunks",
    "evaluate",
    "place_losses",
    "running_score",
]


@dataclass(frozen=True, slots=True)
class EvalProgress:
    """Questions done, of how many, and exact match so far (percent, answerable ones)."""

    done: int
    total: int
    exact_match: float


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """The answers of one chunk, scored."""

    answers: tuple[Answer, ...]
    scored: tuple[ScoredAnswer, ...]


def evaluate(
    pipeline: Pipeline,
    data: ExampleSet,
    *,
    chunk_size: int = 64,
    overlap: bool = False,
    search_corpus: bool = False,
    metrics: Sequence[str] = (),
    progress: Callable[[EvalProgress], None] = lambda progress: None,
) -> EvalResult:
    """Answer every question and score the answers, all in memory.

    Args:
        pipeline: answers.
        data: questions with answers.
        chunk_size: questions a batch.
        overlap: see :func:`answer_chunks`.
        search_corpus: see :func:`place_losses`.
        metrics: names of ``TEXT_METRICS`` to compute beside the standing ones.
        progress: is told at the beginning and after each chunk.

    Raises:
        InputError: when a question cannot be asked; before any is answered.
    """
    scored: list[ScoredAnswer] = []
    seconds = []
    patterns = any(example.patterns for example in data.examples)
    progress(EvalProgress(0, len(data.examples), 0.0))
    for chunk in answer_chunks(pipeline, data.examples, chunk_size=chunk_size, overlap=overlap):
        scored += chunk.scored
        seconds += [dict(answer.seconds) for answer in chunk.answers]
        progress(EvalProgress(len(scored), len(data.examples), running_score(scored)))
    return summarize(
        place_losses(pipeline, scored, search_corpus=search_corpus, patterns=patterns),
        data=data.name,
        data_sha256=data.sha256,
        pipeline=pipeline.name,
        seconds=seconds,
        patterns=patterns,
        metrics=metrics,
    )


def answer_chunks(
    pipeline: Pipeline,
    examples: Sequence[Example],
    *,
    chunk_size: int,
    start: int = 0,
    overlap: bool = False,
    known: KnownAnswers | None = None,
) -> Iterator[ChunkDone]:
    """Answer and score, chunk by chunk.

    Args:
        pipeline: answers.
        examples: all of them are checked first.
        chunk_size: questions a batch.
        start: the first so many are done already: a multiple of ``chunk_size``, so that the
            batches are those of an undisturbed run.
        overlap: prepare a chunk (retrieve to pack) while the one before it is read. Faster where
            the reader is on another device than the rest.
        known: what was found out before of which passages answer; what is found out is added.

    Raises:
        InputError: when a question cannot be asked; before any is answered.
    """
    as_questions([example.question for example in examples])
    chunks = [examples[at : at + chunk_size] for at in range(start, len(examples), chunk_size)]
    prepared = _prepared_ahead if overlap else _prepared
    for chunk, ready in zip(chunks, prepared(pipeline, chunks), strict=True):
        answers = pipeline.read(ready)
        scored = tuple(
            score_answer(
                pipeline.store, example, answer, offered=pipeline.rerank_depth, known=known
            )
            for example, answer in zip(chunk, answers, strict=True)
        )
        yield ChunkDone(tuple(answers), scored)


def place_losses(
    pipeline: Pipeline,
    rows: Sequence[ScoredAnswer],
    *,
    search_corpus: bool,
    patterns: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> list[ScoredAnswer]:
    """Say for each wrongly answered question which stage lost it.

    ``search_corpus`` looks through the whole corpus for answers that retrieval did not find (about
    two minutes for half a million passages); without it such a question counts as lost by
    retrieval. ``patterns`` takes answers as regular expressions. ``progress`` is told how many
    passages were looked at.
    """
    open_ones = {
        row.id: row.answers
        for row in rows
        if row.answers and row.depths and not _answer_retrieved(row)
    }
    in_corpus: dict[str, bool | None] = {}
    passages = getattr(pipeline.store, "iter_passages", None)
    if search_corpus and open_ones and passages is not None:
        in_corpus.update(
            answers_in_corpus(passages(), open_ones, patterns=patterns, progress=progress)
        )
    return with_losses(rows, in_corpus)


def running_score(rows: Sequence[ScoredAnswer]) -> float:
    """Exact match so far, in percent, over the questions with gold answers."""
    counted = [row.exact_match for row in rows if row.answers]
    return 100 * sum(counted) / max(1, len(counted))


def _answer_retrieved(row: ScoredAnswer) -> bool:
    ranks = (row.first_answering.get("retrieve"), row.first_answering.get(FINAL))
    return row.in_prompt or any(rank is not None for rank in ranks)


def _prepared(pipeline: Pipeline, chunks: Sequence[Sequence[Example]]) -> Iterator[Prepared]:
    for chunk in chunks:
        yield pipeline.prepare([example.question for example in chunk])


def _prepared_ahead(pipeline: Pipeline, chunks: Sequence[Sequence[Example]]) -> Iterator[Prepared]:
    with ThreadPoolExecutor(max_workers=1) as worker:
        asked = [[example.question for example in chunk] for chunk in chunks]
        ahead = worker.submit(pipeline.prepare, asked[0]) if asked else None
        for number in range(len(asked)):
            assert ahead is not None
            ready = ahead.result()
            if number + 1 < len(asked):
                ahead = worker.submit(pipeline.prepare, asked[number + 1])
            yield ready
