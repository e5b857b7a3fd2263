"""Where a corpus' passages come from: the one shape of all sources, and the source of rows.

Knows nothing about where the artifact lies or how passages are stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from rag_frozen.artifacts import Draft, atomic_write_text
from rag_frozen.corpus.chunking import chunk_documents
from rag_frozen.corpus.readers import PassageReader, ReadReport, SavedReading
from rag_frozen.types import Passage

__all__ = ["REPORT", "CorpusSource", "RowSource"]

REPORT = "report.json"


class CorpusSource(Protocol):
    """Where passages come from: files, a dump, a data set of the hub, a folder of documents."""

    @property
    def recipe(self) -> Mapping[str, Any]:  # Any: JSON values
        """The settings that the corpus' fingerprint covers beside its passages."""

    @property
    def report(self) -> ReadReport:
        """What has been read so far; after the last passage, all of it."""

    @property
    def share(self) -> float | None:
        """How much of the source has been read, in [0, 1]; None where that cannot be told."""

    @property
    def identity(self) -> Mapping[str, Any] | None:  # Any: JSON values
        """What is read and how, found cheaply, so that reading goes on only where it is the same;
        None where that cannot be told."""

    @property
    def gathered(self) -> int:
        """Passages read since the last ``save`` that wait for others and were not given yet."""

    def passages(self, work: Path) -> Iterator[Passage]:
        """Read everything once, in an order that is always the same. ``work`` is the artifact's
        folder in the making; working files there begin with a dot and are removed by ``finish`` and
        by ``close``."""

    def groups(
        self, work: Path, *, saved: Sequence[SavedReading] = ()
    ) -> Iterator[Iterable[Passage]]:
        """Read as ``passages`` does, in groups that are always the same and that are each read to
        the end before the next. With ``saved``, which another source of the same identity gave,
        reading goes on after the last of them."""

    def save(self) -> SavedReading | None:
        """Tell between two groups how to go on after them: where reading stands, and what was
        gathered since the last call. None where reading is over and nothing needs to be kept."""

    def finish(self, draft: Draft) -> None:
        """Put the source's own files and numbers into the artifact, after the last passage."""

    def close(self) -> None:
        """Let go of what is held, whether reading ended or not."""


class RowSource:
    """Rows of files, of a data set or of a folder, cut into passages where that is asked for."""

    def __init__(
        self,
        reader: PassageReader,
        *,
        chunk_words: int | None = None,
        at_sentences: bool = False,
        about: Mapping[str, Any] | None = None,  # Any: JSON values
        n_rows: int | None = None,
    ) -> None:
        """Wrap a reader.

        Args:
            reader: of rows; it is read once.
            chunk_words: cut documents into passages of so many words.
            at_sentences: let passages end at sentence ends where one is near.
            about: what the artifact's report says of the source; without it none is written.
            n_rows: how many rows there are, where that is known.
        """
        self._reader = reader
        self._chunk_words = chunk_words
        self._at_sentences = at_sentences
        self._about = about
        self._n_rows = n_rows
        self._work: Path | None = None
        self._saved: list[Path] = []

    @property
    def recipe(self) -> dict[str, Any]:  # Any: JSON values
        """Of the cutting alone: the same passages in files of another form are the same corpus."""
        return {"chunk_words": self._chunk_words, "at_sentences": self._at_sentences}

    @property
    def report(self) -> ReadReport:
        """Of the rows read so far."""
        return self._reader.report

    @property
    def share(self) -> float | None:
        """By rows where their number is known, else by sources begun where they are several."""
        report = self._reader.report
        if self._n_rows:
            return min(1.0, (report.kept + report.malformed) / self._n_rows)
        return self._reader.share

    @property
    def identity(self) -> Mapping[str, Any] | None:  # Any: JSON values
        """The reader's."""
        return self._reader.identity

    @property
    def gathered(self) -> int:
        """Rows become passages at once."""
        return 0

    def passages(self, work: Path) -> Iterator[Passage]:
        """The rows, cut where that is asked for; ``work`` is not used."""
        return chain.from_iterable(self.groups(work))

    def groups(
        self, work: Path, *, saved: Sequence[SavedReading] = ()
    ) -> Iterator[Iterable[Passage]]:
        """The passages of about a thousand rows each; only ``save`` writes into ``work``."""
        self._work = work
        for block in self._reader.blocks(saved):
            if self._chunk_words is None:
                yield block
            else:
                yield chunk_documents(
                    block, n_words=self._chunk_words, at_sentences=self._at_sentences
                )

    def save(self) -> SavedReading:
        """Where the reader stands."""
        assert self._work is not None
        reading = self._reader.save(self._work)
        self._saved += reading.files
        return reading

    def finish(self, draft: Draft) -> None:
        """Write the report, where there is something to tell beside the rows."""
        self.close()
        if self._about is None:
            return
        report = self._reader.report
        values = {
            **self._about,
            "passages": draft.counts["passages"],
            f"{report.unit} kept": report.kept,
            f"{report.unit} left out": dict(report.reasons),
            "content": draft.digests["content"],
            "problems": [str(problem) for problem in report.problems],
        }
        text = json.dumps(values, indent=2, ensure_ascii=False)
        atomic_write_text(draft / REPORT, f"{text}\n")

    def close(self) -> None:
        """Remove what was saved; files are closed as they are read."""
        for path in self._saved:
            path.unlink(missing_ok=True)
        self._saved = []
