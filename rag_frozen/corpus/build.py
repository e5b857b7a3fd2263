"""From files of passages, or any other source of them, to a corpus artifact, and back.

Large corpora are written in shards that survive the process, see ``unfinished``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rag_frozen.artifacts import (
    Manifest,
    atomic_write_text,
    link_or_copy,
    load_manifest,
    name_folder,
    write_artifact,
)
from rag_frozen.corpus.readers import (
    PassageFormat,
    ReadReport,
    SavedReading,
    Sources,
    read_passages,
)
from rag_frozen.corpus.sources import CorpusSource, RowSource
from rag_frozen.corpus.store import ArrowPassageStore
from rag_frozen.corpus.store_writing import StoreSummary, StoreWriter
from rag_frozen.corpus.unfinished import UnfinishedCorpus
from rag_frozen.errors import InputError

__all__ = [
    "CorpusArtifact",
    "build_corpus",
    "build_corpus_from",
    "open_corpus",
]

Progress = Callable[[int, int | None], None]
_SHARD = 262_144  # passages of a shard, or some more: a shard ends where a group of the source does
_TOLD = 1_000  # passages after which progress is told
_log = logging.getLogger(__name__)


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

    The fingerprint covers the passages in their order and the settings, not the files' names. A
    build of many passages that was stopped goes on, see :func:`build_corpus_from`.

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
        StorageError: when the disk is full; finished shards stay, nothing half-written does.
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
    shard_size: int | None = None,
) -> CorpusArtifact:
    """Write the passages of any source as ``<root>/corpora/<name>/<fingerprint>/``.

    After every 262,144 passages a shard is finished and kept beside it in
    ``unfinished-<identity>/``. When the build is stopped, the next one over the same source goes on
    after the last finished shard and ends in the same artifact to the byte.

    Args:
        source: of the passages; it is closed at the end.
        root: artifacts' folder.
        name: of the corpus.
        progress: is told the number of passages done.
        shard_size: passages of a shard in place of 262,144; another number is another build.

    Raises:
        InputError, DataFormatError: when no passage can be read, and as the source does.
        StorageError: when the disk is full; finished shards stay, nothing half-written does.
    """
    home = name_folder(root, "corpus", name=name)
    size = shard_size or _SHARD
    read = source.identity
    identity = None if read is None else {"recipe": source.recipe, "source": read, "shard": size}
    with (
        closing(source),
        UnfinishedCorpus(home, identity) as unfinished,
        write_artifact(
            home, kind="corpus", name=name, recipe=source.recipe, by_fingerprint=True
        ) as draft,
    ):
        summary = _write_shards(draft.folder, source, unfinished, size, progress)
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
    unfinished.remove_all()
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


def _write_shards(
    folder: Path,
    source: CorpusSource,
    unfinished: UnfinishedCorpus,
    size: int,
    progress: Progress,
) -> StoreSummary:
    """Write the store of an artifact in the making, from the first shard that is missing on."""
    records = unfinished.records()
    number = len(records)
    saved = [
        SavedReading(one.state, tuple(unfinished.folder / name for name in one.saved))
        for one in records
    ]
    with StoreWriter(folder) as writer:
        for record in records:
            if record.file is not None:
                link_or_copy(unfinished.folder / record.file, writer.next_file())
                writer.adopt()
        if records:
            _log.info("Going on after %s passages in %d shards", f"{writer.n_passages:,}", number)
            progress(writer.n_passages, None)
        for group in source.groups(folder, saved=saved):
            for passage in group:
                writer.add(passage)
                if writer.n_passages % _TOLD == 0:
                    progress(writer.n_passages, None)
            if max(writer.n_in_file, source.gathered) < size:
                continue
            shard = writer.end_file() if writer.n_in_file else None
            if (reading := source.save()) is not None:
                unfinished.keep(number, shard, state=reading.state, saved=reading.files)
                number += 1
        return writer.finish()


def _problems(report: ReadReport) -> str:
    lines = [report.summary(), *map(str, report.problems)]
    return "\n".join(lines) + "\n"


def _first_problem(report: ReadReport) -> str:
    return f"The first problem: {report.problems[0]}" if report.problems else "It is empty."
