"""What a question encoder is trained and measured on: questions, and rows of a passage bank.

Training rows name passages that answer; which passages do not is looked up in the bank while the
encoder is trained. Held-out questions are measured over the whole bank.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_frozen.errors import InputError
from rag_frozen.normalization import normalize_answer
from rag_frozen.training.passage_bank import PassageBank
from rag_frozen.training.ranking_data import (
    holds,
    read_sources,
    row_answers,
    row_passages,
    split_off,
)
from rag_frozen.training.retriever_settings import BankSettings, RetrieverTraining
from rag_frozen.training.sources import read_rows
from rag_frozen.types import Passage

__all__ = ["AnsweredQuestion", "BankRow", "BankSource", "bank_marks", "load_bank_data"]

Row = Mapping[str, Any]  # Any: JSON values


@dataclass(frozen=True, slots=True)
class BankRow:
    """A question, its answers, and the bank's rows of passages that answer it."""

    question: str
    answers: tuple[str, ...]
    positives: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BankSource:
    """Rows that are drawn with a weight."""

    weight: float
    rows: tuple[BankRow, ...]


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A held-out question."""

    question: str
    answers: tuple[str, ...]


def bank_marks(row: BankRow) -> list[object]:
    """The question and its positives, by which rows of a batch are kept apart."""
    return [row.question, *row.positives]


def load_bank_data(
    settings: RetrieverTraining, bank: PassageBank
) -> tuple[list[BankSource], dict[str, list[AnsweredQuestion]]]:
    """Load the sources, and the held-out questions by the name that their metrics have.

    ``rows`` are those of ``held_out.rows``, ``questions`` those of ``bank.questions``. None of
    them, and no question about the titles that are held out, is in a source; the same question
    written with other case or punctuation is the same question.

    Raises:
        InputError: when a file is missing, or no passage of the sources is in the bank.
    """
    assert settings.bank is not None
    data = settings.data
    rows_of = read_sources(data)
    out = split_off(rows_of, data.held_out)
    held = {normalize_answer(str(row["question"])) for rows in out.values() for row in rows}
    asked = _held_questions(settings.bank, settings, held)
    held |= {normalize_answer(str(row["question"])) for row in asked}
    sources = _sources(settings, rows_of, held, bank)
    measured = {"rows": [_asked(row) for row in out[data.held_out.rows.name]]}
    if asked:
        measured["questions"] = [_asked(row) for row in asked]
    return sources, measured


def _held_questions(
    settings: BankSettings, training: RetrieverTraining, held: set[str]
) -> list[Row]:
    if settings.questions is None:
        return []
    rows = [
        row
        for row in read_rows(settings.questions, training.data.path)
        if normalize_answer(str(row["question"])) not in held
    ]
    rng = random.Random(f"{training.data.held_out.seed}:questions")
    return rng.sample(rows, min(settings.n_questions, len(rows)))


def _sources(
    settings: RetrieverTraining,
    rows_of: Mapping[str, Sequence[Row]],
    held: set[str],
    bank: PassageBank,
) -> list[BankSource]:
    usable = {
        source.name: [
            (row, _positives(row))
            for row in rows_of[source.name]
            if not row.get("near_nq_eval_passage")
            and normalize_answer(str(row["question"])) not in held
        ]
        for source in settings.data.questions
    }
    row_of = bank.rows_of(p for rows in usable.values() for _, ps in rows for p in ps)
    sources = []
    for source in settings.data.questions:
        made = []
        for row, passages in usable[source.name]:
            positives = tuple(dict.fromkeys(row_of[p] for p in passages if p in row_of))
            if positives:
                made.append(BankRow(str(row["question"]), row_answers(row), positives))
        if made:
            sources.append(BankSource(source.weight, tuple(made)))
    if not sources:
        raise InputError(
            f"None of the passages of the recipe's questions is among the {len(bank):,} of the "
            "index, by id or by text. Name the index of the corpus that they were taken from, or "
            "mine questions from it: rag-frozen mine"
        )
    return sources


def _positives(row: Row) -> list[Passage]:
    answers = row_answers(row)
    return [p for p in row_passages(row.get("positives", (row,))) if holds(p.text, answers)]


def _asked(row: Row) -> AnsweredQuestion:
    return AnsweredQuestion(str(row["question"]), row_answers(row))
