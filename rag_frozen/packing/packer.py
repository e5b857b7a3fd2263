"""Pack whole passages into the reader's window, with a receipt.

Passages arrive best first and are added in that order until the next one does not fit (Levine et
al. 2022, section 3: greedily, in descending order of the reranker's score, until the window is
full). Soft prompt, question, template and answer are accounted for first. No passage is cut,
unless the first alone does not fit: then it ends at a sentence, and the receipt says so.

Counts with the reader's own tokenizer; knows nothing else of the reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rag_frozen.errors import InputError
from rag_frozen.packing.template import PromptTemplate
from rag_frozen.types import Context, Dropped, Kept, Passage, Question, Quotable

__all__ = ["CountTokens", "GreedyPacker", "PackingBudget", "without_duplicates"]

_COUNTED_AT_ONCE = 8
"""Passages whose tokens are counted in one call where no limit says how many are needed."""
CountTokens = Callable[[Sequence[str]], list[int]]
"""Counts the reader's tokens of each text, as whole prompts: special tokens included."""

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+")


@dataclass(frozen=True, slots=True)
class PackingBudget:
    """The reader's window and what is taken from it before any passage, all in tokens."""

    window: int
    soft_prompt: int = 0
    answer: int = 24

    @property
    def prompt(self) -> int:
        """Tokens that are left for the prompt: template, question and passages."""
        return self.window - self.soft_prompt - self.answer


