"""The main path: retrieve, fuse, fetch, rerank, pack, condition, generate.

    question ─ retrieve ─ fetch texts ─ rerank ─ pack ─ read ─ Answer

Each stage takes and returns plain values, in batches, and is called once. What a stage is was
chosen in ``rag_frozen.build``; stages that a recipe leaves out are stages that do less.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rag_frozen.absent_stages import KeepOrder
from rag_frozen.answers import before, evidence_of, final_ranking, withheld
from rag_frozen.errors import InputError
from rag_frozen.protocols import Packer, PassageStore, Reader, Reranker, Retriever
from rag_frozen.questions import as_questions
from rag_frozen.retrieval.fusion import FusionRetriever
from rag_frozen.retrieval.replay import ReplayRetriever
from rag_frozen.types import (
    Answer,
    Context,
    Passage,
    Question,
    Ranking,
)

if TYPE_CHECKING:
    from rag_frozen.prompting.bank import PromptBank

__all__ = ["Join", "Pipeline", "Prepared", "Weigh"]

Weigh = Callable[[Context, Mapping[str, Ranking]], Context]
"""Writes into a context what each passage counts, given the rankings by stage."""
Join = Callable[[Ranking, Mapping[str, Ranking]], Ranking]
"""Makes the final ranking of the reranker's, given the retrieval's by stage."""


@dataclass(slots=True)
class _Clock:
    """Seconds of each stage of one batch, in the order in which they ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that is ready to be read: for each question its rankings, its passages best first
    and its context; and the seconds that each stage took for the whole batch."""

    retrieved: Sequence[tuple[Ranking, Mapping[str, Ranking]]]
    reranked: Sequence[Ranking]
    best_first: Sequence[Sequence[Passage]]
    contexts: Sequence[Context]
    seconds: Mapping[str, float]


class Pipeline:
    """Answers questions. Made by :func:`rag_frozen.load_pipeline` from a recipe."""

    def __init__(
        self,
        *,
        name: str,
        store: PassageStore,
        retriever: Retriever,
        reranker: Reranker,
        packer: Packer,
        reader: Reader,
        k: int,
        rerank_depth: int,
        join: Join = lambda reranked, stages: reranked,
        recipe: Mapping[str, Any] | None = None,  # Any: JSON values
        artifacts: Mapping[str, str] | None = None,
        prompts: PromptBank | None = None,
        confidence: Callable[[float], float] = lambda probability: probability,
        weigh: Weigh = lambda context, rankings: context,
    ) -> None:
        """Put stages together.

        Args:
            name: of the recipe.
            k: hits that are retrieved.
            rerank_depth: so many of them are fetched, reranked and offered to packing.
            join: makes the final ranking of the reranker's and those of the retrieval by stage.
            recipe: the resolved recipe, for the records of runs.
            artifacts: role -> fingerprint of what the stages stand on.
            prompts: the soft prompts that condition the reader, where it has a place for them.
            confidence: makes a confidence of an answer's probability.
            weigh: where passages are read one by one, writes into a context what each of them
                counts, by the rankings of all stages.
        """
        self.name = name
        self.store = store
        self.retriever = retriever
        self.reranker = reranker
        self.packer = packer
        self.reader = reader
        self.k = k
        self.rerank_depth = rerank_depth
        self.recipe = dict(recipe or {})
        self.artifacts = dict(artifacts or {})
        self._prompts = prompts
        self._confidence = confidence
        self._weigh = weigh
        self._join = join

    @property
    def prompts(self) -> PromptBank:
        """The soft prompts over this pipeline's reader: ``.add("name", path)``, ``.drop("name")``.

        Raises:
            InputError: when its reader takes none.
        """
        if self._prompts is None:
            raise InputError(f"The reader of the pipeline {self.name} takes no soft prompts.")
        return self._prompts

    def ask(self, text: str, *, prompt: str | None = None, min_confidence: float = 0.0) -> Answer:
        """Answer one question.

        Args:
            text: the question.
            prompt: name of a loaded soft prompt; the recipe's by default.
            min_confidence: below it the answer is withheld (``abstained``, empty text).

        Raises:
            InputError: when the question is empty, too long, or no text; for an unknown prompt.
        """
        return self.answer([text], prompts=[prompt], min_confidence=min_confidence)[0]

    def answer(
        self,
        questions: Sequence[str | Question],
        *,
        prompts: Sequence[str | None] | None = None,
        min_confidence: float = 0.0,
    ) -> list[Answer]:
        """Answer a batch of questions, in order.

        Args:
            questions: texts, or questions with ids.
            prompts: for each question the name of a loaded soft prompt, None for the recipe's.
            min_confidence: below it an answer is withheld.

        Raises:
            InputError: when a question is empty, too long, or no text; for an unknown prompt.
        """
        asked = as_questions(questions)
        if not asked:
            return []
        answers = self.read(self._conditioned(self.prepare(asked), prompts))
        return [
            withheld(answer) if answer.confidence < min_confidence else answer for answer in answers
        ]

    def prepare(self, questions: Sequence[Question]) -> Prepared:
        """The first half of :meth:`answer`: everything before the reader.

        Two halves so that an evaluation can prepare one batch while it reads another.
        """
        clock = _Clock()
        with clock.stage("retrieve"):
            retrieved = self._retrieve(questions)
        with clock.stage("fetch"):
            candidates = self._fetch([ranking for ranking, _ in retrieved])
        with clock.stage("rerank"):
            scored = self.reranker.rerank(questions, candidates)
            reranked = [
                self._join(ranking, {"retrieve": first, **parts})
                for ranking, (first, parts) in zip(scored, retrieved, strict=True)
            ]
        with clock.stage("pack"):
            best_first = [_reorder(*pair) for pair in zip(candidates, reranked, strict=True)]
            contexts = [
                self._weigh(context, self._stages(*found, scores))
                for context, found, scores in zip(
                    self.packer.pack(questions, best_first), retrieved, reranked, strict=True
                )
            ]
        return Prepared(retrieved, reranked, best_first, contexts, clock.seconds)

    def read(self, prepared: Prepared) -> list[Answer]:
        """The second half of :meth:`answer`: generate, and put the answers together."""
        clock = _Clock(dict(prepared.seconds))
        with clock.stage("read"):
            generations = self.reader.generate(prepared.contexts)
        n = len(prepared.contexts)
        seconds = tuple((name, spent / n) for name, spent in clock.seconds.items())
        rows = zip(
            prepared.retrieved,
            prepared.reranked,
            prepared.best_first,
            prepared.contexts,
            generations,
            strict=True,
        )
        return [
            Answer(
                question=context.question,
                text=generation.text,
                confidence=self._confidence(math.exp(min(generation.logprob, 0.0))),
                hits=final_ranking(ranking, scores),
                rankings=before(ranking, parts),
                evidence=evidence_of(
                    generation,
                    context.passage_ids,
                    {passage.id: passage for passage in passages},
                    self._stages(ranking, parts, scores),
                ),
                seconds=seconds,
                context=context,
                generation=generation,
            )
            for (ranking, parts), scores, passages, context, generation in rows
        ]

    def retrieve(
        self, questions: Sequence[str | Question], *, k: int | None = None
    ) -> list[Ranking]:
        """Return the retrieval's rankings alone, of at most ``k`` hits."""
        return self.retriever.retrieve(as_questions(questions), k=k or self.k)

    def _conditioned(self, prepared: Prepared, names: Sequence[str | None] | None) -> Prepared:
        """Write each context's soft prompt into it."""
        if names is None or not any(names):
            return prepared
        if len(names) != len(prepared.contexts):
            raise InputError(
                f"{len(names)} prompts were named for {len(prepared.contexts)} questions. Name one "
                "each, None for the recipe's own."
            )
        for name in {name for name in names if name}:
            self.prompts.get(name)  # an unknown name is told before anything is read
        contexts = [
            replace(context, soft_prompt=name) if name else context
            for context, name in zip(prepared.contexts, names, strict=True)
        ]
        return replace(prepared, contexts=contexts)

    def _retrieve(self, asked: Sequence[Question]) -> list[tuple[Ranking, dict[str, Ranking]]]:
        """Rankings, and beside a fused or stored one those that it was made from."""
        if isinstance(self.retriever, FusionRetriever | ReplayRetriever):
            made = self.retriever.retrieve_parts(asked)
            return [(ranking[: self.k], parts) for ranking, parts in made]
        return [(ranking, {}) for ranking in self.retriever.retrieve(asked, k=self.k)]

    def _stages(
        self, retrieved: Ranking, parts: Mapping[str, Ranking], reranked: Ranking
    ) -> dict[str, Ranking]:
        """The rankings that have scores, by stage; the reranker's where there is one."""
        scored = {} if isinstance(self.reranker, KeepOrder) else {"rerank": reranked}
        return {"retrieve": retrieved, **parts, **scored}

    def _fetch(self, rankings: Sequence[Ranking]) -> list[list[Passage]]:
        heads = [ranking[: self.rerank_depth] for ranking in rankings]
        ids = sorted({hit.passage_id for head in heads for hit in head})
        by_id = dict(zip(ids, self.store.get(ids), strict=True))
        return [[by_id[hit.passage_id] for hit in head] for head in heads]


def _reorder(passages: Sequence[Passage], ranking: Ranking) -> list[Passage]:
    by_id = {passage.id: passage for passage in passages}
    return [by_id[hit.passage_id] for hit in ranking]
