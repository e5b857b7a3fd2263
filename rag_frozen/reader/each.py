"""Read each passage alone and marginalise: p(y|x) = sum over passages z of p(z|x) p(y|x,z).

RAG-Sequence (Lewis et al. 2020, section 2.1) with its fast decoding (section 2.5): an answer that
the reader did not write for a passage has no probability there. REPLUG (Shi et al. 2023, section
3.2) takes the same sum token by token; here it is taken over whole answers, and answers that the
SQuAD scorer takes as equal are one answer.

Wraps any reader; what a passage counts was written into its context (``rag_frozen.packing.each``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from rag_frozen.protocols import Reader
from rag_frozen.reader.around import AroundReader
from rag_frozen.types import Context, Generation, ReadAlone

__all__ = ["EachReader", "log_sum_exp", "merge"]


class EachReader(AroundReader):
    """Reads the passages of a context one by one; implements ``protocols.Reader``."""

    def __init__(
        self, reader: Reader, *, normalize: Callable[[str], str], never_empty: bool = True
    ) -> None:
        """Set up.

        Args:
            reader: reads single prompts, all of a batch in one call.
            normalize: answers that it makes equal are one answer.
            never_empty: see :func:`merge`.
        """
        super().__init__(reader)
        self._normalize = normalize
        self._never_empty = never_empty

    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        """Answer each context; one that was not packed passage by passage is read as it is.

        A soft prompt that a context names conditions the reading of each of its passages. With
        sampling, all passages of a question draw the same noise.
        """
        spread = [
            replace(one, soft_prompt=context.soft_prompt)
            for context in contexts
            for one in context.alone or (context,)
        ]
        written = iter(self.reader.generate(spread))
        return [self._answer(context, written.__next__) for context in contexts]

    def _answer(self, context: Context, following: Callable[[], Generation]) -> Generation:
        if not context.alone:
            return following()
        read = [
            ReadAlone(one.kept[0].passage_id, following(), one.logprior) for one in context.alone
        ]
        return merge(read, normalize=self._normalize, never_empty=self._never_empty)


def merge(
    read: Sequence[ReadAlone], *, normalize: Callable[[str], str], never_empty: bool = True
) -> Generation:
    """Sum the probabilities of equal answers over the passages and choose the likeliest answer.

    It is shown in the form of the passage that adds most to it. Its ``logprob`` is that of the
    sum; what other answers got is missing from it. The order of the passages does not count.

    Args:
        read: what was written for each passage, at least one; their priors sum to 1.
        normalize: answers that it makes equal are one answer; one of which it leaves nothing is
            compared in lower case.
        never_empty: an empty answer keeps its probability, but is chosen only where there is no
            other.

    >>> def alone(name, text, p, logprior):
    ...     return ReadAlone(name, Generation(text, math.log(p), 2, "end"), math.log(logprior))
    >>> read = [alone("1", "Nile", 0.4, 0.5), alone("2", "the Po", 0.3, 0.25),
    ...         alone("3", "Po", 0.7, 0.25)]
    >>> merged = merge(read, normalize=lambda text: text.removeprefix("the "))
    >>> merged.text, round(math.exp(merged.logprob), 3), [one.passage_id for one in merged.alone]
    ('Po', 0.25, ['3', '2', '1'])
    """
    answers: dict[str, list[ReadAlone]] = {}
    for one in sorted(read, key=_weight):
        answers.setdefault(_key(one.generation.text, normalize), []).append(one)
    spoken = [members for key, members in answers.items() if key]
    rivals = spoken if spoken and never_empty else [*answers.values()]
    agreeing = max(rivals, key=_mass)  # the first of equals, which has the weightiest passage
    others = [one for members in answers.values() if members is not agreeing for one in members]
    return replace(
        agreeing[0].generation,
        logprob=_mass(agreeing),
        n_tokens=sum(one.generation.n_tokens for one in read),
        alone=(*agreeing, *sorted(others, key=_weight)),
    )


def log_sum_exp(values: Sequence[float]) -> float:
    """The logarithm of the sum of e^value, exact in double precision whatever the order.

    >>> round(log_sum_exp([-1000.0, -1000.0]), 4), log_sum_exp([-0.5]), log_sum_exp([-math.inf])
    (-999.3069, -0.5, -inf)
    """
    highest = max(values)
    if len(values) == 1 or highest == -math.inf:
        return highest
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))


def _key(text: str, normalize: Callable[[str], str]) -> str:
    return normalize(text) or " ".join(text.casefold().split())


def _mass(agreeing: Sequence[ReadAlone]) -> float:
    return log_sum_exp([one.logjoint for one in agreeing])


def _weight(one: ReadAlone) -> tuple[float, float, str, str]:
    """The weightiest passage first; equal ones in an order that is not that of reading."""
    return (-one.logjoint, -one.generation.logprob, one.passage_id, one.generation.text)
