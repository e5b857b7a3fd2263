"""Score one answer; the result is plain data, stored as a line of ``predictions.jsonl``.

Knows answers and gold answers; nothing about pipelines, files or how scores are summed up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from rag_frozen.evaluation.examples import Example
from rag_frozen.evaluation.metrics import (
    contains_answer,
    exact_match,
    f1,
    has_answer,
    has_pattern,
    regex_match,
)
from rag_frozen.evaluation.relevance import relevance_scores
from rag_frozen.protocols import PassageStore
from rag_frozen.types import Answer, Evidence, Ranking, ReadAlone

__all__ = [
    "DEEPEST",
    "FINAL",
    "KnownAnswers",
    "OwnAnswer",
    "PackedPassage",
    "ScoredAnswer",
    "Stage",
    "score_answer",
]

DEEPEST = 100
"""Hits of each ranking that are looked at."""
FINAL = "final"
"""The name of the ranking that packing was given."""

Rule = Literal["tokens", "substring"]
"""How an answer is looked for in a passage: ``metrics.has_answer`` (of patterns ``has_pattern``) or
``metrics.contains_answer``."""

KnownAnswers = dict[str, dict[tuple[Rule, str], bool]]
"""By question id, rule and passage id: whether the passage holds a gold answer."""

Stage = Literal["corpus", "retrieval", "reranking", "packing", "reading"]
"""Where a question is lost: see :mod:`rag_frozen.evaluation.funnel`."""


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """What the reader wrote for one passage alone, its log-probability (None where it has none),
    and what the passage counted beside the others, in [0, 1]."""

    text: str
    logprob: float | None
    prior: float


@dataclass(frozen=True, slots=True)
class PackedPassage:
    """A passage that the reader was given.

    ``offsets`` are the half-open character ranges of ``text`` at which the prediction stands;
    ``has_answer`` says whether a gold answer stands in it; ``own`` is the answer to this passage
    alone, where passages were read one by one.
    """

    id: str
    title: str
    text: str
    scores: Mapping[str, float]
    offsets: tuple[tuple[int, int], ...]
    has_answer: bool
    own: OwnAnswer | None = None


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """A question, what was answered, and how good that is.

    ``first_answering`` holds for each ranking the rank (from 1) of its first passage with a gold
    answer among the first ``DEEPEST``, None where there is none; ``depths`` how many were looked
    at. ``first_containing`` holds the same ranks by the substring rule; it is empty where answers
    are patterns. ``reranked`` is how many hits packing was offered. ``in_prompt`` says whether a
    packed passage holds a gold answer (one of which only the beginning fitted counts whole),
    ``gold_in_prompt`` whether the gold passage is packed (None where the data name none),
    ``in_corpus`` whether any passage of the corpus holds one (None until that was asked).
    ``prompt_tokens`` and ``answer_tokens`` are those of all prompts that were read.
    ``lost_at`` is None for a right answer and for a question without gold answers. ``relevance``
    holds each ranking's scores against the qrels, in [0, 1], where there are any.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    tags: Mapping[str, str]
    prediction: str
    confidence: float
    logprob: float
    answer_tokens: int
    prompt_tokens: int
    exact_match: bool
    f1: float
    first_answering: Mapping[str, int | None]
    depths: Mapping[str, int]
    reranked: int
    evidence: tuple[PackedPassage, ...]
    dropped: Mapping[str, int]
    in_prompt: bool
    gold_in_prompt: bool | None
    in_corpus: bool | None = None
    lost_at: Stage | None = None
    relevance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    first_containing: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def readings(self) -> int:
        """How often the reader read for this answer: for each passage, where it read them alone."""
        return max(1, sum(one.own is not None for one in self.evidence))

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """The fields as plain JSON values, scores with six digits."""
        values = asdict(self)
        for name in ("confidence", "logprob", "f1"):
            value = values[name]
            values[name] = round(value, 6) if math.isfinite(value) else None
        for one in values["evidence"]:
            if one["own"] is None:
                del one["own"]
        values["relevance"] = {
            ranking: {name: round(value, 6) for name, value in scores.items()}
            for ranking, scores in self.relevance.items()
        }
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ScoredAnswer:
        """The inverse of :meth:`to_json`; a missing field raises ``KeyError`` or ``TypeError``."""
        evidence = tuple(_passage(one) for one in values["evidence"])
        logprob = -math.inf if values["logprob"] is None else values["logprob"]
        changed = {"logprob": logprob, "answers": tuple(values["answers"]), "evidence": evidence}
        return cls(**{**values, **changed})

    def rounded(self) -> ScoredAnswer:
        """What reading the stored line gives back: a resumed run sums up the same numbers."""
        return ScoredAnswer.from_json(self.to_json())

    def lost(self, stage: Stage | None, *, in_corpus: bool | None) -> ScoredAnswer:
        """The same with what is known only at the end of a run."""
        return replace(self, lost_at=stage, in_corpus=in_corpus)


