"""Train the pocket reranker: hard negatives from our own BM25, softmax over each list.

The loss is that of a ranking: cross-entropy of the positive among the candidates, as in the
fine-tuning of monoBERT-like rerankers with localised contrastive estimation (Gao et al. 2021,
arXiv 2101.08751).
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from rag_frozen.evaluation.metrics import normalize_answer
from rag_frozen.retrieval.bm25_tantivy import TantivyRetriever, build_tantivy
from rag_frozen.training.reranker_settings import RerankerTraining
from rag_frozen.training.sources import (
    excluded_ids,
    hold_out,
    read_passage_source,
    read_rows,
)
from rag_frozen.types import Passage, Question

_PART = 16
"""Pairs that are run together."""
_MEASURED_AT = (1, 3, 5)
"""Depths of the answer-recall in validation."""

__all__ = ["PairBatch", "RankingRow", "RerankerTask", "load_ranking_data"]


@dataclass(frozen=True, slots=True)
class RankingRow:
    """A question, a passage that answers it, and passages near it that do not."""

    question: str
    positive: str
    negatives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ValidationList:
    """A question with its first BM25 hits, and which of them hold an answer."""

    question: str
    passages: tuple[str, ...]
    answering: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """``input_ids, attention_mask, token_type_ids: [L x C, T]`` for L lists of C candidates, the
    positive first in each; lists of fewer candidates repeat their last, masked in ``real: [L, C]``.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    real: Tensor


def load_ranking_data(
    settings: RerankerTraining,
) -> tuple[list[tuple[float, list[RankingRow]]], list[ValidationList]]:
    """Load questions, mine negatives by BM25, and set the validation lists aside.

    A negative is a hit that holds no answer (as normalised text) and is not the positive.
    """
    data = settings.data
    excluded = excluded_ids(data.passages, data.path)
    passages = {
        p.id: p for p in read_passage_source(data.passages, data.path) if p.id not in excluded
    }
    rows_of = {source.name: list(read_rows(source, data.path)) for source in data.questions}
    held = hold_out(
        rows_of,
        titles_of=data.questions[0].name,
        n_titles=data.validation_titles,
        rows_from=data.validation_source,
        n_rows=data.validation_rows,
        seed=data.validation_seed,
    )[data.validation_source]
    _keep_needed(rows_of, settings)
    with tempfile.TemporaryDirectory(prefix="rag-frozen-bm25-") as folder:
        build_tantivy(Path(folder) / "index", passages.values())
        search = TantivyRetriever(Path(folder) / "index")
        sources = [
            (source.weight, _ranking_rows(rows_of[source.name], search, passages, data.mined))
            for source in data.questions
        ]
        lists = _validation_lists(held[: settings.validation_limit], search, passages, settings)
    return sources, lists


def _keep_needed(rows_of: dict[str, list[Mapping[str, Any]]], settings: RerankerTraining) -> None:
    """Keep about as many rows of each source as will be drawn: mining all would take longer than
    training on few."""
    total = sum(source.weight for source in settings.data.questions)
    for source in settings.data.questions:
        n = 1 + int(1.2 * settings.examples * source.weight / total)
        rng = random.Random(f"{settings.seed}:{source.name}")
        rows = rows_of[source.name]
        rows_of[source.name] = rng.sample(rows, min(n, len(rows)))


def _ranking_rows(
    rows: Sequence[Mapping[str, Any]],
    search: TantivyRetriever,
    passages: Mapping[str, Passage],
    mined: int,
) -> list[RankingRow]:
    asked = [Question(str(n), str(row["question"])) for n, row in enumerate(rows)]
    made = []
    for row, ranking in zip(rows, search.retrieve(asked, k=mined), strict=True):
        ids = [*row.get("neg_pids", ()), *(hit.passage_id for hit in ranking)]
        candidates = [passages[one] for one in dict.fromkeys(ids) if one in passages]
        negatives = tuple(
            _written(p.title, p.text)
            for p in candidates
            if p.text != row["text"] and not _holds(p.text, row["answers"])
        )
        if negatives and _holds(str(row["text"]), row["answers"]):
            positive = _written(str(row["title"]), str(row["text"]))
            made.append(RankingRow(str(row["question"]), positive, negatives))
    return made


def _validation_lists(
    rows: Sequence[Mapping[str, Any]],
    search: TantivyRetriever,
    passages: Mapping[str, Passage],
    settings: RerankerTraining,
) -> list[ValidationList]:
    asked = [Question(str(n), str(row["question"])) for n, row in enumerate(rows)]
    lists = []
    for row, ranking in zip(rows, search.retrieve(asked, k=settings.validation_depth), strict=True):
        found = [passages[hit.passage_id] for hit in ranking]
        texts = tuple(_written(p.title, p.text) for p in found)
        answering = tuple(_holds(p.text, row["answers"]) for p in found)
        lists.append(ValidationList(str(row["question"]), texts, answering))
    return lists


