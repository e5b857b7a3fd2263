"""Train a question encoder alone, against the stored vectors of a whole corpus.

DPR's loss (Karpukhin et al. 2020, section 3.2) with one tower fixed. Since passages are never
encoded, hard negatives come from all of the corpus and are looked up anew with the encoder as it
is (ANCE, Xiong et al. 2021, arXiv 2007.00808, renews both towers' vectors; here one is enough).
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from rag_frozen.evaluation.metrics import has_answer
from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.sentence_form import SentenceForm
from rag_frozen.training.passage_bank import PassageBank
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.question_tower_data import (
    AnsweredQuestion,
    BankRow,
    BankSource,
    bank_marks,
)
from rag_frozen.training.ranking_data import holds
from rag_frozen.training.ranking_metrics import first_answer_metrics
from rag_frozen.training.ranking_rows import draw_rows
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.trained_encoder import TrainedEncoder

__all__ = ["QuestionBatch", "QuestionTowerTask"]

_ENCODED = 256
"""Questions that are encoded together when nothing is trained."""
_DEPTHS = (1, 5, 20, 100)


@dataclass(frozen=True, slots=True)
class QuestionBatch:
    """Questions; the bank's row of a passage that answers each; columns of rows that do not."""

    questions: tuple[str, ...]
    positives: tuple[int, ...]
    negatives: tuple[tuple[int, ...], ...]


class QuestionTowerTask(TrainedEncoder):
    """A question encoder as a task of the loop."""

    def __init__(
        self,
        encoder: nn.Module,
        form: SentenceForm,
        tokenizer: Tokenizer,
        settings: RetrieverTraining,
        *,
        bank: PassageBank,
        sources: Sequence[BankSource],
        validation: Mapping[str, Sequence[AnsweredQuestion]],
        rounds: Path,
        bf16: bool,
        device: torch.device | None = None,
        share: Share = ALONE,
    ) -> None:
        """Put the encoder on the device and the loss around it.

        Args:
            encoder: a transformer; its parameters with gradients (the adapters) are trained.
            form: its pooling.
            tokenizer: its truncation and padding are set here.
            settings: the recipe's, with a bank.
            bank: the passages.
            sources: rows to draw from.
            validation: held-out questions by name.
            rounds: a folder of this training alone, for the negatives of each round.
            bf16: compute in bf16; weights stay in fp32.
            device: the CPU where it is None.
            share: this process's part of each batch.
        """
        assert settings.bank is not None
        super().__init__(encoder, form, tokenizer, settings, bf16=bf16, device=device, share=share)
        self._bank_settings = settings.bank
        self._bank, self._sources, self._validation = bank, sources, validation
        self._usable = np.flatnonzero(bank.usable)
        self._rounds = rounds
        self._round = -1
        self._negatives: dict[BankRow, list[int]] = {}

    def batch(self, step: int) -> QuestionBatch:
        """Draw the questions of a step, no two with a passage in common, from seed and step; at the
        first step of a round its negatives are looked up, or read where they were before."""
        number = step // self._bank_settings.mine_every
        if number != self._round:
            self._begin_round(number)
        rng = random.Random(f"{self._settings.seed}:{step}:passages")
        n = self._settings.negatives
        drawn = [
            (row.question, rng.choice(row.positives), rng.sample(self._negatives[row], n))
            for row in self._rows(step)
        ]
        mine = self._share.take(drawn)
        columns = zip(*(negatives for _, _, negatives in mine), strict=True)
        return QuestionBatch(
            tuple(question for question, _, _ in mine),
            tuple(positive for _, positive, _ in mine),
            tuple(columns),
        )

    def loss(self, batch: QuestionBatch) -> Tensor:
        """Mean negative log-likelihood of each question's passage among all of the batch."""
        questions = self._embed(batch.questions, self._settings.max_question_tokens)
        columns = [batch.positives, *batch.negatives]
        rows = [row for column in columns for row in column]
        passages = torch.from_numpy(self._bank.vectors(rows)).to(self.device)
        return self._likelihood_loss(questions, passages)

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Answer-recall and MRR (percent) of each held-out set over the whole bank."""
        metrics: dict[str, float] = {}
        for name, asked in self._validation.items():
            vectors = self._encode([one.question for one in asked])
            nearest = self._bank.nearest(vectors, k=max(_DEPTHS))
            ranks = [self._first_answer(*pair) for pair in zip(asked, nearest, strict=True)]
            metrics |= first_answer_metrics(name, ranks, depths=_DEPTHS)
        return metrics

    def _rows(self, step: int) -> list[BankRow]:
        rng = random.Random(f"{self._settings.seed}:{step}")
        return draw_rows(self._sources, self._settings.batch_size, rng=rng, marks=bank_marks)

    def _begin_round(self, number: int) -> None:
        """Take over the negatives of a round for all of its questions.

        They stand in a file beside the checkpoints: a training that is continued in the middle of
        a round goes on with what the encoder found at its beginning.
        """
        first = number * self._bank_settings.mine_every
        steps = range(first, min(first + self._bank_settings.mine_every, self.n_steps))
        rows = list(dict.fromkeys(row for step in steps for row in self._rows(step)))
        file = self._rounds / f"round-{number:05d}.safetensors"
        if self._share.is_main and not file.exists():
            self._write(file, self._look_up(rows, number))
        self._share.wait()
        found = load_file(str(file))["negatives"].tolist()
        self._negatives = dict(zip(rows, found, strict=True))
        self._round = number

    def _look_up(self, rows: Sequence[BankRow], number: int) -> Tensor:
        """``[R, pool]``: the nearest usable passages that hold no answer, the nearest first; where
        the hits have fewer, drawn ones fill up."""
        settings = self._bank_settings
        chance = np.random.default_rng([self._settings.seed, number])
        vectors = self._encode([row.question for row in rows])
        made = torch.zeros(len(rows), settings.pool, dtype=torch.int64)
        for place, near in enumerate(self._bank.nearest(vectors, k=settings.depth)):
            kept = self._unanswering(rows[place], near)
            if missing := settings.pool - len(kept):
                kept += chance.choice(self._usable, size=missing).tolist()
            made[place] = torch.tensor(kept)
        return made

    def _unanswering(self, row: BankRow, near: Sequence[int]) -> list[int]:
        kept: list[int] = []
        for place in near:
            if len(kept) == self._bank_settings.pool:
                break
            if not self._bank.usable[place] or place in row.positives:
                continue
            passage = self._bank.passage(place)
            if not holds(f"{passage.title} | {passage.text}", row.answers):
                kept.append(place)
        return kept

    def _write(self, file: Path, negatives: Tensor) -> None:
        self._rounds.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".partial")
        save_file({"negatives": negatives}, str(fresh))
        os.replace(fresh, file)

    def _first_answer(self, asked: AnsweredQuestion, near: Sequence[int]) -> int | None:
        texts = (self._bank.passage(place).text for place in near)
        return next((n for n, text in enumerate(texts) if has_answer(text, asked.answers)), None)

    @torch.no_grad()
    def _encode(self, texts: Sequence[str]) -> Vectors:
        """``[n, d]`` in fp32, without dropout."""
        self._encoder.eval()
        parts = [
            self._embed(texts[start : start + _ENCODED], self._settings.max_question_tokens).cpu()
            for start in range(0, len(texts), _ENCODED)
        ]
        self._encoder.train(self._settings.dropout)
        return np.ascontiguousarray(torch.cat(parts).numpy())
