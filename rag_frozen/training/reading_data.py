"""The examples that a reader is trained on, each a pure function of a seed and its number.

Example i of N is made from nothing but (seed, i, N) and the data, so that a training can stop
anywhere and go on without any saved state of its data. Sources and targets are text; the task
turns them into tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from rag_frozen.errors import InputError
from rag_frozen.packing.template import PromptTemplate
from rag_frozen.training.cloze import crop_around, make_cloze
from rag_frozen.training.substitution import Substitutes
from rag_frozen.types import Passage, Question

__all__ = ["Mixture", "ReadingData", "ReadingExample", "ReadingRow"]


@dataclass(frozen=True, slots=True)
class ReadingRow:
    """A question, the passage that answers it, the answer as it stands there, and distractors."""

    question: str
    answer: str
    passage: Passage
    negatives: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadingExample:
    """What the reader sees and what it should write."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of the kinds of examples. ``cloze_*`` fall in a line over the first ``cloze_until``
    of the training; the rest is reading, of which ``several`` hold more than one passage in the
    end (none at the start); ``no_answer`` of those hold none that answers, and an empty target.
    ``no_answer_alone`` of the questions with a single passage are shown a distractor in its
    place, and have an empty target too. In ``substitute`` of what is read another answer stands in
    the passage (see :class:`~rag_frozen.training.substitution.Substitutes`)."""

    cloze_start: float = 0.9
    cloze_end: float = 0.15
    cloze_until: float = 0.6
    language_model: float = 0.03
    closed_book: float = 0.02
    yes_no: float = 0.03
    several: float = 0.4
    several_from: float = 0.4
    no_answer: float = 0.0
    no_answer_alone: float = 0.0
    n_passages: int = 3
    crop: float = 0.5
    substitute: float = 0.0


@dataclass(slots=True)
class ReadingData:
    """All that examples are made from, in memory.

    ``reading`` pairs rows with a weight a source. ``passages`` stand in corpus order, so that
    neighbours are of the same article.
    """

    passages: Sequence[Passage]
    reading: Sequence[tuple[float, Sequence[ReadingRow]]]
    yes_no: Sequence[ReadingRow]
    closed_book: Sequence[tuple[str, str]]
    template: PromptTemplate
    mixture: Mixture
    seed: int
    _by_title: dict[str, list[Passage]] = field(default_factory=dict)
    _substitutes: Substitutes = field(default_factory=Substitutes)

    def __post_init__(self) -> None:
        if not self.passages or not any(rows for _, rows in self.reading):
            raise InputError(
                "Training a reader needs passages and reading rows, and one of them is empty. "
                "Name the data with: --set data.path=FOLDER"
            )
        for _, rows in self.reading:
            for row in rows:
                group = self._by_title.setdefault(row.passage.title, [])
                if row.passage not in group[-3:]:
                    group.append(row.passage)
        if self.mixture.substitute:
            self._substitutes = Substitutes.of(
                (row.question, row.answer) for _, rows in self.reading for row in rows
            )

    def example(self, number: int, total: int) -> ReadingExample:
        """Make example ``number`` of ``total``, the same whenever it is asked for."""
        rng = random.Random(f"{self.seed}:{number}")
        progress = number / max(total, 1)
        mix = self.mixture
        fallen = min(progress / mix.cloze_until, 1.0)
        cloze = mix.cloze_start + (mix.cloze_end - mix.cloze_start) * fallen
        draw = rng.random()
        if draw < mix.language_model:
            return self._continuation(rng)
        draw -= mix.language_model
        if draw < mix.closed_book and self.closed_book:
            question, answer = rng.choice(self.closed_book)
            return self._written(question, answer, [])
        draw -= mix.closed_book
        if draw < mix.yes_no and self.yes_no:
            return self._read(rng.choice(self.yes_no), rng, several=False)
        rest = 1.0 - mix.language_model - mix.closed_book - mix.yes_no
        share = max(0.0, (progress - mix.several_from) / (1.0 - mix.several_from))
        several = rng.random() < mix.several * min(1.0, 2.0 * share)
        if draw - mix.yes_no < cloze * rest:
            return self._cloze(rng, several=several)
        rows = rng.choices(
            [rows for _, rows in self.reading], [weight for weight, _ in self.reading]
        )[0]
        return self._read(rng.choice(rows), rng, several=several)

    def _continuation(self, rng: random.Random) -> ReadingExample:
        passage = rng.choice(self.passages)
        words = passage.text.split()
        cut = rng.randint(min(8, len(words) // 2), max(len(words) // 2, 8))
        return ReadingExample(
            f"{passage.title}. {' '.join(words[:cut])}", " ".join(words[cut : cut + 20])
        )

    def _cloze(self, rng: random.Random, *, several: bool) -> ReadingExample:
        while True:
            index = rng.randrange(len(self.passages))
            passage = self.passages[index]
            made = make_cloze(passage.title, passage.text, rng)
            if made is not None:
                break
        negatives: tuple[Passage, ...] = ()
        if several:
            near = (*range(index - 2, index), *range(index + 1, index + 3))
            negatives = tuple(self.passages[i % len(self.passages)] for i in near)
        row = ReadingRow(made.question, made.answer, passage, negatives)
        return self._read(row, rng, several=several, start=made.start)

    def _read(
        self, row: ReadingRow, rng: random.Random, *, several: bool, start: int | None = None
    ) -> ReadingExample:
        if several:
            wanted = self.mixture.n_passages - 1
            pool = self._distractors(row, wanted)
            chosen = rng.sample(pool, min(wanted, len(pool)))
            if chosen and self.mixture.no_answer and rng.random() < self.mixture.no_answer:
                without = [p for p in chosen if row.answer.lower() not in p.text.lower()]
                if without:  # nothing to be found: the answer is to say nothing
                    return self._written(row.question, "", without)
            gold, answer = self._gold(row, rng, start)
            passages = [gold, *chosen]
            rng.shuffle(passages)
            return self._written(row.question, answer, passages)
        alone = self.mixture.no_answer_alone
        if alone and start is None and row.answer not in ("yes", "no") and rng.random() < alone:
            pool = self._distractors(row, 1)
            if pool:
                return self._written(row.question, "", [rng.choice(pool)])
        gold, answer = self._gold(row, rng, start)
        at = gold.text.find(answer) if start is None else start
        if at >= 0 and rng.random() < self.mixture.crop:
            n_words = rng.randint(40, 90)
            text = crop_around(gold.text, at, at + len(answer), n_words=n_words, rng=rng)
            gold = Passage(gold.id, gold.title, text)
        return self._written(row.question, answer, [gold])

    def _gold(self, row: ReadingRow, rng: random.Random, start: int | None) -> tuple[Passage, str]:
        """The passage that answers, and the answer: its own, or another that now stands there. A
        cloze question's stays, whose ``start`` is known."""
        share = self.mixture.substitute
        if not share or start is not None or rng.random() >= share:
            return row.passage, row.answer
        return self._substitutes.put_in(row.question, row.answer, row.passage, rng)

    def _distractors(self, row: ReadingRow, wanted: int) -> list[Passage]:
        """The row's own, and where they are fewer than wanted those of its article."""
        gold = row.passage
        pool = [p for p in row.negatives if p.text != gold.text]
        if len(pool) < wanted:
            same = self._by_title.get(gold.title, [])
            pool += [p for p in same if p.text != gold.text and row.answer not in p.text]
        return pool

    def _written(self, question: str, answer: str, passages: Sequence[Passage]) -> ReadingExample:
        return ReadingExample(self.template.write(Question("", question), passages), answer)
