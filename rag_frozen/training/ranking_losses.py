"""Losses over lists of scored passages.

Binary cross-entropy and the softmax over a list are those of sentence-transformers; that of
In-Context RALM, and the softmax of what a reranker adds to its retrieval, are written here in the
same form: a module that is called with ``([questions, documents], labels)`` and scores the pairs
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = [
    "ListLoss",
    "LossName",
    "labels_of",
    "make_ranking_loss",
    "ralm_loss",
    "residual_loss",
]

LossName = Literal["bce", "softmax", "residual", "ralm"]


def ralm_loss(scores: Tensor, log_likelihoods: Tensor, real: Tensor) -> Tensor:
    """-log sum p_rank * p_LM: In-Context RALM's loss of a reranker (Ram et al. 2023, section 5.2).

    Args:
        scores: ``[L, C]``, the reranker's, whose softmax over a list is p_rank.
        log_likelihoods: ``[L, C]``, the frozen reader's of the answer given each passage, natural
            logarithms; no gradient flows to them.
        real: ``[L, C]`` booleans; False where a list has fewer candidates.

    Returns:
        The mean over lists, a scalar. It is least when p_rank lies on the passage after which the
        answer is most likely.

    >>> even = torch.zeros(1, 2)
    >>> likely = torch.log(torch.tensor([[0.5, 0.1]]))
    >>> round(float(torch.exp(-ralm_loss(even, likely, likely < 0))), 3)
    0.3
    """
    log_rank = scores.masked_fill(~real, float("-inf")).log_softmax(dim=1)
    joint = log_rank + log_likelihoods.masked_fill(~real, 0.0)
    return -joint.logsumexp(dim=1).mean()


def residual_loss(scores: Tensor, offsets: Tensor, real: Tensor) -> Tensor:
    """Cross-entropy of the first passage by the sum of the reranker's and the retrieval's score.

    The reranker learns what the retrieval gets wrong, since the sum is what ranks in the end
    (Gao et al. 2021, CLEAR, arXiv 2004.13969, trains a retriever beside BM25 so).

    Args:
        scores: ``[L, C]``, the reranker's.
        offsets: ``[L, C]``, the retrieval's times its weight.
        real: ``[L, C]`` booleans; False where a list has fewer candidates.

    Returns:
        The mean over lists, a scalar.

    >>> both = torch.ones(1, 2, dtype=torch.bool)
    >>> round(float(residual_loss(torch.zeros(1, 2), torch.tensor([[0.0, 0.0]]), both)), 3)
    0.693
    >>> round(float(residual_loss(torch.zeros(1, 2), torch.tensor([[9.0, 0.0]]), both)), 3)
    0.0
    """
    joined = (scores + offsets).masked_fill(~real, float("-inf"))
    return -joined.log_softmax(dim=1)[:, 0].mean()


class ListLoss(nn.Module):
    """:func:`ralm_loss` or :func:`residual_loss` in the form of sentence-transformers' listwise
    losses."""

    def __init__(
        self,
        model: Any,  # Any: a CrossEncoder, which is untyped
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, inputs: Sequence[Any], labels: Sequence[Tensor]) -> Tensor:
        """Score every pair and return the loss.

        Args:
            inputs: questions, and for each its documents.
            labels: for each question ``[C]``, the log-likelihoods or the weighted scores.
        """
        questions, lists = inputs
        pairs = [(q, text) for q, texts in zip(questions, lists, strict=True) for text in texts]
        scores = self.model(self.model.preprocess(pairs))["scores"].view(-1).float()
        counts = [len(texts) for texts in lists]
        padded = nn.utils.rnn.pad_sequence(list(scores.split(counts)), batch_first=True)
        given = nn.utils.rnn.pad_sequence(list(labels), batch_first=True)
        widths = torch.tensor(counts, device=scores.device)[:, None]
        real = torch.arange(padded.shape[1], device=scores.device) < widths
        return self._loss(padded, given.to(scores.device), real)


def make_ranking_loss(name: LossName, model: Any) -> nn.Module:  # Any: as above
    """The loss of a name over a cross-encoder."""
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, ListNetLoss

    match name:
        case "bce":
            return BinaryCrossEntropyLoss(model)  # type: ignore[no-any-return]
        case "softmax":
            return ListNetLoss(model, mini_batch_size=-1)  # type: ignore[no-any-return]
        case "residual":
            return ListLoss(model, residual_loss)
        case "ralm":
            return ListLoss(model, ralm_loss)


def labels_of(name: LossName, n_passages: int) -> list[float]:
    """Labels of a list whose first passage answers, for the losses that need no other scores.

    ListNet takes the softmax of its labels as the wanted distribution: with minus infinity for
    the others all of it lies on the first, and the loss is the cross-entropy of the positive.

    >>> labels_of("bce", 3), labels_of("softmax", 2)
    ([1.0, 0.0, 0.0], [0.0, -inf])
    """
    if name == "bce":
        return [1.0] + [0.0] * (n_passages - 1)
    return [0.0] + [float("-inf")] * (n_passages - 1)
