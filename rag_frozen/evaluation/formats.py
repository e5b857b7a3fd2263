"""Published forms of question files, each as rows of ``question`` and ``answers``.

A form is named in the recipe, or told by what only it has. Every reader yields (place, row): the
place names the entry in messages. Rows are checked by ``datasets``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.evaluation.column_formats import (
    numbered_lines,
    read_curatedtrec,
    read_dpr_tsv,
    read_popqa,
    tell_columns,
)
from rag_frozen.recipes.evaluation import QuestionFormat

__all__ = [
    "FORMATS",
    "QuestionFormat",
    "Row",
    "json_lines",
    "read_beir",
    "rows_of",
    "tell_format",
]

Row = Mapping[str, Any]  # Any: not checked yet

_SHOWN = 80  # characters of a malformed line that a message shows


def tell_format(path: Path, text: str) -> QuestionFormat:
    """Tell the form of a file by its name and its first entry.

    >>> tell_format(Path("nq-test.csv"), "who\\t['he']")
    'dpr-tsv'
    >>> tell_format(Path("dev.json"), '{"version": "1.1", "data": [{"paragraphs": []}]}')
    'squad'
    """
    start = text.lstrip()[:1]
    name = path.name.removesuffix(".gz")
    if name.endswith((".tsv", ".csv", ".txt")) and start != "{":  # DrQA's .txt are JSONL
        return tell_columns(text)
    whole = _whole_json(text) if start in ("[", "{") else None
    match whole:
        case {"data": [*_]}:
            return "squad"
        case {"Data": [*_]}:
            return "triviaqa"
        case [{"utterance": _}, *_] | [{"qText": _}, *_]:
            return "webquestions"
        case [{"question": _}, *_]:
            return "dpr-json"
    first = _whole_json(text.lstrip().split("\n", 1)[0])
    if isinstance(first, dict) and "input" in first and "output" in first:
        return "kilt"
    return "jsonl"


def rows_of(path: Path, text: str, form: QuestionFormat) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file.

    Raises:
        DataFormatError: for an entry that is not of the form; the message names it.
    """
    return FORMATS[form](path, text)


def read_beir(folder: Path, *, split: str) -> Iterator[tuple[str, Row]]:
    """Yield the questions of a BEIR folder that its qrels judge: ``queries.jsonl`` and
    ``qrels/SPLIT.tsv``. The best judged passage is the gold one (ties by id); answers come from
    ``metadata.answer`` where a data set has them, and are empty elsewhere.

    Raises:
        InputError: when a file is missing.
        DataFormatError: for a malformed line.
    """
    judged: dict[str, dict[str, int]] = {}
    qrels = folder / "qrels" / f"{split}.tsv"
    for number, line in numbered_lines(_text(qrels)):
        parts = line.split("\t")
        if number == 1 and parts[:2] == ["query-id", "corpus-id"]:
            continue
        try:
            query, passage, grade = parts[0], parts[1], int(parts[2])
        except (IndexError, ValueError) as error:
            raise DataFormatError(
                f"{qrels}, line {number}: expected query-id<TAB>corpus-id<TAB>score (a whole "
                f"number), found {line[:_SHOWN]!r}"
            ) from error
        judged.setdefault(query, {})[passage] = grade
    queries = folder / "queries.jsonl"
    for number, line in numbered_lines(_text(queries)):
        row = _object(queries, number, line)
        key = str(row.get("_id"))
        grades = judged.get(key, {})
        if any(grade > 0 for grade in grades.values()):
            found = (row.get("metadata") or {}).get("answer", [])
            answers = [found] if isinstance(found, str) else list(found)
            yield (
                f"{queries}, line {number}",
                {
                    "id": key,
                    "question": row.get("text"),
                    "answers": answers,
                    "gold": min(grades, key=lambda one: (-grades[one], one)),
                    "qrels": tuple(grades.items()),
                },
            )


