"""Queries on which the recall of a dense index is measured."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path

import numpy as np

from rag_frozen.corpus import ArrowPassageStore
from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.recipes.index import TuningSettings

__all__ = ["tuning_texts"]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def tuning_texts(settings: TuningSettings, store: ArrowPassageStore) -> list[str]:
    """Return the queries on which recall is measured: those of the file named, or a sentence of
    each of ``n`` passages, both drawn by ``seed``.

    A sentence stands nearer to its passage than a question does, so a file of real questions is
    the better measure where there is one.

    Raises:
        InputError, DataFormatError: when the file cannot be read or holds no question.
    """
    if settings.queries is not None:
        return _questions(settings.queries)[: settings.n]
    draw = np.random.default_rng(settings.seed)
    rows = draw.choice(len(store), size=min(settings.n, len(store)), replace=False)
    texts = []
    for row in sorted(int(row) for row in rows):
        passage = store.row(row)
        sentences = [s for s in _SENTENCE_END.split(passage.text.strip()) if len(s.split()) > 3]
        found = sentences[int(draw.integers(len(sentences)))] if sentences else passage.text
        texts.append(found.strip() or passage.title or passage.id)
    return texts


def _questions(path: Path) -> list[str]:
    """Questions of a file of plain lines or JSONL, gzipped or not."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        lines = [line.strip() for line in content.decode("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(f"The tuning queries {path} cannot be read: {error}") from error
    if not lines:
        raise InputError(f"The tuning queries {path} hold no question. Write one a line.")
    if not lines[0].startswith("{"):
        return lines
    try:
        return [str(json.loads(line)["question"]) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise DataFormatError(
            f"A line of the tuning queries {path} has no field question: {error!r}. Each line is "
            'a JSON object such as {"question": "who wrote Hamlet"}, or plain text.'
        ) from error
