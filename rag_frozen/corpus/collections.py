"""The layouts of public collections: BEIR's folders and KILT's knowledge source.

BEIR keeps ``corpus.jsonl`` beside ``queries.jsonl`` and ``qrels/``; KILT's articles hold a list of
paragraphs with marks for headings and list items. Pyserini's rows (``id``, ``contents``) need
nothing more than ``rows.json_row``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["beir_corpus", "kilt_text"]

_SECTION = "Section::::"
_BULLET = "BULLET::::"
_COMPRESSED = ("", ".gz")


def beir_corpus(folder: Path) -> Path | None:
    """Return the passages of a BEIR folder, or None when it is none.

    Its queries are JSONL rows with an id and a text too, and no passages.
    """
    if not any((folder / f"queries.jsonl{ending}").is_file() for ending in _COMPRESSED):
        return None
    found = (folder / f"corpus.jsonl{ending}" for ending in _COMPRESSED)
    return next((path for path in found if path.is_file()), None)


def kilt_text(value: Any, title: str) -> str | None:
    r"""Return the text of a KILT article, or None when ``value`` is no list of paragraphs.

    The first paragraph repeats the title and is left out, as are headings; list items lose their
    mark. The hub's form keeps the list in ``{"paragraph": [...]}``.

    >>> kilt_text(["Ada\n", "She wrote.\n", "Section::::Life.\n", "BULLET::::- A note\n"], "Ada")
    'She wrote.\nA note'
    """
    if isinstance(value, Mapping):
        value = value.get("paragraph")
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    if not all(isinstance(paragraph, str) for paragraph in value):
        return None
    lines = [paragraph.strip() for paragraph in value]
    if lines and lines[0] == title.strip():
        del lines[0]
    lines = [
        line.removeprefix(_BULLET).lstrip("- ") if line.startswith(_BULLET) else line
        for line in lines
        if line and not line.startswith(_SECTION)
    ]
    return "\n".join(lines)
