"""From files of passages, or any other source of them, to a corpus artifact, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rag_frozen.artifacts import (
    Manifest,
    atomic_write_text,
    load_manifest,
    name_folder,
    write_artifact,
)
from rag_frozen.corpus.readers import PassageFormat, ReadReport, Sources, read_passages
from rag_frozen.corpus.sources import CorpusSource, RowSource
from rag_frozen.corpus.store import ArrowPassageStore, write_store
from rag_frozen.errors import InputError
from rag_frozen.types import Passage

__all__ = [
    "CorpusArtifact",
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
    reader = read_passages(sources, format=format, strict=strict)
    source = RowSource(reader, chunk_words=chunk_words, at_sentences=at_sentences)
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
