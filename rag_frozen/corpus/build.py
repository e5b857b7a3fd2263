"""From files of passages, or any other source of them, to a corpus artifact, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rag_frozen.artifacts import (
    Draft,
    Manifest,
    atomic_write_text,
    load_manifest,
    name_folder,
    write_artifact,
)
from rag_frozen.corpus.chunking import chunk_documents
from rag_frozen.corpus.readers import PassageFormat, ReadReport, Sources, read_passages
from rag_frozen.corpus.store import ArrowPassageStore, write_store
from rag_frozen.errors import InputError
from rag_frozen.types import Passage

__all__ = [
    "CorpusArtifact",
    "CorpusSource",
    "FileSource",
    "build_corpus",
    "build_corpus_from",
    "open_corpus",
]

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class CorpusArtifact:
    """A corpus on disk, and what came of reading its files. ``reused``: it was there already."""

    folder: Path
    manifest: Manifest
    report: ReadReport
    reused: bool


class CorpusSource(Protocol):
    """Where passages come from: files, a dump, a data set of the hub, a folder of documents."""

    @property
    def recipe(self) -> Mapping[str, Any]:  # Any: JSON values
        """The settings that the corpus' fingerprint covers beside its passages."""

    @property
    def report(self) -> ReadReport:
        """What has been read so far; after the last passage, all of it."""

    def passages(self, work: Path) -> Iterator[Passage]:
        """Read everything once, in an order that is always the same. ``work`` is the artifact's
        folder in the making; files put there that begin with a dot are removed by ``finish`` or
        ``close``."""

    def finish(self, draft: Draft) -> None:
        """Put the source's own files and numbers into the artifact, after the last passage."""

    def close(self) -> None:
        """Let go of what is held, whether reading ended or not."""


class FileSource:
    """Passages from JSONL and TSV files, see ``readers.read_passages``."""

    def __init__(
        self,
        sources: Sources,
        *,
        format: PassageFormat | None = None,
        chunk_words: int | None = None,
        at_sentences: bool = False,
        strict: bool = False,
    ) -> None:
        self._reader = read_passages(sources, format=format, strict=strict)
        self._chunk_words = chunk_words
        self._at_sentences = at_sentences

    @property
    def recipe(self) -> dict[str, Any]:  # Any: JSON values
        """Of the cutting alone: the same passages in files of another form are the same corpus."""
        return {"chunk_words": self._chunk_words, "at_sentences": self._at_sentences}

    @property
    def report(self) -> ReadReport:
        """Of the rows read so far."""
        return self._reader.report

    def passages(self, work: Path) -> Iterator[Passage]:
        """The rows, cut where that is asked for; ``work`` is not used."""
        if self._chunk_words is None:
            return self._reader
        return chunk_documents(
            self._reader, n_words=self._chunk_words, at_sentences=self._at_sentences
        )

    def finish(self, draft: Draft) -> None:
        """Files add nothing to the artifact."""

    def close(self) -> None:
        """Files are closed as they are read."""


def build_corpus(
    sources: Sources,
    root: str | Path | None,
    *,
    name: str,
    format: PassageFormat | None = None,
    chunk_words: int | None = None,
    at_sentences: bool = False,
    strict: bool = False,
    progress: Progress = lambda done, total: None,
) -> CorpusArtifact:
    """Read passages and write them as ``<root>/corpora/<name>/<fingerprint>/``.

    The fingerprint covers the passages in their order and the settings, not the files' names.

    Args:
        sources: a file, a folder, or several.
        root: artifacts' folder, see :func:`rag_frozen.artifacts.artifact_root`.
        name: of the corpus.
        format: of the files; told by their names and first rows where it is not given.
        chunk_words: cut documents into passages of so many words.
        at_sentences: let passages end at sentence ends where one is near.
        strict: raise at the first malformed row instead of counting it.
        progress: is told the number of passages done.

    Raises:
        InputError, DataFormatError: when no passage can be read.
        StorageError: when the disk is full; nothing half-written stays.
    """
    source = FileSource(
        sources, format=format, chunk_words=chunk_words, at_sentences=at_sentences, strict=strict
    )
    return build_corpus_from(source, root, name=name, progress=progress)


def build_corpus_from(
    source: CorpusSource,
    root: str | Path | None,
    *,
    name: str,
    progress: Progress = lambda done, total: None,
) -> CorpusArtifact:
    """Write the passages of any source as ``<root>/corpora/<name>/<fingerprint>/``.

    Raises:
        InputError, DataFormatError: when no passage can be read, and as the source does.
        StorageError: when the disk is full; nothing half-written stays.
    """
    home = name_folder(root, "corpus", name=name)
    with (
        closing(source),
        write_artifact(
            home, kind="corpus", name=name, recipe=source.recipe, by_fingerprint=True
        ) as draft,
    ):
        summary = write_store(draft.folder, _told(source.passages(draft.folder), progress))
        report = source.report
        if summary.n_passages == 0:
            raise InputError(
                f"No passage was read from {', '.join(map(str, report.files))}: "
                f"{report.summary()}. {_first_problem(report)}"
            )
        atomic_write_text(draft / "problems.txt", _problems(report))
        draft.inputs["content"] = summary.content_digest
        draft.counts["passages"] = summary.n_passages
        draft.counts["malformed"] = report.malformed
        draft.digests["ids"] = summary.ids_digest
        draft.digests["content"] = summary.content_digest
        source.finish(draft)
    progress(summary.n_passages, summary.n_passages)
    assert draft.manifest is not None
    return CorpusArtifact(draft.target, draft.manifest, report, draft.reused)


def open_corpus(folder: str | Path) -> ArrowPassageStore:
    """Open a corpus artifact.

    Raises:
        ArtifactMissingError, ArtifactDamagedError: when there is none, or it is not whole.
    """
    load_manifest(folder, kind="corpus")
    return ArrowPassageStore(folder)


def _told(passages: Iterator[Passage], progress: Progress) -> Iterator[Passage]:
    for done, passage in enumerate(passages, 1):
        if done % 1_000 == 0:
            progress(done, None)
        yield passage


def _problems(report: ReadReport) -> str:
    lines = [report.summary(), *map(str, report.problems)]
    return "\n".join(lines) + "\n"


def _first_problem(report: ReadReport) -> str:
    return f"The first problem: {report.problems[0]}" if report.problems else "It is empty."
