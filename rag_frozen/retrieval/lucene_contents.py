"""Passages out of a Lucene index that stores them: a corpus for an index that came without one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rag_frozen.corpus.rows import RowFault, json_row
from rag_frozen.errors import ArtifactMismatchError, UnknownPassageError
from rag_frozen.retrieval.bm25_lucene import LuceneRetriever
from rag_frozen.retrieval.lucene_jvm import opening
from rag_frozen.types import Passage

__all__ = ["LucenePassages"]

_NAMED_AT_MOST = 5


class LucenePassages:
    """The stored passages of an index. Implements ``protocols.PassageStore``.

    A passage is read from the stored row (``raw``, JSON as Anserini took it) or from the stored
    ``contents``, of which the first line is the title.
    """

    def __init__(self, folder: Path, *, heap_mb: int = 1024) -> None:
        """Open a folder as :class:`.bm25_lucene.LuceneRetriever` does.

        Raises:
            ArtifactMismatchError: when the index stores no contents.
            ArtifactDamagedError: when it cannot be read.
        """
        self._folder = folder
        self._index = LuceneRetriever(folder, heap_mb=heap_mb)
        first = next(self._index.documents(), None)
        if first:
            self._passage(first[0])

    def __len__(self) -> int:
        return len(self._index)

    def get(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Return passages in the order asked.

        Raises:
            UnknownPassageError: naming some of the ids that the index does not hold.
        """
        with opening(self._folder):
            found = [self._index.document(one) for one in passage_ids]
            missing = [n for n, one in zip(passage_ids, found, strict=True) if one is None]
            if missing:
                named = ", ".join(map(repr, missing[:_NAMED_AT_MOST]))
                more = len(missing) - _NAMED_AT_MOST
                raise UnknownPassageError(
                    f"The Lucene index of {len(self):,} passages holds no {named}"
                    f"{f' and {more} more' if more > 0 else ''}. The ids come from another corpus: "
                    "use the one that the run or the index was made over."
                )
            return [self._passage(one) for one in found]

    def iter_passages(self) -> Iterator[list[Passage]]:
        """Yield all passages in the index's own order, in lists."""
        for documents in self._index.documents():
            with opening(self._folder):
                yield [self._passage(one) for one in documents]

    def _passage(self, document: Any) -> Passage:  # Any: a Java object
        identity, row = document.get("id"), document.get("raw")
        if row is None:
            contents = document.get("contents")
            if contents is None:
                raise ArtifactMismatchError(
                    f"The Lucene index in {self._folder} stores no contents (passage "
                    f"{identity!r} has none), so no passages can be read from it. Name the files "
                    "that it was made of as the corpus, take an index with contents (Pyserini's "
                    "without 'slim' in their names), or build one with: store_contents: true"
                )
            row = json.dumps({"id": identity, "contents": contents})
        passage = json_row(row)
        if isinstance(passage, RowFault):
            raise ArtifactMismatchError(
                f"The Lucene index in {self._folder} stores passage {identity!r} in a form that is "
                f"not known: {passage.detail}. Name the files that it was made of as the corpus."
            )
        return passage