class GreedyPacker:
    """The packer of the main path."""

    def __init__(
        self,
        template: PromptTemplate,
        budget: PackingBudget,
        *,
        count_tokens: CountTokens,
        max_passages: int | None = None,
        order: Literal["best_first", "best_last"] = "best_first",
        soft_prompt: Callable[[], int] | None = None,
        quoted: Sequence[str] | None = None,
    ) -> None:
        """Set up.

        Args:
            template: how prompts are written.
            budget: the window and what else it must hold.
            count_tokens: counts with the reader's tokenizer.
            max_passages: at most so many passages, or as many as fit.
            order: where the best passage stands: at the beginning, or next to the end.
            soft_prompt: asked at each call for the length of the longest soft prompt that is
                loaded, where that can change; the budget's own is then not used.
            quoted: where it is given, answers are to be quoted from the packed titles and texts
                (as far as they stand in the prompt), or to be one of these texts.

        Raises:
            InputError: when the budget leaves no room, or ``max_passages`` is negative.
        """
        if budget.prompt < 1:
            raise InputError(
                f"A window of {budget.window} tokens has no room beside a soft prompt of "
                f"{budget.soft_prompt} and an answer of {budget.answer}. Shorten one of them, or "
                "choose a reader with a larger window."
            )
        if max_passages is not None and max_passages < 0:
            raise InputError(f"max_passages must be 0 or more, not {max_passages}")
        self.template = template
        self.budget = budget
        self.max_passages = max_passages
        self._count = count_tokens
        self._order = order
        self._soft_prompt = soft_prompt
        self._quoted = quoted

    def pack(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> list[Context]:
        """Pack each question's passages, given best first.

        Raises:
            InputError: when a question alone does not fit.
        """
        if self._soft_prompt is not None:
            self.budget = replace(self.budget, soft_prompt=self._soft_prompt())
        return [
            self._pack_one(question, candidates)
            for question, candidates in zip(questions, passages, strict=True)
        ]

    def _pack_one(self, question: Question, candidates: Sequence[Passage]) -> Context:
        empty, alone, frame = self._count(
            [
                "",
                self.template.write(question, ()),
                self.template.with_passages.format(passages="", question=question.text),
            ]
        )
        if max(alone, frame) > self.budget.prompt:
            raise InputError(
                f"Question {question.id!r} takes {max(alone, frame)} tokens, and "
                f"{self.budget.prompt} are left for the prompt. Shorten the question, or choose a "
                "reader with a larger window."
            )
        unique, dropped = without_duplicates(candidates)
        kept: list[tuple[Passage, Kept]] = []
        counted: list[int] = []
        room = self.budget.prompt - frame
        for place, passage in enumerate(unique):
            if self.max_passages is not None and len(kept) >= self.max_passages:
                break
            if place == len(counted):
                counted += self._sizes(unique, empty, start=place)
            if counted[place] > room:
                if not kept:
                    kept = self._cut(question, passage, empty)
                break
            kept.append((passage, Kept(passage.id, counted[place])))
            room -= counted[place]
        counted += [0] * (len(unique) - len(counted))
        return self._finish(question, kept, [*zip(unique, counted, strict=True)], dropped)

    def _finish(
        self,
        question: Question,
        kept: list[tuple[Passage, Kept]],
        candidates: Sequence[tuple[Passage, int]],
        dropped: list[Dropped],
    ) -> Context:
        """Write the prompt, count it whole, and take the last passage away while it is too long
        (pieces counted alone can be a token shorter than in their place)."""
        while True:
            ordered = kept if self._order == "best_first" else kept[::-1]
            prompt = self.template.write(question, [passage for passage, _ in ordered])
            n_tokens = self._count([prompt])[0]
            if n_tokens <= self.budget.prompt or not kept:
                break
            kept = kept[:-1]
        ids = {record.passage_id for _, record in kept}
        full = self.max_passages is not None and len(ids) >= self.max_passages
        reason = "limit" if full else "budget"
        dropped += [Dropped(p.id, reason, size) for p, size in candidates if p.id not in ids]
        records = tuple(record for _, record in ordered)
        packed = [passage for passage, _ in ordered]
        quotable = self._quotable(packed)
        return Context(question, prompt, n_tokens, records, tuple(dropped), quotable=quotable)

    def _quotable(self, packed: Sequence[Passage]) -> Quotable | None:
        """Closed book there is nothing to quote from, and answers are free."""
        if self._quoted is None or not packed:
            return None
        texts = [text for passage in packed for text in (passage.title, passage.text) if text]
        return Quotable(tuple(texts), tuple(self._quoted))

    def _sizes(self, passages: Sequence[Passage], empty: int, *, start: int = 0) -> list[int]:
        """Tokens of the next few passages from ``start`` on: what is never looked at is never
        counted (100 candidates take some 70 ms, a prompt holds two to twenty of them)."""
        few = _COUNTED_AT_ONCE if self.max_passages is None else max(1, self.max_passages)
        some = passages[start : start + few]
        if not some:
            return []
        written = [self.template.write_passage(p, n) for n, p in enumerate(some, start + 1)]
        return [count - empty for count in self._count(written)]

    def _cut(self, question: Question, passage: Passage, empty: int) -> list[tuple[Passage, Kept]]:
        """Keep the most sentences of the passage that fit; words where not one sentence fits."""
        ends = [match.start() for match in _SENTENCE_END.finditer(passage.text)]
        for stops in (ends, [match.end() for match in re.finditer(r"\S+", passage.text)]):
            low, high = 0, len(stops)
            while low < high:
                middle = (low + high + 1) // 2
                if self._fits(question, passage, stops[middle - 1]):
                    low = middle
                else:
                    high = middle - 1
            if low:
                shorter = Passage(passage.id, passage.title, passage.text[: stops[low - 1]])
                size = self._sizes([shorter], empty)[0]
                return [(shorter, Kept(passage.id, size, cut=True))]
        return []

    def _fits(self, question: Question, passage: Passage, stop: int) -> bool:
        shorter = Passage(passage.id, passage.title, passage.text[:stop])
        return self._count([self.template.write(question, [shorter])])[0] <= self.budget.prompt


def without_duplicates(candidates: Sequence[Passage]) -> tuple[list[Passage], list[Dropped]]:
    """Part passages into those to be read and those that are empty or say what another said
    before: of the same id, or of the same text but for case, spaces and punctuation."""
    unique, dropped = [], []
    ids: set[str] = set()
    texts: set[str] = set()
    for passage in candidates:
        key = "".join(char for char in passage.text.lower() if char.isalnum())
        if not passage.text.strip():
            dropped.append(Dropped(passage.id, "empty", 0))
        elif passage.id in ids or key in texts:
            dropped.append(Dropped(passage.id, "duplicate", 0))
        else:
            unique.append(passage)
        ids.add(passage.id)
        texts.add(key)
    return unique, dropped
