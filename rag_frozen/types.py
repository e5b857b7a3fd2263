"""The values that flow through the pipeline. Frozen, with tuples inside.

Knows nothing about models, files or gold answers (those live in ``rag_frozen.evaluation``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = [
    "Answer",
    "Context",
    "Dropped",
    "Evidence",
    "Generation",
    "Hit",
    "Kept",
    "Passage",
    "Question",
    "Quotable",
    "Ranking",
    "ReadAlone",
    "sort_hits",
]


@dataclass(frozen=True, slots=True)
class Question:
    """A question as asked. ``id`` is unique within a run; ``text`` is never empty."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """About 100 words of an article (DPR style): its id, the article's title, the text."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One entry of a ranking. Scores are higher-is-better, whatever the engine."""

    passage_id: str
    score: float


Ranking = tuple[Hit, ...]
"""Hits best first; equal scores are ordered by passage id, ascending."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A passage that stands in the prompt.

    ``n_tokens`` counts the reader's tokens that it takes, separators included; ``cut`` is true
    when only its beginning fitted.
    """

    passage_id: str
    n_tokens: int
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """A passage that does not stand in the prompt, and why: ``duplicate``, ``budget``, ``limit``
    or ``empty``. ``n_tokens`` is 0 where it was decided without counting them."""

    passage_id: str
    reason: str
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Quotable:
    """What an answer may be: any run of whole words of one of the ``texts``, or one of the texts in
    ``also``, whole."""

    texts: tuple[str, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What the reader is given for one question, with the packing receipt.

    ``prompt`` is the whole text (template, passages, question); ``n_tokens`` its length in the
    reader's tokens, special tokens included; ``kept`` in the order in which they stand there.
    ``soft_prompt`` names the soft prompt that conditions the reader, where it has several;
    ``quotable`` says what an answer may be, where it must be quoted from the passages.

    Where passages are read one by one, ``alone`` holds a context for each of them, and ``prompt``
    and ``n_tokens`` are those of all of them together; ``logprior`` is the natural logarithm of
    what the passage of such a context counts beside the others, p(z|x).
    """

    question: Question
    prompt: str
    n_tokens: int
    kept: tuple[Kept, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    soft_prompt: str | None = None
    quotable: Quotable | None = None
    alone: tuple[Context, ...] = ()
    logprior: float = 0.0

    @property
    def passage_ids(self) -> tuple[str, ...]:
        """Ids of the packed passages, in the order in which they stand in the prompt."""
        return tuple(kept.passage_id for kept in self.kept)


@dataclass(frozen=True, slots=True)
class Generation:
    """What the reader wrote: the text, the sum of its tokens' natural-log probabilities (end
    token included), the number of tokens, and why it stopped: ``end``, ``newline`` or
    ``length``.

    Where passages were read one by one, ``alone`` holds what was written for each, those that
    agree with the answer first, then the others, the weightiest first; ``logprob`` is then the
    logarithm of their weighted sum of probabilities, and ``n_tokens`` counts all that was written.
    """

    text: str
    logprob: float
    n_tokens: int
    stop: str
    alone: tuple[ReadAlone, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadAlone:
    """What the reader wrote for one passage alone, and the natural logarithm of what the passage
    counted beside the others."""

    passage_id: str
    generation: Generation
    logprior: float

    @property
    def logjoint(self) -> float:
        """log(p(z|x) p(y|x,z)): the passage's share in the probability of what was written."""
        return self.logprior + self.generation.logprob


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage that the answer rests on.

    ``scores`` holds (stage, score) pairs in the order of the stages; ``offsets`` the half-open
    character ranges of ``passage.text`` at which the answer's text occurs (empty when it does
    not, as with a paraphrased or a yes/no answer). ``own`` is what the reader wrote for this
    passage alone, where passages are read one by one.
    """

    passage: Passage
    scores: tuple[tuple[str, float], ...]
    offsets: tuple[tuple[int, int], ...] = ()
    own: ReadAlone | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    ``text`` is empty when the reader says that the passages hold no answer. ``confidence`` is in
    [0, 1]: the probability that the reader gives to its own answer, e raised to the generation's
    ``logprob`` (over all passages, where each is read alone), or what the pipeline's calibration
    makes of it. ``abstained`` is true when the answer was withheld because its confidence is below
    what was asked for. ``hits`` is the final ranking (after reranking when there is a reranker);
    ``rankings`` holds (stage, ranking) pairs of what came before it: ``retrieve``, and beside a
    fused ranking each of those that it was fused from.
    ``seconds`` holds (stage, seconds) pairs; a batch's time is shared out evenly among its
    questions.
    """

    question: Question
    text: str
    confidence: float
    hits: Ranking = ()
    rankings: tuple[tuple[str, Ranking], ...] = field(default=(), repr=False)
    evidence: tuple[Evidence, ...] = ()
    seconds: tuple[tuple[str, float], ...] = ()
    abstained: bool = False
    context: Context | None = field(default=None, repr=False)
    generation: Generation | None = field(default=None, repr=False)


def sort_hits(hits: Iterable[Hit]) -> Ranking:
    """Order hits best first, ties by passage id.

    >>> sort_hits([Hit("b", 1.0), Hit("a", 1.0), Hit("c", 2.0)])[0].passage_id
    'c'
    >>> [hit.passage_id for hit in sort_hits([Hit("b", 1.0), Hit("a", 1.0)])]
    ['a', 'b']
    """
    return tuple(sorted(hits, key=lambda hit: (-hit.score, hit.passage_id)))
