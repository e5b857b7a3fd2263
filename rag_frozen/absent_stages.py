"""Stages that a pipeline leaves out: each takes its stage's place and does less.

They know values alone, no models and no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rag_frozen.errors import InputError
from rag_frozen.types import Context, Generation, Hit, Passage, Question, Ranking

__all__ = ["KeepOrder", "NoPacking", "NoPassages", "NoReader", "NoRetrieval"]


class NoRetrieval:
    """Closed book: no question has any hit."""

    def retrieve(self, questions: Sequence[Question], *, k: int) -> list[Ranking]:
        """Return an empty ranking a question."""
        return [() for _ in questions]


class NoPassages:
    """The store of a closed-book pipeline: holds nothing and is asked for nothing."""

    def __len__(self) -> int:
        return 0

    def get(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Return nothing for nothing; refuse any id."""
        if passage_ids:
            raise InputError("This pipeline is closed book: it has no passages to fetch.")
        return []


class KeepOrder:
    """No reranker: the retrieval's order stands; the score is minus the rank."""

    def rerank(
        self, questions: Sequence[Question], candidates: Sequence[Sequence[Passage]]
    ) -> list[Ranking]:
        """Return the candidates in the order given."""
        return [
            tuple(Hit(passage.id, -float(rank)) for rank, passage in enumerate(passages, 1))
            for passages in candidates
        ]


class NoPacking:
    """For a pipeline that ends with a ranking: nothing is packed."""

    def pack(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> list[Context]:
        """Return a context a question that holds no passage and no prompt."""
        return [Context(question, "", 0) for question in questions]


class NoReader:
    """For a pipeline that ends with a ranking: every answer is empty."""

    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        """Return an empty generation a context, of no confidence."""
        return [Generation("", -math.inf, 0, "end") for _ in contexts]