def score_answer(
    store: PassageStore,
    example: Example,
    answer: Answer,
    *,
    offered: int,
    known: KnownAnswers | None = None,
) -> ScoredAnswer:
    """Compare an answer with the gold answers.

    Args:
        store: gives the texts of the hits.
        example: the question with its gold answers.
        answer: the pipeline's.
        offered: so many of the final ranking's hits were offered to packing.
        known: what was found out before; what is found out here is added to it.
    """
    rankings = {**dict(answer.rankings), FINAL: answer.hits}
    if not answer.hits:
        rankings = {}
    answering = _Answering(
        store, example, {} if known is None else known.setdefault(example.question.id, {})
    )
    packed = tuple(_packed(evidence, example) for evidence in answer.evidence)
    gold = example.gold_passage_id
    context, generation = answer.context, answer.generation
    return ScoredAnswer(
        id=example.question.id,
        question=example.question.text,
        answers=example.answers,
        tags=dict(example.tags),
        prediction=answer.text,
        confidence=answer.confidence,
        logprob=generation.logprob if generation else 0.0,
        answer_tokens=generation.n_tokens if generation else 0,
        prompt_tokens=context.n_tokens if context else 0,
        exact_match=bool(example.answers) and _right(answer.text, example),
        f1=f1(answer.text, example.answers),
        first_answering={name: answering.first(ranking) for name, ranking in rankings.items()},
        first_containing={}
        if example.patterns
        else {name: answering.first(one, rule="substring") for name, one in rankings.items()},
        depths={name: len(ranking[:DEEPEST]) for name, ranking in rankings.items()},
        reranked=min(offered, len(answer.hits)),
        evidence=packed,
        dropped=dict(sorted(Counter(one.reason for one in context.dropped).items()))
        if context
        else {},
        in_prompt=any(one.has_answer for one in packed),
        gold_in_prompt=None if gold is None else any(one.id == gold for one in packed),
        relevance={
            name: scores
            for name, ranking in rankings.items()
            if (scores := relevance_scores(ranking[:DEEPEST], example.judged))
        },
    ).rounded()


def _passage(values: Mapping[str, Any]) -> PackedPassage:
    own = values.get("own")
    changed = {
        "offsets": tuple(map(tuple, values["offsets"])),
        "own": None if own is None else OwnAnswer(**own),
    }
    return PackedPassage(**{**values, **changed})


def _right(prediction: str, example: Example) -> bool:
    match = regex_match if example.patterns else exact_match
    return match(prediction, example.answers)


def _answers(text: str, example: Example, *, rule: Rule = "tokens") -> bool:
    if rule == "substring":
        return contains_answer(text, example.answers)
    find = has_pattern if example.patterns else has_answer
    return find(text, example.answers)


def _packed(evidence: Evidence, example: Example) -> PackedPassage:
    return PackedPassage(
        id=evidence.passage.id,
        title=evidence.passage.title,
        text=evidence.passage.text,
        scores=dict(evidence.scores),
        offsets=evidence.offsets,
        has_answer=_answers(evidence.passage.text, example),
        own=None if evidence.own is None else _own(evidence.own),
    )


def _own(read: ReadAlone) -> OwnAnswer:
    logprob = read.generation.logprob
    return OwnAnswer(
        read.generation.text,
        round(logprob, 6) if math.isfinite(logprob) else None,
        round(math.exp(read.logprior), 6),
    )


_FETCHED_AT_ONCE = 10


class _Answering:
    """Finds the first answering hit of rankings that share most of their passages.

    Texts are fetched a few at a time: most questions need the first few alone.
    """

    def __init__(
        self, store: PassageStore, example: Example, known: dict[tuple[Rule, str], bool]
    ) -> None:
        self._store = store
        self._example = example
        self._known = known
        self._texts: dict[str, str] = {}

    def first(self, ranking: Ranking, *, rule: Rule = "tokens") -> int | None:
        if not self._example.answers:
            return None
        ids = [hit.passage_id for hit in ranking[:DEEPEST]]
        for at, passage_id in enumerate(ids):
            if (rule, passage_id) not in self._known:
                text = self._text(ids, at)
                self._known[rule, passage_id] = _answers(text, self._example, rule=rule)
            if self._known[rule, passage_id]:
                return at + 1
        return None

    def _text(self, ids: Sequence[str], at: int) -> str:
        if ids[at] not in self._texts:
            passages = self._store.get(ids[at : at + _FETCHED_AT_ONCE])
            self._texts |= {passage.id: passage.text for passage in passages}
        return self._texts[ids[at]]
