"""Train the pocket reader: data from the recipe, batches of tokens, loss on the answer."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from rag_frozen.errors import InputError
from rag_frozen.evaluation.metrics import exact_match, f1
from rag_frozen.reader.decoding import Decoding, decode
from rag_frozen.reader.prefix_lm import PrefixLM, prefix_mask
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.reading_data import ReadingData, ReadingExample
from rag_frozen.training.settings import ReaderTraining
from rag_frozen.training.sources import ValidationRow

__all__ = ["ReaderTask", "TokenBatch", "divergence"]

_POOL = 32
"""Batches that are drawn together and sorted by length."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """``input_ids: [B, T]`` source, start token, answer; ``labels: [N]`` the answers' tokens, end
    included; ``label_rows, label_columns: [N]`` the positions that predict them. ``weight`` is that
    of the loss, 1 where one process trains; ``seed`` is that of what dropout leaves out, so that a
    training that goes on leaves out the same."""

    input_ids: Tensor
    source_lengths: Tensor
    lengths: Tensor
    label_rows: Tensor
    label_columns: Tensor
    labels: Tensor
    weight: float = 1.0
    seed: int = 0


class ReaderTask:
    """The pocket reader as a task of the loop."""

    def __init__(
        self,
        model: PrefixLM,
        tokenizer: Tokenizer,
        settings: ReaderTraining,
        *,
        data: ReadingData,
        validation: Mapping[str, Sequence[ValidationRow]],
        bf16: bool,
        device: torch.device | None = None,
        teacher: PrefixLM | None = None,
        share: Share = ALONE,
    ) -> None:
        """Args:
        model: to be trained, all but its word embeddings.
        tokenizer: of its encoder, without padding and truncation.
        settings: the recipe.
        data: examples to train on.
        validation: held-out rows by the name of their source.
        bf16: compute in it, with weights in fp32.
        device: where; the CPU by default.
        teacher: frozen; where the settings have a distillation, and only there.
        share: this process's part of each batch.
        """
        assert (teacher is None) == (settings.distillation is None)
        self.device = device or torch.device("cpu")
        self.model = model.to(self.device)
        self._teacher = None if teacher is None else teacher.to(self.device)
        self.model.word_embeddings.weight.requires_grad_(False)
        self.model.set_dropout(settings.dropout)
        self.n_steps = -(-settings.examples // settings.batch_size)
        self._tokenizer = tokenizer
        self._settings = settings
        self._data = data
        self._validation = validation
        self._bf16 = bf16
        self._share = share
        self._start = _token_id(tokenizer, "[CLS]")
        self._end = _token_id(tokenizer, "[SEP]")
        self._pool: tuple[int, list[list[tuple[list[int], list[int]]]]] = (-1, [])

    def batch(self, step: int) -> TokenBatch:
        """Make the batch of a step; its pool is drawn once and kept."""
        pool, place = divmod(step, _POOL)
        if self._pool[0] != pool:
            self._pool = (pool, self._draw(pool))
        rows = self._pool[1][place]
        mine = self._share.take(rows)
        weight = self._share.weight(_labels(mine), _labels(rows))
        seed = (self._settings.seed + step) * self._share.count + self._share.index
        return replace(self._collate(mine), weight=weight, seed=seed)

    def _draw(self, pool: int) -> list[list[tuple[list[int], list[int]]]]:
        size = self._settings.batch_size
        total = self.n_steps * size
        first = pool * _POOL * size
        examples = [self._data.example(n, total) for n in range(first, first + _POOL * size)]
        rows = self._encode(examples)
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        batches = [rows[i : i + size] for i in range(0, len(rows), size)]
        random.Random(f"{self._settings.seed}:pool:{pool}").shuffle(batches)
        return batches

    def _encode(self, examples: Sequence[ReadingExample]) -> list[tuple[list[int], list[int]]]:
        settings = self._settings
        sources = self._tokenizer.encode_batch([example.source for example in examples])
        targets = self._tokenizer.encode_batch(
            [example.target for example in examples], add_special_tokens=False
        )
        return [
            (
                [*source.ids[: settings.max_source_tokens - 1], self._end]
                if len(source.ids) > settings.max_source_tokens
                else source.ids,
                target.ids[: settings.max_target_tokens - 1],
            )
            for source, target in zip(sources, targets, strict=True)
        ]

    def _collate(self, rows: Sequence[tuple[list[int], list[int]]]) -> TokenBatch:
        lengths = [len(source) + 1 + len(target) for source, target in rows]
        ids = torch.zeros((len(rows), max(lengths)), dtype=torch.long)
        label_rows: list[int] = []
        label_columns: list[int] = []
        labels: list[int] = []
        for row, (source, target) in enumerate(rows):
            ids[row, : lengths[row]] = torch.tensor([*source, self._start, *target])
            label_rows += [row] * (len(target) + 1)
            label_columns += range(len(source), lengths[row])
            labels += [*target, self._end]
        sources = torch.tensor([len(source) for source, _ in rows])
        return TokenBatch(
            input_ids=ids.to(self.device),
            source_lengths=sources.to(self.device),
            lengths=torch.tensor(lengths).to(self.device),
            label_rows=torch.tensor(label_rows).to(self.device),
            label_columns=torch.tensor(label_columns).to(self.device),
            labels=torch.tensor(labels).to(self.device),
        )

    def loss(self, batch: TokenBatch) -> Tensor:
        """Mean cross-entropy of the answers' tokens, the end token included; with a teacher, its
        part of the divergence from the teacher's probabilities of them."""
        return batch.weight * self._mean_loss(batch)

    def _mean_loss(self, batch: TokenBatch) -> Tensor:
        """Over this process's tokens."""
        if self._settings.dropout:
            torch.manual_seed(batch.seed)
        logits = self._logits(self.model, batch)
        loss = functional.cross_entropy(logits, batch.labels)
        distillation = self._settings.distillation
        if distillation is None or self._teacher is None:
            return loss
        with torch.no_grad():
            wanted = self._logits(self._teacher, batch)
        from_teacher = divergence(logits, wanted, temperature=distillation.temperature)
        return (1 - distillation.weight) * loss + distillation.weight * from_teacher

    def _logits(self, model: PrefixLM, batch: TokenBatch) -> Tensor:
        """``[N, V]`` in fp32, of the words that stand at the batch's labels."""
        size = batch.input_ids.shape[1]
        mask = prefix_mask(batch.source_lengths, batch.lengths, size)
        position = torch.arange(size, device=self.device).expand_as(batch.input_ids)
        types = (position >= batch.source_lengths[:, None]).long()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            embeds = model.word_embeddings(batch.input_ids)
            states, _ = model(embeds, mask, position_ids=position, type_ids=types)
            logits = model.logits(states[batch.label_rows, batch.label_columns])
        return logits.float()

    def validate(self) -> dict[str, float]:
        """Exact match and F1 (percent) on the held-out rows, given the gold passage."""
        self.model.eval()
        metrics = {}
        for name, rows in self._validation.items():
            limited = rows[: self._settings.validation_limit]
            texts = self._answers([row.source for row in limited])
            pairs = list(zip(texts, limited, strict=True))
            metrics[f"{name}.exact_match"] = (
                100
                * sum(exact_match(text, row.answers) for text, row in pairs)
                / max(1, len(pairs))
            )
            metrics[f"{name}.f1"] = (
                100 * sum(f1(text, row.answers) for text, row in pairs) / max(1, len(pairs))
            )
        self.model.train()
        return metrics

    def _answers(self, sources: Sequence[str]) -> list[str]:
        encoded = [
            encoding.ids[: self._settings.max_source_tokens]
            for encoding in self._tokenizer.encode_batch(list(sources))
        ]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        texts = [""] * len(encoded)
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
                decoded = decode(
                    self.model,
                    [encoded[row] for row in rows],
                    decoding=Decoding(
                        max_new_tokens=24,
                        min_new_tokens=self._settings.validation_min_new_tokens,
                    ),
                    start_id=self._start,
                    end_id=self._end,
                    pad_id=0,
                )
            for row, answer in zip(rows, decoded, strict=True):
                texts[row] = self._tokenizer.decode(list(answer.token_ids))
        return texts


def divergence(logits: Tensor, wanted: Tensor, *, temperature: float) -> Tensor:
    """The mean Kullback-Leibler divergence of ``[N, V]`` logits from those that are wanted, both
    divided by the temperature, times its square, so that gradients keep their size (Hinton et al.
    2015).

    >>> float(divergence(torch.zeros(1, 2), torch.zeros(1, 2), temperature=2.0))
    0.0
    """
    ours = torch.log_softmax(logits / temperature, dim=-1)
    theirs = torch.log_softmax(wanted / temperature, dim=-1)
    return temperature**2 * functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def _labels(rows: Sequence[tuple[list[int], list[int]]]) -> int:
    """How many tokens rows have to predict, their ends included."""
    return sum(len(target) + 1 for _, target in rows)


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise InputError(f"The encoder's tokenizer has no {token}. Choose a BERT-shaped encoder.")
    return found
