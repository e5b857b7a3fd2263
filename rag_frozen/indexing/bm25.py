"""The BM25 part of an index: tantivy's, Lucene's, or a Lucene index that is there already.

Chooses the engine by the recipe's kind. A Lucene index from elsewhere becomes an artifact that
holds where it lies and what it is, once its ids were found to be the corpus' own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_frozen.artifacts import (
    Manifest,
    artifact_folder,
    atomic_write_text,
    fingerprint,
    load_manifest,
    write_artifact,
)
from rag_frozen.corpus import ArrowPassageStore, CorpusArtifact, ReadReport, open_corpus
from rag_frozen.corpus.store_writing import write_store
from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError, ArtifactMissingError
from rag_frozen.recipes.index import (
    Bm25Settings,
    LuceneBm25,
    LuceneCorpus,
    LuceneIndex,
    TantivyBm25,
)
from rag_frozen.retrieval.bm25_lucene import LuceneRetriever
from rag_frozen.retrieval.bm25_tantivy import TantivyRetriever, build_tantivy
from rag_frozen.retrieval.lucene_build import build_lucene
from rag_frozen.retrieval.tantivy_segments import plan_segments
from rag_frozen.types import Passage

if TYPE_CHECKING:
    from rag_frozen.retrieval.lucene_contents import LucenePassages

__all__ = [
    "Bm25Retriever",
    "bm25_identity",
    "bm25_inputs",
    "build_bm25",
    "build_engine",
    "corpus_from_lucene",
    "count_segments",
    "open_bm25_engine",
    "recount",
]

Bm25Retriever = TantivyRetriever | LuceneRetriever

_RESOURCES = {"threads", "heap_mb"}
"""Settings that change how fast, never what. Where a Lucene index lies is not what it is either."""
_PLACE = "lucene.json"


def bm25_identity(settings: Bm25Settings) -> dict[str, Any]:  # Any: JSON values
    """The settings that the index depends on, as its fingerprint covers them."""
    return settings.model_dump(mode="json", exclude=_RESOURCES | {"path", "prebuilt"})


def bm25_inputs(settings: Bm25Settings, corpus: str, *, fetch: bool = False) -> dict[str, str]:
    """What goes into the index: the corpus by its fingerprint, a Lucene index by its digest.

    ``fetch`` downloads a prebuilt index that is not there.

    Raises:
        ArtifactMissingError: when a Lucene index is not where the recipe says.
    """
    inputs = {"corpus": corpus}
    if isinstance(settings, LuceneIndex):
        from rag_frozen.retrieval.lucene_ids import index_digest

        inputs["lucene"] = index_digest(_lucene_folder(settings, fetch=fetch))
    return inputs


def build_bm25(
    settings: Bm25Settings,
    folder: Path,
    store: ArrowPassageStore,
    *,
    corpus: Path,
    progress: Callable[[int], None],
) -> tuple[int, str]:
    """Write the index over a corpus into an empty folder that is there.

    Args:
        settings: of the engine.
        folder: of the artifact in the making.
        store: the corpus' passages.
        corpus: its folder, for messages.
        progress: is told the number of passages done.

    Returns:
        Number of passages, and SHA-256 over their ids in corpus order.

    Raises:
        ArtifactMismatchError: when a Lucene index is not over this corpus.
    """
    passages = (passage for batch in store.iter_passages() for passage in batch)
    if isinstance(settings, LuceneIndex):
        return _adopt(settings, folder, store, corpus)
    counted = build_engine(
        settings,
        folder / "bm25",
        passages,
        n_passages=len(store),
        text_bytes=store.n_bytes,
        progress=progress,
    )
    for path in (folder / "bm25").iterdir():
        path.rename(folder / path.name)
    (folder / "bm25").rmdir()
    return counted


def build_engine(
    settings: TantivyBm25 | LuceneBm25,
    folder: Path,
    passages: Iterator[Passage],
    *,
    n_passages: int,
    text_bytes: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[int, str]:
    """Write an engine's files into a folder that is not there yet; returns what it counted.

    ``n_passages`` and ``text_bytes``, of all titles and texts, decide the parts in which tantivy
    writes.
    """
    match settings:
        case TantivyBm25():
            return build_tantivy(
                folder,
                passages,
                stemming=settings.stemming,
                stop_words=settings.stop_words,
                plan=plan_segments(n_passages, text_bytes, heap_mb=settings.heap_mb),
                progress=progress,
            )
        case LuceneBm25():
            return build_lucene(
                folder,
                passages,
                stemmer=settings.stemmer,
                stop_words=settings.stop_words,
                store_contents=settings.store_contents,
                threads=settings.threads,
                heap_mb=settings.heap_mb,
                progress=progress,
            )


def count_segments(settings: Bm25Settings, folder: Path) -> int:
    """Segments of the index that :func:`build_bm25` wrote into ``folder``.

    Raises:
        ArtifactDamagedError: when it cannot be read.
    """
    match settings:
        case TantivyBm25():
            return TantivyRetriever(folder).segments
        case LuceneBm25():
            return LuceneRetriever(folder, heap_mb=settings.heap_mb).segments
        case LuceneIndex():
            place = _lucene_folder(settings, fetch=False)
            return LuceneRetriever(place, heap_mb=settings.heap_mb).segments


def open_bm25_engine(
    folder: Path, manifest: Manifest, settings: Bm25Settings | None = None
) -> Bm25Retriever:
    """Open the engine of a BM25 artifact as it was built.

    ``settings`` of the recipe add what the artifact does not record: the threads and Java's heap,
    and where a Lucene index from elsewhere lies now.

    Raises:
        ArtifactDamagedError: when it cannot be read.
        ArtifactMismatchError: when a Lucene index from elsewhere is another one by now.
    """
    recorded: dict[str, Any] = dict(manifest.recipe)  # Any: JSON values
    if recorded["kind"] == "tantivy":
        return TantivyRetriever(
            folder,
            stemming=bool(recorded["stemming"]),
            stop_words=bool(recorded["stop_words"]),
        )
    lucene = settings if isinstance(settings, LuceneBm25 | LuceneIndex) else None
    lucene = lucene or LuceneBm25(kind="bm25-lucene")
    words = recorded["stop_words"]
    place = folder
    if recorded["kind"] == "lucene-index":
        place = _place_of(folder, manifest, settings)
    return LuceneRetriever(
        place,
        k1=float(recorded["k1"]),
        b=float(recorded["b"]),
        stemmer=recorded["stemmer"],
        stop_words=words if isinstance(words, bool) else tuple(words),
        threads=lucene.threads,
        heap_mb=lucene.heap_mb,
    )


def recount(engine: Bm25Retriever, folder: Path, *, corpus: Path) -> None:
    """Count an opened index's passages again; of Lucene, compare its ids with the corpus' too, and
    its files with the checksums in them.

    Raises:
        ArtifactMismatchError, ArtifactDamagedError: when they are not the same.
    """
    store = open_corpus(corpus)
    if len(engine) != len(store):
        raise ArtifactDamagedError(
            f"The BM25 index in {folder} holds {len(engine):,} passages, its corpus in {corpus} "
            f"{len(store):,}. Remove {folder} and build it again with: rag-frozen index build "
            "RECIPE"
        )
    if isinstance(engine, LuceneRetriever):
        engine.check_files()
        _check_ids(engine, folder, store, corpus)


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

    place = _lucene_folder(settings, fetch=True)
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


def _lucene_folder(settings: LuceneIndex | LuceneCorpus, *, fetch: bool) -> Path:
    if settings.prebuilt is None:
        assert settings.path is not None
        return settings.path
    from rag_frozen.retrieval.lucene_prebuilt import prebuilt_folder

    return prebuilt_folder(settings.prebuilt, fetch=fetch, heap_mb=settings.heap_mb)


def _adopt(
    settings: LuceneIndex, folder: Path, store: ArrowPassageStore, corpus: Path
) -> tuple[int, str]:
    """Check a Lucene index from elsewhere against the corpus, and note where it lies."""
    place = _lucene_folder(settings, fetch=False)
    engine = LuceneRetriever(
        place,
        stemmer=settings.stemmer,
        stop_words=settings.stop_words,
        heap_mb=settings.heap_mb,
    )
    _check_ids(engine, place, store, corpus)
    atomic_write_text(folder / _PLACE, json.dumps({"folder": str(place.resolve())}) + "\n")
    return len(store), load_manifest(corpus, kind="corpus").digests["ids"]


def _check_ids(
    engine: LuceneRetriever, folder: Path, store: ArrowPassageStore, corpus: Path
) -> None:
    from rag_frozen.retrieval.lucene_ids import check_same_ids

    check_same_ids(
        engine.ids,
        lambda: ([passage.id for passage in batch] for batch in store.iter_passages()),
        folder=folder,
        corpus_folder=corpus,
    )


def _place_of(folder: Path, manifest: Manifest, settings: Bm25Settings | None) -> Path:
    from rag_frozen.retrieval.lucene_ids import index_digest

    if isinstance(settings, LuceneIndex):
        place = _lucene_folder(settings, fetch=False)
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
