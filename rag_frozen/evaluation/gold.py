"""The bound that the reader sets: each question is given its gold passage, nothing is retrieved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from rag_frozen.absent_stages import KeepOrder
from rag_frozen.errors import InputError, UnknownPassageError
from rag_frozen.evaluation.examples import ExampleSet
from rag_frozen.pipeline import Pipeline
from rag_frozen.reader.confidence import calibrated
from rag_frozen.retrieval.replay import ReplayRetriever
from rag_frozen.types import Hit, Passage

__all__ = ["WITHOUT_RETRIEVAL", "with_gold_passages"]

WITHOUT_RETRIEVAL = ("retrieval={kind: closed-book}", "reranker={kind: none}")
"""Overrides that leave out of a pipeline what gold passages make needless."""


class _GoldPassages:
    """A store of the gold passages alone, each under the id of its question."""

    def __init__(self, passages: dict[str, Passage]) -> None:
        self._passages = passages

    def __len__(self) -> int:
        return len(self._passages)

    def get(self, passage_ids: Sequence[str]) -> list[Passage]:
        missing = [one for one in passage_ids if one not in self._passages]
        if missing:
            raise UnknownPassageError(f"{missing[0]!r} is no gold passage of this data set.")
        return [self._passages[one] for one in passage_ids]


def with_gold_passages(pipeline: Pipeline, data: ExampleSet) -> tuple[Pipeline, ExampleSet]:
    """Return the pipeline with each question's gold passage as all that it retrieves.

    Args:
        pipeline: gives packing and reader; load it with ``WITHOUT_RETRIEVAL``.
        data: questions whose ``gold_passage`` is known.

    Returns:
        The pipeline and the data that it can answer: the questions with answers, each with its
        passage under the question's own id.

    Raises:
        InputError: when a question with an answer has no gold passage.
    """
    examples = []
    for example in data.examples:
        if not example.answers:
            continue
        if example.gold_passage is None:
            raise InputError(
                f"Question {example.question.id!r} of {data.name} has no gold passage. Give each "
                "row the fields title and text, or evaluate with: --set passages=retrieved"
            )
        passage = replace(example.gold_passage, id=example.question.id)
        whole = replace(example, gold_passage_id=passage.id, gold_passage=passage)
        examples.append(replace(whole, qrels=((passage.id, 0),)))  # given, not found
    passages = {one.question.id: one.gold_passage for one in examples if one.gold_passage}
    store = _GoldPassages(passages)
    rankings = {passage_id: (Hit(passage_id, 1.0),) for passage_id in passages}
    given = Pipeline(
        name=pipeline.name,
        store=store,
        retriever=ReplayRetriever(rankings, name=data.name),
        reranker=KeepOrder(),
        packer=pipeline.packer,
        reader=pipeline.reader,
        k=1,
        rerank_depth=1,
        recipe=pipeline.recipe,
        artifacts=pipeline.artifacts,
        confidence=partial(calibrated, **(pipeline.recipe.get("confidence") or {})),
    )
    return given, replace(data, examples=tuple(examples))
