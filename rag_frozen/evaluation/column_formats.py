"""Published forms of question files in columns: DPR's, CuratedTREC's, PopQA's.

Answers are read as data, never evaluated.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from rag_frozen.errors import DataFormatError

__all__ = ["numbered_lines", "read_curatedtrec", "read_dpr_tsv", "read_popqa", "tell_columns"]

Row = Mapping[str, Any]  # Any: not checked yet

_SHOWN = 80  # characters of a malformed line that a message shows
_POPQA = {"question", "possible_answers"}  # columns of its header
_CURATED = re.compile(r"[^\t\n]+\t[a-z]+\t[^\t\n]+\t[^\t\n]+(\n|$)")


def tell_columns(text: str) -> Literal["popqa", "curatedtrec", "dpr-tsv"]:
    """Tell the form of a text in columns by its first line.

    >>> tell_columns("who\\t['he']"), tell_columns("2388\\tfactoid\\twhich play\\tAfter the Fall")
    ('dpr-tsv', 'curatedtrec')
    """
    text = text.lstrip()
    if _POPQA.issubset(text.split("\n", 1)[0].split("\t")):
        return "popqa"
    return "curatedtrec" if _CURATED.match(text) else "dpr-tsv"


def read_dpr_tsv(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    """``question<TAB>['answer', …]``, as DPR's files have it."""
    for number, line in numbered_lines(text):
        question, _, listed = line.partition("\t")
        answers = _literal(_unquoted(listed))
        if not isinstance(answers, list | tuple):
            raise DataFormatError(
                f"{path}, line {number}: expected question<TAB>['answer', …], "
                f"found {line[:_SHOWN]!r}"
            )
        row = {"line": number, "question": _unquoted(question), "answers": list(answers)}
        yield f"{path}, line {number}", row


def read_curatedtrec(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    """CuratedTREC as first published: id, kind, question and one regular expression, by tabs."""
    for number, line in numbered_lines(text):
        parts = line.split("\t")
        if len(parts) != 4:
            raise DataFormatError(
                f"{path}, line {number}: expected id<TAB>kind<TAB>question<TAB>pattern, found "
                f"{line[:_SHOWN]!r}"
            )
        row = {"id": parts[0], "question": parts[2], "answers": [parts[3]], "patterns": True}
        yield f"{path}, line {number}", row


def read_popqa(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    """PopQA: a header, and among its columns ``id``, ``question`` and ``possible_answers``, a list
    in JSON."""
    rows = csv.DictReader(io.StringIO(text), delimiter="\t")
    for number, found in enumerate(rows, 1):
        answers = _literal(found.get("possible_answers") or "")
        if not isinstance(answers, list):
            raise DataFormatError(
                f"{path}, row {number}: possible_answers is no list: "
                f"{str(found.get('possible_answers'))[:_SHOWN]!r}"
            )
        row = {"id": found.get("id"), "question": found.get("question"), "answers": answers}
        yield f"{path}, row {number}", {"line": number, **row}


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines that hold something, numbered; only a line feed ends a line, as in JSONL."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r")


def _unquoted(field: str) -> str:
    """Undo the quotes of a CSV field, as DPR's files have them around answers with quotes in them.

    >>> _unquoted('"[""O\\'Brien""]"')
    '["O\\'Brien"]'
    """
    field = field.strip()
    if len(field) > 1 and field[0] == field[-1] == '"':
        return field[1:-1].replace('""', '"')
    return field


def _literal(text: str) -> object:
    """Read a list as JSON or Python writes it; None when it is neither.

    JSON first: Python reads most of it too, but its escapes of surrogate pairs otherwise.
    """
    for read in (json.loads, ast.literal_eval):
        try:
            value: object = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value
    return None
