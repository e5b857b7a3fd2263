"""Give the reader each passage in a prompt of its own, and say what each passage counts.

The prompts are written by the packer of the main path; what is read is merged by
``rag_frozen.reader.each``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rag_frozen.errors import InputError
from rag_frozen.packing.packer import GreedyPacker, without_duplicates
from rag_frozen.types import Context, Dropped, Passage, Question, Ranking

__all__ = ["EachPacker", "PassagePrior", "log_softmax"]


class EachPacker:
    """Packs each of a question's first passages alone; implements ``protocols.Packer``."""

    def __init__(self, packer: GreedyPacker) -> None:
        """Take the packer that writes the prompts; its ``max_passages`` is how many are read."""
        self.packer = packer

    def pack(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> list[Context]:
        """Return a context a question, with one in ``alone`` for each passage, best first.

        Passages that are empty or say what a better one said are left out; one that fits no prompt
        is dropped for ``budget``. A question without passages is packed closed book.

        Raises:
            InputError: when a question alone does not fit.
        """
        chosen = [self._choose(candidates) for candidates in passages]
        asked = [q for q, (first, _) in zip(questions, chosen, strict=True) for _ in first]
        flat = iter(self.packer.pack(asked, [[one] for first, _ in chosen for one in first]))
        packed = [[next(flat) for _ in first] for first, _ in chosen]
        plain = iter(
            self.packer.pack(
                [q for q, own in zip(questions, packed, strict=True) if not _with_passage(own)],
                [() for own in packed if not _with_passage(own)],
            )
        )
        made = []
        for own, (_, dropped) in zip(packed, chosen, strict=True):
            left_out = [*dropped, *(one for context in own for one in context.dropped)]
            alone = _with_passage(own)
            made.append(_joined(alone, left_out) if alone else _without(next(plain), left_out))
        return made

    def _choose(self, candidates: Sequence[Passage]) -> tuple[list[Passage], list[Dropped]]:
        unique, dropped = without_duplicates(candidates)
        most = len(unique) if self.packer.max_passages is None else self.packer.max_passages
        rest = [Dropped(passage.id, "limit", 0) for passage in unique[most:]]
        return unique[:most], [*dropped, *rest]


@dataclass(frozen=True, slots=True)
class PassagePrior:
    """p(z|x), what a passage counts: the softmax over the passages read of ``weight`` times their
    score in a ``stage`` (Lewis et al. 2020, section 2.2, where the weight is 1 and the score the
    retriever's inner product; Shi et al. 2023, REPLUG, equation 2).

    A passage that the stage did not rank gets the lowest score of its ranking, as in Spider's
    fusion. One passage alone counts 1, whatever its scores.
    """

    stage: str
    weight: float

    def __call__(self, context: Context, rankings: Mapping[str, Ranking]) -> Context:
        """Write the logarithms into the contexts of ``alone``; fewer than two stay as they are.

        Raises:
            InputError: when the stage is none of those that ranked.
        """
        if len(context.alone) < 2:
            return context
        if self.stage not in rankings:
            raise InputError(
                f"The passages of question {context.question.id!r} have no scores of the stage "
                f"{self.stage}; the stages are: {', '.join(rankings)}. Name one of these as "
                "reading.scores, or set reading={kind: packed}"
            )
        scores = {hit.passage_id: hit.score for hit in rankings[self.stage]}
        lowest = min(scores.values(), default=0.0)
        found = [scores.get(one.kept[0].passage_id, lowest) for one in context.alone]
        logpriors = log_softmax([self.weight * score for score in found])
        alone = [
            replace(one, logprior=logprior)
            for one, logprior in zip(context.alone, logpriors, strict=True)
        ]
        return replace(context, alone=tuple(alone))


def log_softmax(values: Sequence[float]) -> list[float]:
    """Natural logarithms of the softmax, in double precision, whatever the order of the values.

    >>> [round(value, 4) for value in log_softmax([1000.0, 1000.0])]
    [-0.6931, -0.6931]
    """
    highest = max(values)
    total = math.log(math.fsum(math.exp(value - highest) for value in values))
    return [value - highest - total for value in values]


def _with_passage(contexts: Sequence[Context]) -> list[Context]:
    return [context for context in contexts if context.kept]


def _joined(alone: Sequence[Context], dropped: Sequence[Dropped]) -> Context:
    return Context(
        alone[0].question,
        "\n".join(context.prompt for context in alone),
        sum(context.n_tokens for context in alone),
        tuple(kept for context in alone for kept in context.kept),
        tuple(dropped),
        alone=tuple(replace(context, dropped=()) for context in alone),
    )


def _without(context: Context, dropped: Sequence[Dropped]) -> Context:
    return replace(context, dropped=(*context.dropped, *dropped))
