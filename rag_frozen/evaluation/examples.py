"""Questions with their gold answers. Gold answers live in this room alone."""

from __future__ import annotations

from dataclasses import dataclass

from rag_frozen.types import Question

__all__ = ["Example", "ExampleSet"]


@dataclass(frozen=True, slots=True)
class Example:
    """A question and the answers that count; none for a question that the corpus cannot answer.

    ``tags`` are (name, value) pairs by which results are broken down.
    """

    question: Question
    answers: tuple[str, ...]
    gold_passage_id: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """A data set: its name, its examples, and the SHA-256 of what they were read from."""

    name: str
    examples: tuple[Example, ...]
    sha256: str
