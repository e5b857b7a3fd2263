"""Train a soft prompt or a generator around a frozen reader: loss on the answer, exact match on
held-out rows. Training combines the modules of ``prompting`` and ``reader``, and adds none."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rag_frozen.evaluation.metrics import exact_match, f1
from rag_frozen.prompting.heads import Head
from rag_frozen.prompting.inject import SoftPrompts
from rag_frozen.protocols import PromptGenerator
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.prompt_data import PromptRow, PromptRows
from rag_frozen.training.prompt_settings import PromptTraining
from rag_frozen.types import Context, Generation

__all__ = ["PromptBatch", "PromptTask", "TrainableReader", "score_rows"]

_POOL = 16
"""Batches that are drawn together and sorted by length."""


class TrainableReader(Protocol):
    """What the task asks of a reader beside answering."""

    name: str
    digest: str
    prompt_generator: PromptGenerator | None
    model: Any  # Any: a module; models of transformers are not typed

    @property
    def base_digest(self) -> str:
        """Of the stored weights."""
        ...

    @property
    def embedding_table(self) -> Tensor:
        """``[V, E]``."""
        ...

    @property
    def window(self) -> int:
        """Positions: soft prompt, prompt and answer together."""
        ...

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts."""
        ...

    def encode_answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of answers, the end token included."""
        ...

    def answer_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        soft_prompt: Tensor | SoftPrompts | None = None,
    ) -> Tensor:
        """``[B, A]``, 0 behind each answer's end."""
        ...

    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        """One generation a context."""
        ...


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Rows of token ids, and the contexts that a generator reads; ``weight`` is that of the loss,
    1 where one process trains."""

    contexts: tuple[Context, ...]
    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    weight: float = 1.0


class PromptTask:
    """Implements ``training.loop.TrainingTask``."""

    def __init__(
        self,
        reader: TrainableReader,
        head: Head | None,
        settings: PromptTraining,
        *,
        rows: PromptRows,
        bf16: bool = False,
        share: Share = ALONE,
    ) -> None:
        """Set up.

        Args:
            reader: frozen; or, without a head, the model that is itself trained.
            head: what is trained; None for full tuning.
            settings: of the recipe.
            rows: training and validation examples.
            bf16: run an fp32 reader's products in bf16 (full tuning).
            share: this process's part of each batch.
        """
        self.reader = reader
        self.head = head
        self.n_steps = settings.steps
        self.settings = settings
        self.rows = rows
        self._bf16 = bf16
        self._share = share
        self._pool: tuple[int, list[list[tuple[PromptRow, list[int], list[int]]]]] = (-1, [])

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        model: nn.Module = self.reader.model if self.head is None else self.head.module
        return model

    def batch(self, step: int) -> PromptBatch:
        """The batch of a step; its pool is drawn once and kept."""
        pool, place = divmod(step, _POOL)
        if self._pool[0] != pool:
            self._pool = (pool, self._draw(pool))
        rows = self._pool[1][place]
        mine = self._share.take(rows)
        tokens, own = (sum(len(answer) for _, _, answer in some) for some in (rows, mine))
        return PromptBatch(
            tuple(row.context for row, _, _ in mine),
            tuple(tuple(prompt) for _, prompt, _ in mine),
            tuple(tuple(answer) for _, _, answer in mine),
            self._share.weight(own, tokens),
        )

    def _draw(self, pool: int) -> list[list[tuple[PromptRow, list[int], list[int]]]]:
        size, seed = self.settings.batch_size, self.settings.seed
        first = pool * _POOL * size
        rows = [self.rows.pick(number, seed) for number in range(first, first + _POOL * size)]
        prompts = self.reader.encode_prompts([row.context.prompt for row in rows])
        answers = self.reader.encode_answers([row.target for row in rows])
        longest, most = self.settings.max_source_tokens, self.settings.max_target_tokens
        encoded = [
            (row, _cut(prompt, longest), _cut(answer, most))
            for row, prompt, answer in zip(rows, prompts, answers, strict=True)
        ]
        encoded.sort(key=lambda one: (len(one[1]) + len(one[2]), one[0].context.question.id))
        batches = [encoded[at : at + size] for at in range(0, len(encoded), size)]
        random.Random(f"{seed}:pool:{pool}").shuffle(batches)
        return batches

    def loss(self, batch: PromptBatch) -> Tensor:
        """Mean cross-entropy of the answers' tokens, the end token included."""
        vectors = None if self.head is None else self.head.vectors(batch.contexts)
        device = self.reader.embedding_table.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
            logprobs = self.reader.answer_logprobs(batch.prompts, batch.answers, vectors)
        return -batch.weight * logprobs.float().sum() / sum(map(len, batch.answers))

    def validate(self) -> dict[str, float]:
        """Exact match and F1, in percent, on the held-out rows."""
        matched, scores = score_rows(self.reader, self.head, self.rows.validation)
        n = max(1, len(matched))
        return {"exact_match": 100 * sum(matched) / n, "f1": 100 * sum(scores) / n}


def score_rows(
    reader: TrainableReader, head: PromptGenerator | None, rows: Sequence[PromptRow]
) -> tuple[list[bool], list[float]]:
    """Answer rows, conditioned by a head or plainly; return exact match and F1 of each."""
    before, was_training = reader.prompt_generator, reader.model.training
    reader.prompt_generator = head
    reader.model.eval()
    try:
        written = reader.generate([row.context for row in rows])
    finally:
        reader.prompt_generator = before
        reader.model.train(was_training)
    pairs = list(zip(written, rows, strict=True))
    return (
        [exact_match(generation.text, row.answers) for generation, row in pairs],
        [f1(generation.text, row.answers) for generation, row in pairs],
    )


def _cut(ids: list[int], limit: int) -> list[int]:
    """At most ``limit`` ids, the last one kept: it ends the row."""
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]
