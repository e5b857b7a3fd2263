"""Questions with their gold answers. Gold answers live in this room alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rag_frozen.types import Passage, Question

__all__ = ["Example", "ExampleSet"]


@dataclass(frozen=True, slots=True)
class Example:
    """A question and the answers that count; none for a question that the corpus cannot answer.

    ``gold_passage_id`` names a passage of the corpus that answers it; ``tags`` are (name, value)
    pairs by which results are broken down; ``gold_passage`` is the answering passage itself, where
    the data carry its text. With ``patterns`` the answers are regular expressions. ``qrels`` are
    (passage id, grade) of the judged passages, where the data have more than the gold one.
    """

    question: Question
    answers: tuple[str, ...]
    gold_passage_id: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    gold_passage: Passage | None = None
    patterns: bool = False
    qrels: tuple[tuple[str, int], ...] = ()

    @property
    def judged(self) -> tuple[tuple[str, int], ...]:
        """The qrels; the gold passage alone, of grade 1, where there are none."""
        gold = self.gold_passage_id
        return self.qrels or (((gold, 1),) if gold is not None else ())


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """A data set: its name, its examples, and the SHA-256 of what they were read from."""

    name: str
    examples: tuple[Example, ...]
    sha256: str

    def first(self, n: int) -> ExampleSet:
        """Return the first ``n`` examples, under a name that says so; all of them as they are.

        >>> ExampleSet("nq", (Example(Question("1", "who"), ("he",)),) * 3, "00").first(2).name
        'nq-first-2'
        """
        if n >= len(self.examples):
            return self
        return replace(self, name=f"{self.name}-first-{n}", examples=self.examples[:n])
