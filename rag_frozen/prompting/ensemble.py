"""Prompt ensembles (Lester et al. 2021, section 6): N prompts over one frozen reader, one batch.

Each context stands N times in the batch, once with each prompt; the answers are put to the vote.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rag_frozen.errors import InputError
from rag_frozen.protocols import Reader
from rag_frozen.reader.around import AroundReader
from rag_frozen.types import Context, Generation

__all__ = ["EnsembleReader", "Vote", "elect", "vote"]


@dataclass(frozen=True, slots=True)
class Vote:
    """How the members voted.

    ``winner`` is the place of the chosen member; ``agreement`` the share of the members that gave
    its answer; ``confidence`` the members' mean probability of that answer (a member that gave
    another counts 0), in [0, 1].
    """

    winner: int
    agreement: float
    confidence: float


class EnsembleReader(AroundReader):
    """A reader conditioned by several prompts of one bank; implements ``protocols.Reader``."""

    def __init__(
        self,
        reader: Reader,
        names: Sequence[str],
        *,
        normalize: Callable[[str], str],
        method: Literal["majority", "likelihood"] = "majority",
    ) -> None:
        """Set up.

        Args:
            reader: with a prompt bank that holds the names.
            names: of the prompts, at least one, all different.
            normalize: answers that it makes equal are one answer.
            method: ``majority`` counts members, and likelihood decides between equal counts;
                ``likelihood`` adds up the members' probabilities.

        Raises:
            InputError: when there is no name, or one twice.
        """
        if not names or len(set(names)) != len(names):
            raise InputError(f"An ensemble needs different prompts, at least one: {list(names)}")
        super().__init__(reader)
        self.names = tuple(names)
        self._normalize = normalize
        self._method = method

    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        """Answer each context with the members' choice.

        The generation is the winner's, its ``logprob`` the logarithm of the vote's confidence.
        """
        return [generation for generation, _ in self.generate_with_votes(contexts)]

    def generate_with_votes(self, contexts: Sequence[Context]) -> list[tuple[Generation, Vote]]:
        """The same, with how the members voted."""
        spread = [replace(context, soft_prompt=name) for context in contexts for name in self.names]
        written = self.reader.generate(spread)
        n = len(self.names)
        return [
            elect(written[start : start + n], normalize=self._normalize, method=self._method)
            for start in range(0, len(written), n)
        ]


def elect(
    members: Sequence[Generation],
    *,
    normalize: Callable[[str], str],
    method: Literal["majority", "likelihood"] = "majority",
) -> tuple[Generation, Vote]:
    """The winner of a vote, its ``logprob`` the logarithm of the vote's confidence, and the vote.

    >>> members = [Generation("Nile", -0.1, 1, "end"), Generation("the Nile", -0.3, 2, "end")]
    >>> winner, counted = elect(members, normalize=lambda text: text.removeprefix("the "))
    >>> winner.text, round(math.exp(winner.logprob), 3), counted.agreement
    ('Nile', 0.823, 1.0)
    """
    counted = vote(members, normalize=normalize, method=method)
    logprob = math.log(counted.confidence) if counted.confidence > 0 else -math.inf
    return replace(members[counted.winner], logprob=logprob), counted


def vote(
    members: Sequence[Generation],
    *,
    normalize: Callable[[str], str],
    method: Literal["majority", "likelihood"] = "majority",
) -> Vote:
    """Choose an answer.

    The winner among equal answers is the likeliest member's; members of equal likelihood are taken
    in order.

    >>> members = [Generation("Nile", -0.5, 1, "end"), Generation("nile", -0.1, 1, "end"),
    ...            Generation("Po", -0.05, 1, "end")]
    >>> vote(members, normalize=str.lower).winner
    1
    """
    groups: dict[str, list[int]] = {}
    for place, member in enumerate(members):
        groups.setdefault(normalize(member.text), []).append(place)
    weight = [math.exp(min(member.logprob, 0.0)) for member in members]

    def rank(places: list[int]) -> tuple[float, float]:
        total = sum(weight[place] for place in places)
        return (float(len(places)), total) if method == "majority" else (total, len(places))

    best = max(groups.values(), key=lambda places: (*rank(places), -places[0]))
    winner = max(best, key=lambda place: (weight[place], -place))
    total = sum(weight[place] for place in best)
    return Vote(winner, len(best) / len(members), min(1.0, total / len(members)))