def json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSONL text with their line numbers; raise ``DataFormatError`` for a
    line that is none."""
    for number, line in numbered_lines(text):
        yield number, _object(path, number, line)


def _jsonl(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    for number, line in numbered_lines(text):
        yield f"{path}, line {number}", {**_object(path, number, line), "line": number}


def _dpr_json(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    """``[{question, answers, positive_ctxs: [{title, text, passage_id}], ...}]``."""
    for number, entry in _entries(path, _parsed(path, text)):
        row = {"line": number, "question": entry.get("question"), "answers": entry.get("answers")}
        contexts = entry.get("positive_ctxs") or []
        if contexts and isinstance(contexts[0], dict):
            gold = contexts[0]
            found = gold.get("passage_id", gold.get("psg_id"))
            row |= {"gold": found, "title": gold.get("title"), "text": gold.get("text")}
        yield f"{path}, entry {number}", row


def _kilt(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    """``{id, input, output: [{answer, provenance}]}`` a line; several answers are aliases."""
    for number, line in numbered_lines(text):
        entry = _object(path, number, line)
        outputs = entry.get("output") or []
        answers = [one["answer"] for one in outputs if isinstance(one, dict) and one.get("answer")]
        row = {"id": entry.get("id"), "question": entry.get("input"), "answers": answers}
        yield f"{path}, line {number}", {"line": number, **row}


def _squad(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    """SQuAD 1.1 and 2.0; what 2.0 calls impossible has no answer."""
    parsed = _parsed(path, text)
    for number, article in _entries(path, parsed.get("data") if isinstance(parsed, dict) else None):
        for paragraph in article.get("paragraphs", []):
            for one in paragraph.get("qas", []):
                answers = list(dict.fromkeys(a["text"] for a in one.get("answers", [])))
                yield (
                    f"{path}, article {number}, question {one.get('id')}",
                    {
                        "id": one.get("id"),
                        "question": one.get("question"),
                        "answers": [] if one.get("is_impossible") else answers,
                        "title": str(article.get("title", "")).replace("_", " "),
                        "text": paragraph.get("context"),
                    },
                )


def _triviaqa(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    """TriviaQA's ``Data``: the value and its aliases count; the normalised ones are left out, for
    our own normalisation applies."""
    parsed = _parsed(path, text)
    for number, entry in _entries(path, parsed.get("Data") if isinstance(parsed, dict) else None):
        answer = entry.get("Answer") or {}
        listed = [answer.get("Value"), *answer.get("Aliases", []), *answer.get("HumanAnswers", [])]
        yield (
            f"{path}, entry {number}",
            {
                "id": entry.get("QuestionId"),
                "question": entry.get("Question"),
                "answers": list(dict.fromkeys(one for one in listed if one)),
            },
        )


_DESCRIPTION = re.compile(r'\(description (?:"((?:[^"\\]|\\.)*)"|([^()]*))\)')


def _webquestions(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    """WebQuestions as first published (``utterance``, ``targetValue`` as a Lisp list), and in the
    form of ``qText`` and ``answers``."""
    for number, entry in _entries(path, _parsed(path, text)):
        target = entry.get("targetValue")
        if isinstance(target, str):
            found = _DESCRIPTION.findall(target)
            answers = [(quoted or bare).replace('\\"', '"').strip() for quoted, bare in found]
        else:
            answers = entry.get("answers") or []
        row = {
            "id": entry.get("qId"),
            "question": entry.get("utterance", entry.get("qText")),
            "answers": answers,
        }
        yield f"{path}, entry {number}", {"line": number, **row}


def _beir(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    raise InputError(
        f"{path} is a file; a BEIR data set is a folder with queries.jsonl and qrels/."
    )


FORMATS: dict[QuestionFormat, Callable[[Path, str], Iterator[tuple[str, Row]]]] = {
    "jsonl": _jsonl,
    "dpr-tsv": read_dpr_tsv,
    "dpr-json": _dpr_json,
    "kilt": _kilt,
    "squad": _squad,
    "triviaqa": _triviaqa,
    "webquestions": _webquestions,
    "curatedtrec": read_curatedtrec,
    "popqa": read_popqa,
    "beir": _beir,
}
"""The readers by name."""


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataFormatError(f"{path}, line {number}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataFormatError(f"{path}, line {number}: not a JSON object")
    return row


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataFormatError(f"{path}: not JSON: {error}") from error


def _entries(path: Path, listed: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    if not isinstance(listed, list):
        raise DataFormatError(f"{path}: no list of entries where this form has one")
    for number, entry in enumerate(listed, 1):
        if not isinstance(entry, dict):
            raise DataFormatError(f"{path}, entry {number}: not a JSON object")
        yield number, entry


def _whole_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
