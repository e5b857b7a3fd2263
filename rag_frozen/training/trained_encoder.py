"""An encoder that is trained by DPR's loss: what the trainings of retrievers share.

The loss is the negative log-likelihood of a question's passage among all passages of the batch
(Karpukhin et al. 2020, arXiv 2004.04906, section 3.2): sentence-transformers'
MultipleNegativesRankingLoss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from rag_frozen.retrieval.sentence_form import SentenceForm, pooling
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.sentence_trainer import TextModule, sentence_transformer_of

__all__ = ["TrainedEncoder"]


class TrainedEncoder:
    """The encoder of a task, on its device, with the loss around it."""

    def __init__(
        self,
        encoder: nn.Module,
        form: SentenceForm,
        tokenizer: Tokenizer,
        settings: RetrieverTraining,
        *,
        bf16: bool,
        device: torch.device | None = None,
        share: Share = ALONE,
    ) -> None:
        """Put the encoder on the device (the CPU where it is None).

        Args:
            encoder: a transformer; its parameters with gradients (the adapters) are trained.
            form: its pooling.
            tokenizer: its truncation and padding are set here.
            settings: the recipe's.
            bf16: compute in bf16; weights stay in fp32.
            device: where to train.
            share: this process's part of each batch.
        """
        self.device = device or torch.device("cpu")
        self.n_steps = -(-settings.examples // settings.batch_size)
        self._settings, self._share, self._bf16 = settings, share, bf16
        self._form, self._tokenizer = form, tokenizer
        self.use(encoder)

    @property
    def model(self) -> nn.Module:
        """The transformer with its adapters."""
        return self._module.encoder

    def use(self, encoder: nn.Module) -> None:
        """Train or measure this encoder from now on."""
        from sentence_transformers.sentence_transformer.losses import (
            MultipleNegativesRankingLoss,
        )

        self._module = TextModule(
            encoder.to(self.device),
            self._tokenizer,
            pooling(self._form),
            max_length=self._form.max_tokens,
            bf16=self._bf16,
        )
        self._encoder = sentence_transformer_of(self._module)
        # gathering: each process's passages are negatives of the questions of all
        self._loss = MultipleNegativesRankingLoss(
            self._encoder,
            scale=self._settings.scale,
            gather_across_devices=self._share.count > 1,
        )
        self._encoder.train(self._settings.dropout)

    def _embed(self, texts: Sequence[str], max_tokens: int) -> Tensor:
        """``[n, d]``."""
        features = self._module.preprocess(texts, max_length=max_tokens)
        vectors: Tensor = self._encoder(features)["sentence_embedding"]
        return vectors

    def _likelihood_loss(self, questions: Tensor, passages: Tensor) -> Tensor:
        """A scalar from ``[n, d]`` questions and ``[c * n, d]`` passages: what answers each, then
        the columns of hard negatives."""
        embeddings = [questions, *torch.split(passages, len(questions))]
        loss: Tensor = self._loss.compute_loss_from_embeddings(embeddings, None)
        return loss
