"""Read questions with answers: the embedded ones, local files, and hub data sets.

Files: JSONL with ``question`` and ``answers`` (or ``answer``, as NQ-open writes it), and DPR's
TSV (``question<TAB>['answer', ...]``), plain or gzipped.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rag_frozen.errors import DataFormatError, InputError, ModelMissingError
from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.models.source import pocket_folder
from rag_frozen.types import Question

__all__ = ["read_examples", "read_hub_examples", "read_pocket_examples"]

_TAGS = ("style", "wording")


def read_pocket_examples() -> ExampleSet:
    """Return the questions of the embedded encyclopedia, those without an answer among them."""
    path = pocket_folder() / "encyclopedia" / "questions.jsonl"
    return read_examples(path, name="pocket", allow_unanswerable=True)


def read_examples(
    path: Path, *, name: str | None = None, allow_unanswerable: bool = False
) -> ExampleSet:
    """Read a local file.

    Args:
        path: ``.jsonl`` or ``.tsv``, also with ``.gz``.
        name: of the data set; the file's by default.
        allow_unanswerable: accept rows whose list of answers is empty.

    Raises:
        InputError: when the file cannot be opened or holds no question.
        DataFormatError: for a malformed row, a missing answer or an id that stands twice; the
            message names file and line.
    """
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataFormatError(
            f"{path} is not UTF-8: {error}. Convert it, then try again."
        ) from error
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Name the file with --set data.path=…"
        ) from error
    tsv = path.name.removesuffix(".gz").endswith(".tsv")
    rows = _tsv_rows(path, text) if tsv else _json_rows(path, text)
    examples: list[Example] = []
    seen: dict[str, int] = {}
    for line, row in rows:
        example = _example(path, line, row, allow_unanswerable)
        if example.question.id in seen:
            raise DataFormatError(
                f"{path}, line {line}: the id {example.question.id!r} stands in line "
                f"{seen[example.question.id]} too. Ids must be unique."
            )
        seen[example.question.id] = line
        examples.append(example)
    if not examples:
        raise InputError(f"{path} holds no question.")
    return ExampleSet(name or path.name, tuple(examples), hashlib.sha256(data).hexdigest())


def read_hub_examples(
    name: str, *, config: str | None = None, split: str, revision: str | None = None
) -> ExampleSet:
    """Read a data set of the hub with ``question`` and ``answer`` or ``answers``.

    Raises:
        ModelMissingError: when it is not at hand and the hub cannot be reached.
    """
    import datasets

    try:
        rows = datasets.load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, ConnectionError) as error:
        raise ModelMissingError(
            f"The data set {name} cannot be loaded: {str(error).splitlines()[0]}. On a machine "
            "without a network name a local file with: --set data.path=FILE"
        ) from error
    digest = hashlib.sha256()
    examples = []
    for number, row in enumerate(rows):
        example = _example(Path(name), number + 1, {"id": f"{split}:{number}", **row}, False)
        digest.update(json.dumps([example.question.text, example.answers]).encode())
        examples.append(example)
    return ExampleSet(name, tuple(examples), digest.hexdigest())


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, written in enumerate(text.splitlines(), 1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except ValueError as error:
            raise DataFormatError(f"{path}, line {line}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataFormatError(f"{path}, line {line}: not a JSON object")
        yield line, row


def _tsv_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, written in enumerate(text.splitlines(), 1):
        if not written.strip():
            continue
        question, _, listed = written.partition("\t")
        try:
            answers = ast.literal_eval(listed)
        except (ValueError, SyntaxError) as error:
            raise DataFormatError(
                f"{path}, line {line}: expected question<TAB>['answer', …], found {written[:80]!r}"
            ) from error
        yield line, {"question": question, "answers": answers}


def _example(path: Path, line: int, row: Mapping[str, Any], allow_unanswerable: bool) -> Example:
    where = f"{path}, line {line}"
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise DataFormatError(f"{where}: no question (fields: {', '.join(sorted(row))})")
    answers = row.get("answers", row.get("answer"))
    listed: Iterable[Any] = [answers] if isinstance(answers, str) else answers or []
    kept = tuple(str(answer) for answer in listed if str(answer).strip())
    if not kept and not (allow_unanswerable and isinstance(answers, list)):
        raise DataFormatError(f"{where}: the question has no answer (field answers or answer)")
    gold = row.get("gold", row.get("gold_passage_id"))
    tags = tuple((tag, str(row[tag])) for tag in _TAGS if tag in row)
    return Example(
        Question(str(row.get("id", line)), question),
        kept,
        None if gold is None else str(gold),
        tags,
    )
