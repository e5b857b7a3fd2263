"""Proof that a trained prompt is real: the base is unchanged, the prompt acts, and it survives
being saved and loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rag_frozen.prompting.heads import Head

__all__ = ["PromptProof", "ScoringReader", "prove_head", "time_head"]

_REPEATS = 3
"""Of a timing; the shortest counts."""


class ScoringReader(Protocol):
    """A reader that scores given answers."""

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
        soft_prompt: Tensor | None = None,
    ) -> Tensor:
        """``[B, A]``."""
        ...


@dataclass(frozen=True, slots=True)
class PromptProof:
    """What was found.

    ``base_before`` and ``base_after`` are digests of the frozen reader's weights;
    ``largest_difference`` is the largest change that the prompt makes to a log-probability of
    answer tokens; ``bitwise_after_loading`` says whether every tensor came back as it was, and
    ``difference_after_loading`` is the largest difference of log-probabilities between the prompt
    as trained and as loaded. ``plain`` and ``conditioned`` are exact match, in percent, on
    the validation rows, ``p`` the paired test's (McNemar, two-sided).
    """

    base_before: str
    base_after: str
    largest_difference: float
    bitwise_after_loading: bool
    difference_after_loading: float
    plain: float
    conditioned: float
    p: float
    validation_rows: int

    def faults(self, *, level: float = 0.05) -> list[str]:
        """What is wrong, in words; empty for a good prompt."""
        found = []
        if self.base_before != self.base_after:
            found.append("the frozen reader's weights changed")
        if not self.largest_difference > 0:
            found.append("the prompt does not change what the reader writes")
        if not self.bitwise_after_loading or self.difference_after_loading != 0:
            found.append("the prompt is not the same after saving and loading")
        if not (self.conditioned > self.plain and self.p < level):
            found.append(
                f"no gain over the plain reader that a paired test shows (exact match "
                f"{self.plain:.1f} plain, {self.conditioned:.1f} with it, p {self.p:.2g}, "
                f"{self.validation_rows} rows)"
            )
        return found

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """The fields and the faults as JSON values."""
        return {**asdict(self), "faults": self.faults()}


@torch.no_grad()
def prove_head(
    reader: ScoringReader,
    head: Head,
    loaded: Head,
    contexts: Sequence[Any],  # Any: contexts, which heads read
    answers: Sequence[str],
) -> tuple[float, bool, float]:
    """Compare a head with none, and with itself as it was loaded.

    Returns:
        The largest difference that it makes to a log-probability, whether the loaded tensors are
        bitwise its own, and the largest difference that loading makes.
    """
    prompts = reader.encode_prompts([context.prompt for context in contexts])
    targets = reader.encode_answers(answers)
    plain = reader.answer_logprobs(prompts, targets)
    conditioned = reader.answer_logprobs(prompts, targets, head.vectors(contexts))
    again = reader.answer_logprobs(prompts, targets, loaded.vectors(contexts))
    ours, theirs = head.module.state_dict(), loaded.module.state_dict()
    same = ours.keys() == theirs.keys() and all(
        torch.equal(tensor.cpu(), theirs[name].cpu()) for name, tensor in ours.items()
    )
    return (
        float((conditioned - plain).abs().max()),
        same,
        float((again - conditioned).abs().max()),
    )


@torch.no_grad()
def time_head(
    reader: ScoringReader,
    head: Head,
    contexts: Sequence[Any],  # Any: contexts, which heads read
    answers: Sequence[str],
) -> tuple[float, float]:
    """Time a batch of questions without and with a head, over the same answers.

    Scoring given answers takes the same steps in both, which writing answers would not: what is
    added is the making of the vectors and the reading of them.

    Returns:
        Seconds a question without and with the head, each the shortest of three.
    """
    prompts = reader.encode_prompts([context.prompt for context in contexts])
    targets = reader.encode_answers(answers)

    def shortest(once: Callable[[], object]) -> float:
        taken = []
        for _ in range(_REPEATS):
            began = time.perf_counter()
            once()
            taken.append(time.perf_counter() - began)
        return min(taken) / len(contexts)

    return (
        shortest(lambda: reader.answer_logprobs(prompts, targets)),
        shortest(lambda: reader.answer_logprobs(prompts, targets, head.vectors(contexts))),
    )
