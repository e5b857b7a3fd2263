"""Train the pocket retriever: adapters over MiniLM by DPR's loss.

The negative log-likelihood of a question's passage among all passages of the batch and the
question's hard negatives (Karpukhin et al. 2020, arXiv 2004.04906, section 3.2), which is
sentence-transformers' MultipleNegativesRankingLoss. Questions and passages share the encoder.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from rag_frozen.errors import InputError
from rag_frozen.evaluation.metrics import has_answer
from rag_frozen.retrieval.sentence_form import SentenceForm
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.ranking_metrics import first_answer_metrics, rank_of_first_answer
from rag_frozen.training.ranking_rows import (
    RankingSource,
    ValidationList,
    draw_rows,
    ranking_marks,
    written,
)
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.trained_encoder import TrainedEncoder

__all__ = ["RetrieverTask", "TripletBatch"]

_ENCODED = 256
"""Texts that are encoded together in validation."""
_POOL_DEPTHS = (5, 20)


@dataclass(frozen=True, slots=True)
class TripletBatch:
    """Questions, a passage that answers each, and columns of hard negatives, one for each."""

    questions: tuple[str, ...]
    positives: tuple[str, ...]
    negatives: tuple[tuple[str, ...], ...]


class RetrieverTask(TrainedEncoder):
    """The pocket retriever as a task of the loop."""

    def __init__(
        self,
        encoder: nn.Module,
        form: SentenceForm,
        tokenizer: Tokenizer,
        settings: RetrieverTraining,
        *,
        sources: Sequence[RankingSource],
        validation: Sequence[ValidationList],
        bf16: bool,
        device: torch.device | None = None,
        share: Share = ALONE,
    ) -> None:
        """Put the encoder on the device and the loss around it.

        Args:
            encoder: a transformer; its parameters with gradients (the adapters) are trained.
            form: its pooling.
            tokenizer: its truncation and padding are set here.
            settings: the recipe's.
            sources: rows to draw from; those with too few negatives are left out.
            validation: candidates of held-out questions.
            bf16: compute in bf16; weights stay in fp32.
            device: the CPU where it is None.
            share: this process's part of each batch.

        Raises:
            InputError: when no row has as many negatives as the recipe wants.
        """
        kept = [
            RankingSource(
                source.weight,
                tuple(row for row in source.rows if len(row.negatives) >= settings.negatives),
            )
            for source in sources
        ]
        self._sources = [source for source in kept if source.rows]
        if not self._sources:
            raise InputError(
                f"No question of the recipe has {settings.negatives} hard negatives. Mine from "
                "more hits (rag-frozen mine QUESTIONS --k 100 --out FILE), or set fewer negatives."
            )
        self._validation = validation
        super().__init__(encoder, form, tokenizer, settings, bf16=bf16, device=device, share=share)

    def batch(self, step: int) -> TripletBatch:
        """Draw the questions of a step, no two with a passage in common, from seed and step."""
        settings = self._settings
        rng = random.Random(f"{settings.seed}:{step}")
        rows = draw_rows(self._sources, settings.batch_size, rng=rng, marks=ranking_marks)
        drawn = [
            (row.question, rng.choice(row.positives), rng.sample(row.negatives, settings.negatives))
            for row in rows
        ]
        mine = self._share.take(drawn)
        columns = zip(*(negatives for _, _, negatives in mine), strict=True)
        return TripletBatch(
            tuple(question for question, _, _ in mine),
            tuple(written(positive) for _, positive, _ in mine),
            tuple(tuple(written(p) for p in column) for column in columns),
        )

    def loss(self, batch: TripletBatch) -> Tensor:
        """Mean negative log-likelihood of each question's passage, a scalar."""
        columns = [batch.positives, *batch.negatives]
        questions = self._embed(batch.questions, self._settings.max_question_tokens)
        texts = [text for column in columns for text in column]
        passages = self._embed(texts, self._settings.max_passage_tokens)
        return self._likelihood_loss(questions, passages)

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Answer-recall and MRR (percent) over each held-out question's candidates, as the first
        stage ranked them and as the vectors do; ``pool`` is the same among the candidates of all
        questions together, a small stand-in for the corpus (MRR over the first 20)."""
        self._encoder.eval()
        lists = self._validation
        texts = list(dict.fromkeys(written(p) for row in lists for p in row.passages))
        number = {text: place for place, text in enumerate(texts)}
        passages = self._embed_all(texts, self._settings.max_passage_tokens)
        asked = [row.question for row in lists]
        questions = self._embed_all(asked, self._settings.max_question_tokens)
        self._encoder.train(self._settings.dropout)
        scores = questions @ passages.T
        first = [rank_of_first_answer(row.answering) for row in lists]
        ours = [
            rank_of_first_answer(
                row.answering, scores[at, [number[written(p)] for p in row.passages]].tolist()
            )
            for at, row in enumerate(lists)
        ]
        deepest = min(max(_POOL_DEPTHS), len(texts))
        nearest = scores.topk(deepest, dim=1).indices.tolist() if texts else []
        pooled = [
            rank_of_first_answer([has_answer(texts[place], row.answers) for place in near])
            for row, near in zip(lists, nearest, strict=True)
        ]
        pool = first_answer_metrics("pool", pooled, depths=_POOL_DEPTHS)
        return {
            **first_answer_metrics("retrieved", first),
            **first_answer_metrics("dense", ours),
            **pool,
        }

    def _embed_all(self, texts: Sequence[str], max_tokens: int) -> Tensor:
        """``[n, d]`` on the CPU."""
        parts = [
            self._embed(texts[start : start + _ENCODED], max_tokens).cpu()
            for start in range(0, len(texts), _ENCODED)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, 1)
