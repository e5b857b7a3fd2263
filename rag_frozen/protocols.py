"""What the pipeline asks of its stages: one batch method each.

Implementations stand in the rooms (``retrieval``, ``rerank``, ...); each protocol has one contract
suite under ``tests/contracts`` that every implementation passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rag_frozen.types import Context, Generation, Passage, Question, Ranking

if TYPE_CHECKING:
    import torch

__all__ = [
    "Packer",
    "PassageStore",
    "PromptGenerator",
    "Reader",
    "Reranker",
    "Retriever",
    "SoftPrompts",
]


@dataclass(frozen=True, slots=True)
class SoftPrompts:
    """The soft prompts of a batch: ``vectors: [B, P, E]``, of which the first ``lengths: [B]`` of
    each row count (all of them where it is None)."""

    vectors: torch.Tensor
    lengths: torch.Tensor | None = None

    def repeated(self, times: int) -> SoftPrompts:
        """Each row ``times`` times, one after the other."""
        lengths = None if self.lengths is None else self.lengths.repeat_interleave(times)
        return SoftPrompts(self.vectors.repeat_interleave(times, dim=0), lengths)


@runtime_checkable
class PassageStore(Protocol):
    """Passages by id."""

    def __len__(self) -> int:
        """Number of passages."""
        ...

    def get(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Return the passages in the order asked; raise ``UnknownPassageError`` for a wrong id."""
        ...


@runtime_checkable
class Retriever(Protocol):
    """Finds passages for questions."""

    def retrieve(self, questions: Sequence[Question], *, k: int) -> list[Ranking]:
        """Return one ranking a question, of at most ``k`` hits, best first, ties by id.

        A corpus of fewer than ``k`` passages gives fewer hits. ``k < 1`` raises ``InputError``.
        """
        ...


@runtime_checkable
class Reranker(Protocol):
    """Scores (question, passage) pairs jointly."""

    def rerank(
        self, questions: Sequence[Question], candidates: Sequence[Sequence[Passage]]
    ) -> list[Ranking]:
        """Return each question's candidates as a ranking by the new score, best first."""
        ...


@runtime_checkable
class Packer(Protocol):
    """Puts whole passages into the reader's window."""

    def pack(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> list[Context]:
        """Return one context a question; its passages are given best first."""
        ...


@runtime_checkable
class PromptGenerator(Protocol):
    """Makes the soft prompt that conditions the reader."""

    @property
    def length(self) -> int:
        """The most vectors that it makes for a context, P."""
        ...

    def generate(self, contexts: Sequence[Context]) -> torch.Tensor | SoftPrompts:
        """Return ``soft_prompt: [B, P, E]`` in the reader's embedding space, or rows of different
        lengths."""
        ...


@runtime_checkable
class Reader(Protocol):
    """A frozen language model that answers from a context."""

    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        """Return one generation a context; a batch gives what one by one gives."""
        ...
