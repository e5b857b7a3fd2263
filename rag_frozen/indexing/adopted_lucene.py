"""A Lucene index that is there already: adopted as BM25, or read for its passages.

It becomes an artifact that holds where it lies and what it is, once its ids were found to be the
corpus' own; it is never changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rag_frozen.artifacts import (
    Manifest,
    artifact_folder,
    atomic_write_text,
    fingerprint,
    load_manifest,
    write_artifact,
)
from rag_frozen.corpus import ArrowPassageStore, CorpusArtifact, ReadReport
from rag_frozen.corpus.store_writing import write_store
from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError, ArtifactMissingError
from rag_frozen.recipes.index import LuceneCorpus, LuceneIndex
from rag_frozen.retrieval.bm25_lucene import LuceneRetriever
from rag_frozen.types import Passage

if TYPE_CHECKING:
    from rag_frozen.retrieval.lucene_contents import LucenePassages

__all__ = ["adopt", "check_ids", "corpus_from_lucene", "lucene_folder", "place_of"]

_PLACE = "lucene.json"


def corpus_from_lucene(
    settings: LuceneCorpus,
    root: Path | None,
    *,
    name: str,
    progress: Callable[[int, int | None], None],
) -> CorpusArtifact:
    """Write the passages that a Lucene index stores as ``<root>/corpora/<name>/<fingerprint>/``.

    Raises:
        ArtifactMismatchError: when the index stores no contents.
        ArtifactMissingError: when the index is not there and cannot be fetched.
    """
    from rag_frozen.retrieval.lucene_contents import LucenePassages
    from rag_frozen.retrieval.lucene_ids import index_digest

    place = lucene_folder(settings, fetch=True)
    recipe, inputs = {"kind": settings.kind}, {"lucene": index_digest(place)}
    mark = fingerprint(recipe, inputs)
    target = artifact_folder(root, "corpus", name=name, fingerprint=mark)
    with suppress(ArtifactMissingError):
        return CorpusArtifact(target, load_manifest(target, kind="corpus"), ReadReport(), True)
    stored = LucenePassages(place, heap_mb=settings.heap_mb)
    with write_artifact(target, kind="corpus", name=name, recipe=recipe, inputs=inputs) as draft:
        summary = write_store(draft.folder, _told(stored, progress))
        draft.counts["passages"] = summary.n_passages
        draft.digests["ids"] = summary.ids_digest
        draft.digests["content"] = summary.content_digest
    progress(summary.n_passages, summary.n_passages)
    assert draft.manifest is not None
    return CorpusArtifact(draft.target, draft.manifest, ReadReport(), draft.reused)


def _told(stored: LucenePassages, progress: Callable[[int, int | None], None]) -> Iterator[Passage]:
    done = 0
    for batch in stored.iter_passages():
        yield from batch
        done += len(batch)
        progress(done, len(stored))


def lucene_folder(settings: LuceneIndex | LuceneCorpus, *, fetch: bool) -> Path:
    """Where the index lies; ``fetch`` downloads a prebuilt one that is not there.

    Raises:
        ArtifactMissingError: when it is not there.
    """
    if settings.prebuilt is None:
        assert settings.path is not None
        return settings.path
    from rag_frozen.retrieval.lucene_prebuilt import prebuilt_folder

    return prebuilt_folder(settings.prebuilt, fetch=fetch, heap_mb=settings.heap_mb)


def adopt(
    settings: LuceneIndex, folder: Path, store: ArrowPassageStore, corpus: Path
) -> tuple[int, str]:
    """Check a Lucene index from elsewhere against the corpus, and note where it lies."""
    place = lucene_folder(settings, fetch=False)
    engine = LuceneRetriever(
        place,
        stemmer=settings.stemmer,
        stop_words=settings.stop_words,
        heap_mb=settings.heap_mb,
    )
    check_ids(engine, place, store, corpus)
    atomic_write_text(folder / _PLACE, json.dumps({"folder": str(place.resolve())}) + "\n")
    return len(store), load_manifest(corpus, kind="corpus").digests["ids"]


def check_ids(
    engine: LuceneRetriever, folder: Path, store: ArrowPassageStore, corpus: Path
) -> None:
    """Compare the ids of an index in ``folder`` with those of the corpus in ``corpus``.

    Raises:
        ArtifactMismatchError: when they are not the same.
    """
    from rag_frozen.retrieval.lucene_ids import check_same_ids

    check_same_ids(
        engine.ids,
        lambda: ([passage.id for passage in batch] for batch in store.iter_passages()),
        folder=folder,
        corpus_folder=corpus,
    )


def place_of(folder: Path, manifest: Manifest, settings: LuceneIndex | None) -> Path:
    """Where the index lies that the artifact in ``folder`` adopted; the recipe's ``settings`` may
    name another place than it was adopted from.

    Raises:
        ArtifactDamagedError: when the artifact does not tell.
        ArtifactMismatchError: when the index was changed since.
    """
    from rag_frozen.retrieval.lucene_ids import index_digest

    if settings is not None:
        place = lucene_folder(settings, fetch=False)
    else:
        try:
            place = Path(json.loads((folder / _PLACE).read_text(encoding="utf-8"))["folder"])
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactDamagedError(
                f"{folder / _PLACE} cannot be read: {error}. Remove {folder} and build it again "
                "with: rag-frozen index build RECIPE"
            ) from error
    if index_digest(place) != manifest.inputs.get("lucene"):
        raise ArtifactMismatchError(
            f"The Lucene index in {place} was changed since it was compared with the corpus. "
            "Compare it again with: rag-frozen index build RECIPE"
        )
    return place
