"""What the cells of a grid share, on disk: rankings, scores of pairs, answers to prompts.

Each is made once, appended batch by batch, and found again by the next process. A batch counts
whole or not at all, so that what follows is computed in the very batches of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rag_frozen.artifacts import canonical_json
from rag_frozen.artifacts.stream import RunStream
from rag_frozen.errors import ArtifactDamagedError
from rag_frozen.protocols import Reader, Reranker, Retriever
from rag_frozen.retrieval.replay import read_trec_run, trec_lines
from rag_frozen.types import Context, Generation, Hit, Passage, Question, Ranking, sort_hits

__all__ = [
    "ANSWERS",
    "RANKINGS",
    "SCORES",
    "PairScores",
    "SharedReader",
    "StoredReranker",
    "retrieve_once",
]

RANKINGS = "rankings.trec"
SCORES = "scores.jsonl"
ANSWERS = "answers.jsonl"

Told = Callable[[int], None]


def retrieve_once(
    stream: RunStream,
    questions: Sequence[Question],
    retriever: Callable[[], Retriever],
    *,
    k: int,
    chunk_size: int,
    told: Told = lambda done: None,
) -> dict[str, Ranking]:
    """Retrieve for every question whose ranking is not stored yet.

    Args:
        stream: holds ``RANKINGS``.
        questions: all of them.
        retriever: is asked for only when something is left to do.
        k: hits a question.
        chunk_size: questions a batch.
        told: how many questions are done, at the beginning and after each batch.

    Returns:
        A ranking for every question, empty where nothing was found.
    """
    if stream.done < len(questions):
        loaded = retriever()
        told(stream.done)
        for start in range(stream.done, len(questions), chunk_size):
            chunk = questions[start : start + chunk_size]
            found = loaded.retrieve(chunk, k=k)
            lines = trec_lines(
                ((question.id, r) for question, r in zip(chunk, found, strict=True)), tag="ablation"
            )
            stream.append({RANKINGS: "".join(lines)}, questions=len(chunk))
            told(stream.done)
    stored = read_trec_run(stream.path(RANKINGS))
    return {question.id: stored.get(question.id, ()) for question in questions}


class PairScores:
    """A reranker's scores of (question, passage) pairs, each computed once."""

    def __init__(self, stream: RunStream) -> None:
        """Read what is stored; ``stream`` holds ``SCORES``."""
        self._stream = stream
        self._scores: dict[str, dict[str, float]] = {}
        for line in stream.lines(SCORES):
            record = _parsed(stream, SCORES, line)
            self._scores.setdefault(str(record["id"]), {}).update(record["scores"])

    def __len__(self) -> int:
        return sum(map(len, self._scores.values()))

    def of(self, question_id: str) -> Mapping[str, float]:
        """Scores of a question's passages, by passage id."""
        return self._scores.get(question_id, {})

    def missing(
        self, questions: Sequence[Question], ids: Sequence[Sequence[str]]
    ) -> list[tuple[Question, list[str]]]:
        """Questions with passages that are not scored, and these passages' ids, each once."""
        found = []
        for question, wanted in zip(questions, ids, strict=True):
            known = self.of(question.id)
            fresh = [one for one in dict.fromkeys(wanted) if one not in known]
            if fresh:
                found.append((question, fresh))
        return found

    def score(self, reranker: Reranker, pairs: Sequence[tuple[Question, Sequence[Passage]]]) -> int:
        """Score pairs in one call and store them; return how many there were."""
        rankings = reranker.rerank(
            [question for question, _ in pairs], [passages for _, passages in pairs]
        )
        lines = []
        for (question, _), ranking in zip(pairs, rankings, strict=True):
            scores = {hit.passage_id: hit.score for hit in ranking}
            lines.append(json.dumps({"id": question.id, "scores": scores}, ensure_ascii=False))
            self._scores.setdefault(question.id, {}).update(scores)
        self._stream.append({SCORES: "".join(f"{line}\n" for line in lines)}, questions=len(pairs))
        return sum(len(passages) for _, passages in pairs)


class StoredReranker:
    """Reranks by stored scores; implements ``protocols.Reranker``."""

    def __init__(self, scores: PairScores, *, digest: str | None) -> None:
        """Take the scores, and the digest of the model that gave them."""
        self._scores = scores
        self.digest = digest

    def rerank(
        self, questions: Sequence[Question], candidates: Sequence[Sequence[Passage]]
    ) -> list[Ranking]:
        """Return each question's candidates as a ranking by the stored score, best first."""
        return [
            sort_hits(Hit(p.id, self._scores.of(question.id)[p.id]) for p in passages)
            for question, passages in zip(questions, candidates, strict=True)
        ]


class SharedReader:
    """A reader that reads a prompt once; implements ``protocols.Reader``.

    Two contexts share an answer when question, prompt and soft prompt are equal. ``asked`` and
    ``read`` count contexts.
    """

    def __init__(self, reader: Reader, stream: RunStream) -> None:
        """Take the reader, and read the stored answers; ``stream`` holds ``ANSWERS``."""
        self.reader = reader
        self._stream = stream
        self._known = {
            str(record["key"]): _generation(record)
            for record in (_parsed(stream, ANSWERS, line) for line in stream.lines(ANSWERS))
        }
        self.digest = getattr(reader, "digest", None)
        self.parameter_counts = getattr(reader, "parameter_counts", None)
        self.asked = 0
        self.read = 0

    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        """Return one generation a context, reading in one batch what was never read."""
        keys = [_key(context) for context in contexts]
        fresh = {k: c for k, c in zip(keys, contexts, strict=True) if k not in self._known}
        if fresh:
            found = self.reader.generate(list(fresh.values()))
            made = dict(zip(fresh, found, strict=True))
            lines = "".join(_line(key, generation) for key, generation in made.items())
            self._stream.append({ANSWERS: lines}, questions=len(made))
            self._known |= made
        self.asked += len(contexts)
        self.read += len(fresh)
        return [self._known[key] for key in keys]


def _key(context: Context) -> str:
    """The question's id stands in it because sampled answers are drawn by it."""
    given = [context.question.id, context.question.text, context.prompt, context.soft_prompt]
    return hashlib.sha256(canonical_json(given).encode()).hexdigest()


def _line(key: str, generation: Generation) -> str:
    logprob = generation.logprob if math.isfinite(generation.logprob) else None
    record = {
        "key": key,
        "text": generation.text,
        "logprob": logprob,
        "n_tokens": generation.n_tokens,
        "stop": generation.stop,
    }
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def _generation(record: Mapping[str, Any]) -> Generation:
    logprob = -math.inf if record["logprob"] is None else float(record["logprob"])
    return Generation(record["text"], logprob, record["n_tokens"], record["stop"])


def _parsed(stream: RunStream, name: str, line: str) -> dict[str, Any]:  # Any: JSON values
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise ArtifactDamagedError(
            f"{name} in {stream.folder} cannot be read: {error}. Remove the folder; what it held "
            "is computed again."
        ) from error
    return record
