"""One row of a passage file, as text, to a ``Passage`` or to what is wrong with it.

Knows the row formats (JSON objects of three dialects, DPR's tab-separated rows); nothing about
files, compression or line numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rag_frozen.types import Passage

__all__ = ["DPR_COLUMNS", "RowFault", "json_row", "split_tsv", "tsv_header", "tsv_row"]

DPR_COLUMNS = ("id", "text", "title")  # psgs_w100.tsv (Karpukhin et al. 2020)

_ID_NAMES = ("id", "_id")
_TEXT_NAMES = ("text", "contents")
_SHOWN = 60  # characters of a faulty row that a message shows
_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"(?!")')  # a quote right after would be a doubled one


@dataclass(frozen=True, slots=True)
class RowFault:
    """Why a row is no passage: a ``reason`` to count by, and the ``detail`` to show."""

    reason: str
    detail: str


def json_row(line: str) -> Passage | RowFault:
    """Read one JSON object: ``id``/``title``/``text``, BEIR's ``_id``, Pyserini's ``contents``.

    ``contents`` without a ``title`` beside it begins with the title when it has more than one line
    (Pyserini's wiki-dpr collections, which also put the title in quotes). A missing title is empty;
    an id may be a whole number; other fields are ignored.

    >>> json_row('{"id": 7, "contents": "\\\\"Aaron\\\\"\\\\nAaron is a prophet."}')
    Passage(id='7', title='Aaron', text='Aaron is a prophet.')
    >>> json_row('{"_id": "a", "title": "A"}').detail
    'no field text or contents, found: _id, title'
    """
    try:
        row: Any = json.loads(line)  # Any: checked field by field below
    except (ValueError, RecursionError) as error:
        return RowFault("bad JSON", f"{error} in {_shorten(line)}")
    if not isinstance(row, dict):
        return RowFault("bad JSON", f"an object is expected, found {_shorten(line)}")
    id_name = next((name for name in _ID_NAMES if name in row), None)
    text_name = next((name for name in _TEXT_NAMES if name in row), None)
    if id_name is None or text_name is None:
        lacking = "id or _id" if id_name is None else "text or contents"
        return RowFault("missing field", f"no field {lacking}, found: {', '.join(row) or 'none'}")
    title = row.get("title")
    if title is None:
        title = ""
    identity, text = row[id_name], row[text_name]
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = str(identity)
    for name, value in ((id_name, identity), (text_name, text), ("title", title)):
        if not isinstance(value, str):
            return RowFault("wrong type", f"{name} must be text, found {_shorten(repr(value))}")
    if text_name == "contents" and not title:
        title, text = _split_contents(text)
    return _checked(identity, title, text)


def tsv_header(fields: Sequence[str]) -> tuple[str, ...] | None:
    """Return the columns that a first row names, or None when it is a row of data.

    >>> tsv_header(["id", "text", "title"])
    ('id', 'text', 'title')
    >>> tsv_header(["1", "Aaron is a prophet.", "Aaron"]) is None
    True
    """
    names = tuple(field.strip().lower() for field in fields)
    names = tuple("id" if name in _ID_NAMES else name for name in names)
    return names if "id" in names and "text" in names else None


def tsv_row(fields: Sequence[str], columns: Sequence[str]) -> Passage | RowFault:
    """Read one row of a tab-separated file; ``columns`` names its fields in order.

    >>> tsv_row(["1", "Aaron is a prophet.", "Aaron"], DPR_COLUMNS)
    Passage(id='1', title='Aaron', text='Aaron is a prophet.')
    """
    if len(fields) != len(columns):
        return RowFault(
            "wrong column count",
            f"{len(columns)} columns ({', '.join(columns)}) are expected, found {len(fields)}",
        )
    row = dict(zip(columns, fields, strict=True))
    return _checked(row["id"], row.get("title", ""), row["text"])


def split_tsv(line: str) -> list[str] | RowFault | None:
    """Split a row at its tabs; a field in double quotes may hold tabs, line ends and ``""``.

    Returns None when a quoted field is still open at the end, so that the row may go on in the
    next line.

    >>> split_tsv('1\\t"He said ""no""."\\tA')
    ['1', 'He said "no".', 'A']
    >>> split_tsv('1\\t"open') is None
    True
    """
    if '"' not in line:
        return line.split("\t")
    fields: list[str] = []
    start = 0
    while True:
        if line.startswith('"', start):
            match = _QUOTED.match(line, start)
            if match is None:
                return None
            fields.append(match[1].replace('""', '"'))
            end = match.end()
            if end < len(line) and line[end] != "\t":
                return RowFault("bad quoting", f"text after a closing quote: {_shorten(line)}")
        else:
            end = line.find("\t", start)
            end = len(line) if end < 0 else end
            fields.append(line[start:end])
        if end >= len(line):
            return fields
        start = end + 1


def _split_contents(contents: str) -> tuple[str, str]:
    """Title and text of Pyserini's ``contents``."""
    first, line_end, rest = contents.partition("\n")
    if not line_end or not rest.strip():
        return "", contents
    title = first.strip()
    if match := _QUOTED.fullmatch(title):
        title = match[1].replace('""', '"')
    return title, rest


def _checked(identity: str, title: str, text: str) -> Passage | RowFault:
    if not identity.strip():
        return RowFault("missing field", "the id is empty")
    if not text.strip():
        return RowFault("empty text", f"the text of {_shorten(identity)} is empty")
    if not _is_text(identity + title + text):
        return RowFault("bad UTF-8", f"{_shorten(identity)} holds bytes that are no UTF-8")
    return Passage(id=identity, title=title, text=text)


def _is_text(value: str) -> bool:
    """Bytes that are no UTF-8 arrive as lone surrogates, as do JSON's broken escapes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shorten(value: str) -> str:
    shown = value.encode("utf-8", "backslashreplace").decode().strip()
    return repr(shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…")
