"""Train the pocket reranker: lists of a passage that answers and several near it that do not.

Hard negatives are what retrievers rank high and what holds no answer, as in localised contrastive
estimation (Gao et al. 2021, arXiv 2101.08751); In-Context RALM's loss takes the frozen reader's
judgement in place of the answer's match.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from rag_frozen.errors import InputError
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.ranking_losses import labels_of, make_ranking_loss
from rag_frozen.training.ranking_metrics import first_answer_metrics, rank_of_first_answer
from rag_frozen.training.ranking_rows import (
    RankingRow,
    RankingSource,
    ValidationList,
    draw_rows,
    written,
)
from rag_frozen.training.reranker_settings import RerankerTraining
from rag_frozen.training.sentence_trainer import PairModule, cross_encoder_of
from rag_frozen.types import Passage

__all__ = ["RankingBatch", "RerankerTask"]

_SCORED = 256
"""Pairs that are scored together in validation."""


@dataclass(frozen=True, slots=True)
class RankingBatch:
    """Questions; for each its passages, the positive first, and a label for each passage."""

    questions: tuple[str, ...]
    passages: tuple[tuple[str, ...], ...]
    labels: tuple[tuple[float, ...], ...]


class RerankerTask:
    """The pocket reranker as a task of the loop."""

    def __init__(
        self,
        classifier: nn.Module,
        tokenizer: Tokenizer,
        settings: RerankerTraining,
        *,
        sources: Sequence[RankingSource],
        validation: Sequence[ValidationList],
        bf16: bool,
        device: torch.device | None = None,
        share: Share = ALONE,
    ) -> None:
        """Put the classifier on the device and the loss around it.

        Args:
            classifier: with one label; its parameters with gradients are trained.
            tokenizer: its truncation and padding are set here.
            settings: the recipe's.
            sources: rows to draw from; for the loss ``ralm`` with log-likelihoods.
            validation: candidates of held-out questions.
            bf16: compute in bf16; weights stay in fp32.
            device: the CPU where it is None.
            share: this process's part of each batch.

        Raises:
            InputError: when rows lack log-likelihoods or the retriever's scores.
        """
        rows = [row for source in sources for row in source.rows]
        if settings.loss == "ralm" and any(len(r.log_likelihoods) < 2 for r in rows):
            raise InputError(
                "The loss ralm needs the reader's log-likelihoods of two passages or more for "
                "every row. Judge the rows first, with likelihood.depth: 2 or more."
            )
        if settings.retrieval_weight:
            _check_scores(rows, validation)
        self.device = device or torch.device("cpu")
        self.n_steps = -(-settings.examples // settings.batch_size)
        self._settings = settings
        self._sources = sources
        self._validation = validation
        self._share = share
        self._bf16 = bf16
        self._tokenizer = tokenizer
        self.use(classifier)

    @property
    def model(self) -> nn.Module:
        """The classifier."""
        return self._module.classifier

    def use(self, classifier: nn.Module) -> None:
        """Train or measure this classifier from now on."""
        self._module = PairModule(
            classifier.to(self.device),
            self._tokenizer,
            max_length=self._settings.max_length,
            bf16=self._bf16,
        )
        self._encoder = cross_encoder_of(self._module)
        self._loss = make_ranking_loss(self._settings.loss, self._encoder)
        self._encoder.train(self._settings.dropout)

    def batch(self, step: int) -> RankingBatch:
        """Draw the lists of a step from the seed and the step's number."""
        settings = self._settings
        rng = random.Random(f"{settings.seed}:{step}")
        rows = draw_rows(self._sources, settings.batch_size, rng=rng)
        lists = [self._list(row, rng) for row in rows]
        mine = self._share.take(list(zip(rows, lists, strict=True)))
        return RankingBatch(
            tuple(row.question for row, _ in mine),
            tuple(tuple(written(p) for p, _ in chosen) for _, chosen in mine),
            tuple(tuple(label for _, label in chosen) for _, chosen in mine),
        )

    def _list(self, row: RankingRow, rng: random.Random) -> list[tuple[Passage, float]]:
        """A positive, and passages beside it, with their labels."""
        n = self._settings.negatives
        if self._settings.loss == "ralm":
            judged = list(zip(row.candidates, row.log_likelihoods, strict=False))
            first = rng.randrange(min(len(row.positives), len(judged)))
            rest = [one for place, one in enumerate(judged) if place != first]
            return [judged[first], *rng.sample(rest, min(n, len(rest)))]
        chosen = [rng.choice(row.positives)]
        chosen += rng.sample(row.negatives, min(n, len(row.negatives)))
        if self._settings.loss == "residual":
            weight = self._settings.retrieval_weight
            return [(passage, weight * row.scores[passage.text]) for passage in chosen]
        return list(zip(chosen, labels_of(self._settings.loss, len(chosen)), strict=True))

    def loss(self, batch: RankingBatch) -> Tensor:
        """The recipe's loss, a scalar: mean over pairs for ``bce``, else over lists."""
        labels = [torch.tensor(row, device=self.device) for row in batch.labels]
        if self._settings.loss == "bce":
            asked = [
                question
                for question, texts in zip(batch.questions, batch.passages, strict=True)
                for _ in texts
            ]
            texts = [text for row in batch.passages for text in row]
            pairs: Tensor = self._loss([asked, texts], torch.cat(labels))
            return pairs
        listed: Tensor = self._loss([list(batch.questions), list(batch.passages)], labels)
        return listed

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Answer-recall and MRR (percent) as the first stage ranked the held-out candidates, and as
        the reranker does, its score joined with the retriever's by their weight. ``reachable`` is
        what a perfect reranker would reach."""
        self._encoder.eval()
        lists = self._validation
        pairs = [(row.question, written(p)) for row in lists for p in row.passages]
        scores: list[float] = []
        for start in range(0, len(pairs), _SCORED):
            features = self._encoder.preprocess(pairs[start : start + _SCORED])
            scores += self._encoder(features)["scores"][:, 0].tolist()
        self._encoder.train(self._settings.dropout)
        given = iter(scores)
        first = [rank_of_first_answer(row.answering) for row in lists]
        ours = [
            rank_of_first_answer(
                row.answering,
                [
                    next(given) + self._settings.retrieval_weight * row.scores.get(p.text, 0.0)
                    for p in row.passages
                ],
            )
            for row in lists
        ]
        reachable = 100 * sum(rank is not None for rank in first) / max(1, len(lists))
        return {
            **first_answer_metrics("retrieved", first),
            **first_answer_metrics("reranked", ours),
            "reachable": reachable,
        }


def _check_scores(rows: Sequence[RankingRow], lists: Sequence[ValidationList]) -> None:
    known = [(row.candidates, row.scores) for row in rows]
    known += [(row.passages, row.scores) for row in lists]
    lacking = sum(any(p.text not in scores for p in passages) for passages, scores in known)
    if lacking:
        raise InputError(
            f"{lacking} of {len(known)} rows do not have the retriever's score of every passage, "
            "which retrieval_weight is for. Train on rows that rag-frozen mine wrote, with "
            "held_out.candidates mined, too; or set retrieval_weight: 0."
        )
