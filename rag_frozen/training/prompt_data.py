"""Rows for prompt training: what the reader reads, what it should write, what counts as right."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rag_frozen.errors import InputError, RecipeError
from rag_frozen.packing.template import PromptTemplate
from rag_frozen.training.files import read_json_lines
from rag_frozen.training.prompt_settings import PromptData, ReadingTask, TextTask
from rag_frozen.training.settings import ReadingSource
from rag_frozen.training.sources import hub_rows, map_rows, read_rows
from rag_frozen.types import Context, Kept, Question

__all__ = ["PromptRow", "PromptRows", "load_prompt_rows", "load_source"]


_BLOCK, _BLOCKS = 50, 10
"""Rows of a block, and blocks of which one is the test part."""


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One example: the context, the target text, and the answers that count as right."""

    context: Context
    target: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PromptRows:
    """Training rows by source with their weights, and validation rows."""

    training: tuple[tuple[float, tuple[PromptRow, ...]], ...]
    validation: tuple[PromptRow, ...]

    def pick(self, number: int, seed: int) -> PromptRow:
        """Training example ``number``: a pure function of it and the seed.

        Sources are drawn by weight; within one, rows come in a new order each time round.
        """
        chance = random.Random(f"{seed}:example:{number}")
        weights = [weight for weight, _ in self.training]
        [place] = chance.choices(range(len(weights)), weights=weights)
        rows = self.training[place][1]
        if len(weights) > 1:
            return rows[chance.randrange(len(rows))]
        turn, at = divmod(number, len(rows))
        return rows[_order(len(rows), f"{seed}:order:{turn}")[at]]


@lru_cache(maxsize=2)
def _order(n: int, seed: str) -> tuple[int, ...]:
    """``0 .. n - 1`` in an order of their own; remembered, for it is asked once an example."""
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return tuple(order)


def load_prompt_rows(data: PromptData, *, template: PromptTemplate, seed: int) -> PromptRows:
    """Read what the recipe names, and hold the validation rows out.

    Raises:
        InputError, DataFormatError: when a file is missing or malformed, or no row is left.
        RecipeError: when a row lacks a field that the recipe names.
    """
    seed = seed if data.split_seed is None else data.split_seed
    read = [
        (task, load_source(task, data.path, template=template, seed=seed)) for task in data.sources
    ]
    chance = random.Random(f"{seed}:validation")
    validation: list[PromptRow] = []
    training = []
    total = sum(len(rows) for _, rows in read)
    for task, rows in read:
        chance.shuffle(rows)
        held = 0
        if not data.validation:
            held = min(round(data.validation_rows * len(rows) / max(1, total)), len(rows) // 2)
        validation += rows[:held]
        kept = _without_questions(rows[held:], rows[:held])
        if data.limit is not None:
            kept = kept[: max(1, round(data.limit * len(rows) / total))]
        if not kept:
            raise InputError(f"The source {task.name} has no row to train on.")
        training.append((task.weight, tuple(kept)))
    for task in data.validation:
        rows = load_source(task, data.path, template=template, seed=seed)
        chance.shuffle(rows)
        validation += rows[: data.validation_rows]
    if not validation:
        raise InputError("No validation row is left. Set data.validation_rows, or add rows.")
    return PromptRows(tuple(training), tuple(validation))


def _without_questions(rows: Sequence[PromptRow], held: Sequence[PromptRow]) -> list[PromptRow]:
    asked = {row.context.question.text for row in held}
    return [row for row in rows if row.context.question.text not in asked]


def load_source(
    task: ReadingTask | TextTask, path: Path | None, *, template: PromptTemplate, seed: int
) -> list[PromptRow]:
    """Read one source's rows, in the file's order, as the reader will see them.

    Raises:
        InputError, DataFormatError, RecipeError: when it cannot be read or lacks a field.
    """
    if isinstance(task, TextTask):
        raw = hub_rows(task.hub) if path is None else read_json_lines(path / task.file)
        return [
            _text_row(task, row, number)
            for number, row in enumerate(raw)
            if _in_part(number, task.part)
        ]
    source = ReadingSource(
        name=task.name,
        file=task.file,
        hub=task.hub,
        max_rank=task.max_rank,
        min_overlap=task.min_overlap,
    )
    kept = [row for n, row in enumerate(read_rows(source, path)) if _in_part(n, task.part)]
    return _reading_rows(task, kept, template, seed)


def _in_part(number: int, part: str | None) -> bool:
    """Whether a file's row belongs to a part of it.

    >>> [_in_part(number, "test") for number in (0, 449, 450, 499, 500, 950)]
    [False, False, True, True, False, True]
    """
    return part is None or (number // _BLOCK % _BLOCKS == _BLOCKS - 1) == (part == "test")


def _reading_rows(
    task: ReadingTask, raw: Sequence[Mapping[str, Any]], template: PromptTemplate, seed: int
) -> list[PromptRow]:
    mapped = map_rows(raw, {}, set())
    answers = {str(row["question"]): tuple(map(str, row["answers"])) for row in raw}
    made = []
    for number, row in enumerate(mapped):
        chance = random.Random(f"{seed}:{task.name}:{number}")
        question = Question(f"{task.name}:{number}", row.question)
        passages = [row.passage]
        golds = [answer.lower() for answer in answers[row.question]]
        tries = 0
        while len(passages) < task.n_passages and tries < 50 * task.n_passages:
            tries += 1
            other = mapped[chance.randrange(len(mapped))].passage
            if not any(gold in other.text.lower() for gold in golds) and other not in passages:
                passages.append(other)
        chance.shuffle(passages)
        kept = tuple(Kept(str(place), 0) for place in range(len(passages)))
        context = Context(question, template.write(question, passages), 0, kept)
        made.append(PromptRow(context, row.answer, answers[row.question]))
    return made


def _text_row(task: TextTask, row: Mapping[str, Any], number: int) -> PromptRow:
    try:
        written = task.input.format_map(row)
        asked = (task.question or task.input).format_map(row)
        value = row[task.target]
    except KeyError as error:
        raise RecipeError(
            f"The source {task.name} has no field {error} in row {number} (fields: "
            f"{', '.join(map(str, row))}). The recipe uses: {', '.join(_fields(task))}."
        ) from error
    target = str(value)
    if task.labels is not None:
        if target not in task.labels:
            raise RecipeError(
                f"The source {task.name} has the label {target!r} in row {number}, which the "
                f"recipe does not write in words (it has {', '.join(task.labels)})."
            )
        target = task.labels[target]
    question = Question(f"{task.name}:{number}", asked)
    return PromptRow(Context(question, written, 0), target, (target,))


def _fields(task: TextTask) -> list[str]:
    named = [name for _, name, _, _ in string.Formatter().parse(task.input) if name]
    return [*dict.fromkeys([*named, task.target])]
