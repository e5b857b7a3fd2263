"""The BM25 part of an index: tantivy's, Lucene's, or a Lucene index that is there already.

Chooses the engine by the recipe's kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rag_frozen.artifacts import Manifest
from rag_frozen.corpus import ArrowPassageStore, open_corpus
from rag_frozen.errors import ArtifactDamagedError
from rag_frozen.indexing.adopted_lucene import adopt, check_ids, lucene_folder, place_of
from rag_frozen.recipes.index import Bm25Settings, LuceneBm25, LuceneIndex, TantivyBm25
from rag_frozen.retrieval.bm25_lucene import LuceneRetriever
from rag_frozen.retrieval.bm25_tantivy import TantivyRetriever, build_tantivy
from rag_frozen.retrieval.lucene_build import build_lucene
from rag_frozen.retrieval.tantivy_segments import MOST_HEAP_MB, plan_segments
from rag_frozen.types import Passage

__all__ = [
    "Bm25Retriever",
    "bm25_identity",
    "bm25_inputs",
    "build_bm25",
    "build_engine",
    "count_segments",
    "open_bm25_engine",
    "recount",
    "segments_advice",
]

Bm25Retriever = TantivyRetriever | LuceneRetriever

_RESOURCES = {"threads", "heap_mb"}
"""Settings that change how fast, never what. Where a Lucene index lies is not what it is either."""


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

        inputs["lucene"] = index_digest(lucene_folder(settings, fetch=fetch))
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
        return adopt(settings, folder, store, corpus)
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
            place = lucene_folder(settings, fetch=False)
            return LuceneRetriever(place, heap_mb=settings.heap_mb).segments


def segments_advice(settings: Bm25Settings | None, segments: int | None) -> str | None:
    """What to do about a tantivy index of several segments; None where there is nothing to do.

    >>> segments_advice(TantivyBm25(kind="tantivy"), 1)
    >>> advice = segments_advice(TantivyBm25(kind="tantivy"), 3)
    >>> "searched as 3 segments" in advice, "--set bm25.heap_mb=2048" in advice
    (True, True)
    """
    if not isinstance(settings, TantivyBm25) or segments is None or segments < 2:
        return None
    more = min(MOST_HEAP_MB, 4 * settings.heap_mb)
    return (
        f"The BM25 index is searched as {segments:,} segments, one after the other. A build leaves "
        "several where its words take more memory than was planned for prose, or beyond 80 million "
        "passages: for one segment remove the index' folder and build it again with --set "
        f"bm25.heap_mb={more}. Passages that were added stand in segments of their own, of which "
        "eight of like size are merged as they come."
    )


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
        place = place_of(folder, manifest, settings if isinstance(settings, LuceneIndex) else None)
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
        check_ids(engine, folder, store, corpus)
