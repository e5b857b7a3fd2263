"""Read questions with answers: the embedded ones, local files, and hub data sets.

Files are read in the forms of ``formats``, plain or gzipped. Answers are read as data, never
evaluated.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rag_frozen.errors import (
    DataFormatError,
    InputError,
    MissingPackageError,
    ModelMissingError,
)
from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.evaluation.formats import QuestionFormat, Row, read_beir, rows_of, tell_format
from rag_frozen.models.source import pocket_folder
from rag_frozen.types import Passage, Question

__all__ = ["read_examples", "read_hub_examples", "read_pocket_examples", "read_text"]

_TAGS = ("style", "wording")
_SHOWN = 80  # characters of a malformed line that a message shows


def read_pocket_examples() -> ExampleSet:
    """Return the questions of the embedded encyclopedia, those without an answer among them."""
    folder = pocket_folder() / "encyclopedia"
    data = read_examples(folder / "questions.jsonl", name="pocket", allow_unanswerable=True)
    lines = (folder / "passages.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    passages = {row["id"]: Passage(row["id"], row["title"], row["text"]) for row in rows}
    examples = tuple(
        replace(example, gold_passage=passages.get(example.gold_passage_id or ""))
        for example in data.examples
    )
    return replace(data, examples=examples)


def read_examples(
    path: Path,
    *,
    name: str | None = None,
    form: QuestionFormat | None = None,
    split: str = "test",
    allow_unanswerable: bool = False,
    patterns: bool = False,
) -> ExampleSet:
    """Read a local file, or a BEIR folder.

    A JSONL row may have an ``id`` (its line number by default), ``gold`` or ``gold_passage_id`` (a
    passage of the corpus), and ``title`` and ``text`` of the gold passage.

    Args:
        path: plain or gzipped; see ``formats`` for what is read.
        name: of the data set; the file's by default.
        form: of the file; told by its name and first entry by default.
        split: of a BEIR folder's qrels.
        allow_unanswerable: accept rows whose list of answers is empty.
        patterns: the answers are regular expressions (CuratedTREC).

    Raises:
        InputError: when the file cannot be opened or holds no question.
        DataFormatError: for a malformed row, a missing answer, an answer that is no pattern or an
            id that stands twice; the message names file and line.
    """
    if path.is_dir():
        rows = read_beir(path, split=split)
        allow_unanswerable = True  # most BEIR sets judge passages and name no answers
        data = b"".join(_read_bytes(path / one) for one in ("queries.jsonl", f"qrels/{split}.tsv"))
    else:
        data = _read_bytes(path)
        text = _decode(path, data)
        rows = rows_of(path, text, form or tell_format(path, text))
    examples: list[Example] = []
    seen: dict[str, str] = {}
    for number, (where, row) in enumerate(rows, 1):
        example = _example(where, int(row.get("line", number)), row, allow_unanswerable)
        if example.question.id in seen:
            raise DataFormatError(
                f"{where}: the id {example.question.id!r} stands in {seen[example.question.id]} "
                "too. Ids must be unique."
            )
        if patterns or row.get("patterns"):
            _check_patterns(where, example.answers)
            example = replace(example, patterns=True)
        seen[example.question.id] = where.removeprefix(f"{path}, ")
        examples.append(example)
    if not examples:
        raise InputError(f"{path} holds no question.")
    return ExampleSet(name or path.name, tuple(examples), hashlib.sha256(data).hexdigest())


def read_hub_examples(
    name: str, *, config: str | None = None, split: str, revision: str | None = None
) -> ExampleSet:
    """Read a data set of the hub with ``question`` and ``answer`` or ``answers``.

    Its SHA-256 is of the questions and answers in order, so that it does not change with the form
    in which the hub keeps them.

    Raises:
        ModelMissingError: when it is not at hand and the hub cannot be reached.
        InputError: when it holds no question.
        DataFormatError: for a question without an answer, or an id that stands twice.
        MissingPackageError: when the package ``datasets`` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingPackageError(
            "Data sets of the hub need the package datasets: pip install datasets"
        ) from error
    try:
        rows = datasets.load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelMissingError(
            f"The data set {name} (split {split}) cannot be loaded: {said}. On a machine without "
            "a network name a local file with: --set data.path=FILE"
        ) from error
    digest = hashlib.sha256()
    examples = []
    seen: dict[str, int] = {}
    for number, row in enumerate(rows):
        where = f"the data set {name}, row {number}"
        example = _example(where, number, {"id": f"{split}:{number}", **_hub_row(row)}, False)
        if example.question.id in seen:
            first = seen[example.question.id]
            raise DataFormatError(
                f"{where}: the id {example.question.id!r} stands in row {first} too. Ids must be "
                "unique; name a file without it with: --set data.path=FILE"
            )
        seen[example.question.id] = number
        digest.update(json.dumps([example.question.text, example.answers]).encode())
        examples.append(example)
    if not examples:
        raise InputError(f"The data set {name} (split {split}) holds no question.")
    return ExampleSet(name, tuple(examples), digest.hexdigest())


