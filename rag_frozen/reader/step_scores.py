"""What stands between the model's scores of a step and the choice of the next token.

Processors as ``generate`` of transformers calls them: they keep log-probabilities, rule out end
tokens and what is no quotation, and draw samples row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rag_frozen.reader.decoding import Decoding
from rag_frozen.reader.quoting import QuotedAnswers, allow_quoted
from rag_frozen.reader.sampling import gumbel_noise

__all__ = ["Allowed", "WrittenLogprobs", "drawing"]


class WrittenLogprobs:
    """Sees each step's raw scores in ``generate`` and keeps, of each token that was then chosen,
    its log-probability; so only one step's scores ``[B, V]`` are held at a time."""

    def __init__(self) -> None:
        self._steps: list[Tensor] = []
        self._last: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._close(input_ids)
        self._last = torch.log_softmax(scores.float(), dim=-1)
        return scores

    def of(self, written: Tensor) -> Tensor:
        """Log-probabilities ``[B, A]`` of all tokens written ``[B, A]``."""
        self._close(written)
        return torch.stack(self._steps, dim=1)

    def _close(self, ids: Tensor) -> None:
        if self._last is not None:
            self._steps.append(self._last.gather(1, ids[:, -1:])[:, 0])


def drawing(decoding: Decoding, seeds: Sequence[int]) -> list[Any]:  # Any: logits processors
    """What turns scores so that the largest one is a sample, row by row."""
    if decoding.kind != "sample":
        return []
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    warped: list[Any] = [TemperatureLogitsWarper(decoding.temperature)]
    if decoding.top_p < 1:
        warped.append(TopPLogitsWarper(decoding.top_p))
    return [*warped, _RowNoise(seeds)]


class Allowed:
    """Rules the end tokens out for the first steps, and what is no quotation for all of them.
    transformers' own settings would do so before the raw scores are seen, and log-probabilities
    would be of the rest."""

    def __init__(
        self,
        ends: set[int],
        decoding: Decoding,
        front: int,
        quoted: Sequence[QuotedAnswers | None],
        breaks: Sequence[int],
    ) -> None:
        """Set up for one call of ``generate``.

        Args:
            ends: tokens that end an answer.
            decoding: says how long an answer must be.
            front: tokens of ``input_ids`` before the answer.
            quoted: what may be written of each prompt, None for anything.
            breaks: tokens that end an answer that is not empty.
        """
        self._ends = sorted(ends)
        self._left = decoding.min_new_tokens
        self._front = front
        self._quoted = quoted
        self._breaks = breaks

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        allowed = scores
        if self._left > 0 and self._ends:
            self._left -= 1
            allowed = scores.clone()
            allowed[:, self._ends] = float("-inf")
        beams = len(scores) // len(self._quoted)
        quoted = [one for one in self._quoted for _ in range(beams)]
        written = input_ids[:, self._front :].tolist()
        return allow_quoted(scores, allowed, quoted, written, ends=self._ends, breaks=self._breaks)


class _RowNoise:
    """Adds each row's own Gumbel noise, step by step."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._seeds = seeds
        self._step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = gumbel_noise(self._seeds, self._step, scores.shape[1]).to(scores.device)
        self._step += 1
        return torch.log_softmax(scores.float(), dim=-1) + noise
