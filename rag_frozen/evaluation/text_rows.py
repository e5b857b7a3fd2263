"""Read a task in texts as questions with answers: the question is all that the reader reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rag_frozen.errors import DataFormatError, InputError, RecipeError
from rag_frozen.evaluation.datasets import read_text
from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.evaluation.formats import json_lines
from rag_frozen.recipes.evaluation import TextRows
from rag_frozen.types import Question

__all__ = ["read_text_rows"]

Row = Mapping[str, Any]  # Any: JSON values


def read_text_rows(settings: TextRows, path: Path) -> ExampleSet:
    """Read a file of rows, plain or gzipped.

    An example's id is its row's ``id``, or its line number; its SHA-256 is the file's, with what
    the recipe makes of it.

    Raises:
        InputError: when the file cannot be opened, or holds no row.
        DataFormatError: for a line that is no JSON object, or an id that stands twice.
        RecipeError: when a row lacks a field that the recipe names, or has a label that it does
            not say in words.
    """
    text = read_text(path)
    examples: dict[str, Example] = {}
    by_input: dict[str, str] = {}
    for number, row in json_lines(path, text):
        where = f"{path}, line {number}"
        example = _example(settings, row, where, str(row.get("id", number)))
        asked, own = example.question.text, example.question.id
        if settings.group and asked in by_input:
            first = examples[by_input[asked]]
            golds = tuple(dict.fromkeys((*first.answers, *example.answers)))
            examples[first.question.id] = replace(first, answers=golds)
            continue
        if own in examples:
            raise DataFormatError(
                f"{where}: the id {own!r} stands in it twice. Ids must be unique."
            )
        by_input.setdefault(asked, own)
        examples[own] = example
    if not examples:
        raise InputError(f"{path} holds no row.")
    made = settings.model_dump_json(exclude={"path"})
    digest = hashlib.sha256(text.encode() + made.encode()).hexdigest()
    return ExampleSet(path.name, tuple(examples.values()), digest)


def _example(settings: TextRows, row: Row, where: str, row_id: str) -> Example:
    try:
        written = settings.input.format_map({key: _written(value) for key, value in row.items()})
        value = row[settings.target]
        tags = tuple((tag, str(row[tag])) for tag in settings.tags)
        golds = _golds(settings, row, value, where)
    except (KeyError, IndexError) as error:
        raise RecipeError(
            f"{where}: no {error} in this row (fields: {', '.join(map(str, row))}). Change "
            "data.input, data.target, data.choices or data.tags of the recipe."
        ) from error
    if row_id.split() != [row_id]:
        raise DataFormatError(f"{where}: the id {row_id!r} is empty or holds white space")
    return Example(Question(row_id, written), golds, tags=tags)


def _golds(settings: TextRows, row: Row, value: object, where: str) -> tuple[str, ...]:
    if settings.choices is not None:
        listed = row[settings.choices]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise DataFormatError(f"{where}: the target {value!r} is no place in a list")
        return (_text(where, listed[value]),)
    if settings.labels is not None:
        if str(value) not in settings.labels:
            raise RecipeError(
                f"{where}: the label {str(value)!r} is not said in words by data.labels (it has "
                f"{', '.join(settings.labels)})."
            )
        return (settings.labels[str(value)],)
    listed = value if isinstance(value, list) and value else [value]
    return tuple(dict.fromkeys(_text(where, one) for one in listed))


def _text(where: str, value: object) -> str:
    if (
        isinstance(value, bool)
        or not isinstance(value, str | int | float)
        or not str(value).strip()
    ):
        raise DataFormatError(f"{where}: the target {value!r} is neither a text nor a number")
    return str(value)


class _Listed(list[Any]):
    """A list that is written with semicolons."""

    def __format__(self, spec: str) -> str:
        return "; ".join(map(str, self))


def _written(value: object) -> object:
    return _Listed(value) if isinstance(value, list) else value