def _hub_row(row: Row) -> dict[str, Any]:
    """Question and answers as the hub's data sets name them: lists, SQuAD's ``text``, TriviaQA's
    value and aliases, PopQA's JSON text."""
    found = _first(row, "answers", "answer", "possible_answers")
    if isinstance(found, Mapping):
        listed = found.get("text") or [found.get("value"), *(found.get("aliases") or [])]
        found = list(dict.fromkeys(one for one in listed if one))
    elif isinstance(found, str) and found.startswith("["):
        found = json.loads(found)
    made = {"question": row.get("question"), "answers": found}
    given = _first(row, "id", "question_id")
    return made if given is None else {**made, "id": str(given)}


def read_text(path: Path) -> str:
    """Return the text of a file, plain or gzipped, in UTF-8.

    Raises:
        InputError: when it cannot be opened.
        DataFormatError: when it is in another encoding; the message names the line.
    """
    return _decode(path, _read_bytes(path))


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Name a file of questions with --set data.path=FILE"
        ) from error


def _decode(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataFormatError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}: {error.reason}). "
            "Convert the file, such as with: iconv -f LATIN1 -t UTF-8"
        ) from error


def _check_patterns(where: str, answers: Iterable[str]) -> None:
    for answer in answers:
        try:
            re.compile(answer)
        except re.error as error:
            raise DataFormatError(
                f"{where}: the answer {answer!r} is no regular expression: {error}"
            ) from error


def _example(where: str, line: int, row: Row, allow_unanswerable: bool) -> Example:
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise DataFormatError(
            f"{where}: no question (fields: {', '.join(sorted(map(str, row.keys() - {'line'})))})"
        )
    gold = _first(row, "gold", "gold_passage_id")
    question_id = _id(where, _first(row, "id"), line)
    return Example(
        Question(question_id, _whole(where, question)),
        _answers(where, _first(row, "answers", "answer"), allow_unanswerable),
        None if gold is None else str(gold),
        tuple((tag, str(row[tag])) for tag in _TAGS if row.get(tag) is not None),
        _gold_passage(row, question_id if gold is None else str(gold)),
        qrels=tuple(row.get("qrels") or ()),
    )


def _first(row: Row, *fields: str) -> Any:  # Any: not checked yet
    return next((row[field] for field in fields if row.get(field) is not None), None)


def _id(where: str, value: object, line: int) -> str:
    if value is None:
        return str(line)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataFormatError(f"{where}: the id {value!r} is neither text nor a whole number")
    written = _whole(where, str(value))
    if written.split() != [written]:
        raise DataFormatError(
            f"{where}: the id {written!r} is empty or holds white space, which a stored run "
            "(TREC's form) cannot hold"
        )
    return written


def _answers(where: str, value: object, allow_unanswerable: bool) -> tuple[str, ...]:
    listed: Iterable[object] = value if isinstance(value, list | tuple) else [value]
    if value is None:
        listed = ()
    kept = []
    for answer in listed:
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise DataFormatError(f"{where}: the answer {answer!r} is neither text nor a number")
        if str(answer).strip():
            kept.append(_whole(where, str(answer)))
    if not kept and not (allow_unanswerable and value == []):
        raise DataFormatError(
            f"{where}: the question has no answer (field answers or answer). For questions that "
            "the corpus cannot answer write answers: [] and --set data.unanswerable=true"
        )
    return tuple(kept)


def _whole(where: str, text: str) -> str:
    """Refuse half a surrogate pair, which JSON can write and no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataFormatError(f"{where}: {text[:_SHOWN]!a} is no valid Unicode text") from error
    return text


def _gold_passage(row: Row, passage_id: str) -> Passage | None:
    title, text = row.get("title"), row.get("text")
    if not isinstance(text, str) or not text.strip():
        return None
    return Passage(passage_id, title if isinstance(title, str) else "", text)