def _written(title: str, text: str) -> str:
    return f"{title}. {text}" if title else text


def _holds(text: str, answers: Sequence[str]) -> bool:
    normalized = f" {normalize_answer(text)} "
    return any(f" {normalize_answer(answer)} " in normalized for answer in answers)


class RerankerTask:
    """The pocket reranker as a task of the loop."""

    def __init__(
        self,
        classifier: nn.Module,
        tokenizer: Tokenizer,
        settings: RerankerTraining,
        *,
        sources: Sequence[tuple[float, Sequence[RankingRow]]],
        validation: Sequence[ValidationList],
        bf16: bool,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.model = classifier.to(self.device).eval()  # eval: no dropout, it is one short epoch
        self.n_steps = -(-settings.examples // settings.batch_size)
        self._settings = settings
        self._sources = [(weight, rows) for weight, rows in sources if rows]
        self._validation = validation
        self._bf16 = bf16
        self._tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.enable_truncation(settings.max_length)

    def batch(self, step: int) -> PairBatch:
        """Draw the lists of a step from the seed and the step's number."""
        rng = random.Random(f"{self._settings.seed}:{step}")
        weights = [weight for weight, _ in self._sources]
        pairs: list[tuple[str, str]] = []
        real: list[list[bool]] = []
        width = self._settings.negatives + 1
        for _ in range(self._settings.batch_size):
            row = rng.choice(rng.choices(self._sources, weights)[0][1])
            n = min(self._settings.negatives, len(row.negatives))
            chosen = [row.positive, *rng.sample(row.negatives, n)]
            real.append([place < len(chosen) for place in range(width)])
            chosen += [chosen[-1]] * (width - len(chosen))
            pairs += [(row.question, text) for text in chosen]
        return self._collate(pairs, real)

    def _collate(
        self, pairs: Sequence[tuple[str, str]], real: Sequence[Sequence[bool]]
    ) -> PairBatch:
        encodings = self._tokenizer.encode_batch(list(pairs))
        width = max(len(encoding.ids) for encoding in encodings)
        arrays = np.zeros((3, len(pairs), width), dtype=np.int64)
        for place, encoding in enumerate(encodings):
            n = len(encoding.ids)
            arrays[0, place, :n] = encoding.ids
            arrays[1, place, :n] = 1
            arrays[2, place, :n] = encoding.type_ids
        ids, mask, types = torch.from_numpy(arrays).to(self.device)
        return PairBatch(ids, mask, types, torch.tensor(real, device=self.device))

    def _scores(self, batch: PairBatch) -> Tensor:
        """Score pairs ``[L x C]``, in parts of like length, so that little padding is computed."""
        lengths = batch.attention_mask.sum(dim=1)
        order = lengths.argsort()
        parts = []
        for rows in order.chunk(max(1, len(order) // _PART)):
            width = int(lengths[rows].max())
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
                output = self.model(
                    input_ids=batch.input_ids[rows, :width],
                    attention_mask=batch.attention_mask[rows, :width],
                    token_type_ids=batch.token_type_ids[rows, :width],
                )
            parts.append(output.logits.float()[:, 0])
        scores: Tensor = torch.cat(parts)[order.argsort()]
        return scores

    def loss(self, batch: PairBatch) -> Tensor:
        """Mean cross-entropy of the positive among its list's candidates."""
        scores = self._scores(batch).view(batch.real.shape)
        scores = scores.masked_fill(~batch.real, float("-inf"))
        first = torch.zeros(len(scores), dtype=torch.long, device=self.device)
        return functional.cross_entropy(scores, first)

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Answer-recall (percent) of BM25 and of the reranker over BM25's first hits.

        ``reachable`` is that of all the hits: what a perfect reranker would reach.
        """
        hits = {f"{name}@{k}": 0 for name in ("bm25", "reranked") for k in _MEASURED_AT}
        hits["reachable"] = 0
        for row in self._validation:
            if not row.passages:
                continue
            pairs = [(row.question, text) for text in row.passages]
            scores = self._scores(self._collate(pairs, [[True]])).tolist()
            order = sorted(range(len(scores)), key=lambda place: -scores[place])
            for k in _MEASURED_AT:
                hits[f"bm25@{k}"] += any(row.answering[:k])
                hits[f"reranked@{k}"] += any(row.answering[place] for place in order[:k])
            hits["reachable"] += any(row.answering)
        return {name: 100 * count / max(1, len(self._validation)) for name, count in hits.items()}
