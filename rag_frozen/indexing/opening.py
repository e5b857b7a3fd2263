"""Open the parts of a built index, after checking that they belong together."""

from __future__ import annotations

from rag_frozen.artifacts import Manifest, load_manifest
from rag_frozen.corpus import ArrowPassageStore, open_corpus
from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError
from rag_frozen.indexing.bm25 import Bm25Retriever, open_bm25_engine, recount
from rag_frozen.indexing.dense import open_search, recorded_settings
from rag_frozen.indexing.parts import BuiltIndex, BuiltPart
from rag_frozen.retrieval.dense_encoders import Encoder
from rag_frozen.retrieval.dense_search import DenseRetriever

__all__ = ["check_agreement", "open_bm25", "open_dense", "open_store"]


def open_store(built: BuiltIndex) -> ArrowPassageStore:
    """Open the corpus' passages."""
    return open_corpus(built.part("corpus").folder)


def open_bm25(built: BuiltIndex) -> Bm25Retriever:
    """Open the BM25 index, after checking that it is over the corpus."""
    part = built.part("bm25")
    manifest = _agreeing(built, part)
    return open_bm25_engine(part.folder, manifest, built.bm25)


def open_dense(built: BuiltIndex, encoder: Encoder, *, device: str | None = None) -> DenseRetriever:
    """Open the dense index, after checking that it is over the corpus and of this encoder.

    ``device`` is for the kind that searches on one.

    Raises:
        ArtifactMismatchError: when it was built with another encoder.
    """
    part = built.part("dense")
    manifest = _agreeing(built, part)
    made_by = manifest.models["encoder"]
    if made_by.digest != encoder.digest:
        raise ArtifactMismatchError(
            f"The dense index of {built.name} was built with encoder {made_by.name} (digest "
            f"{made_by.digest[:12]}), the pipeline asks for {encoder.name} "
            f"({encoder.digest[:12]}). Name the first in indexes/{built.name}.yaml, or rebuild "
            f"with: rag-frozen index build {built.name}"
        )
    settings = recorded_settings(part.folder)
    search = open_search(settings, part.folder, manifest.measures, device=device)
    return DenseRetriever(encoder, part.folder, search=search)


def check_agreement(built: BuiltIndex, part: BuiltPart) -> Manifest | None:
    """Check that an index is over the corpus it stands beside; return its manifest. The passages
    of a BM25 index are counted again.

    Raises:
        ArtifactMismatchError: when it is over another corpus.
        ArtifactDamagedError: when both list different passage ids.
    """
    if part.role == "corpus":
        return None
    manifest = _agreeing(built, part)
    if part.role == "bm25":
        recount(open_bm25(built), part.folder, corpus=built.part("corpus").folder)
    return manifest


def _agreeing(built: BuiltIndex, part: BuiltPart) -> Manifest:
    manifest = load_manifest(part.folder, kind="index")
    corpus = load_manifest(built.part("corpus").folder, kind="corpus")
    if manifest.inputs.get("corpus") != corpus.fingerprint:
        raise ArtifactMismatchError(
            f"The {part.role} index in {part.folder} is over corpus "
            f"{manifest.inputs.get('corpus')}, the pipeline uses corpus {corpus.fingerprint}. "
            f"Rebuild it with: rag-frozen index build {built.name}"
        )
    if manifest.digests.get("ids") != corpus.digests.get("ids"):
        raise ArtifactDamagedError(
            f"The {part.role} index in {part.folder} and its corpus list different passage ids. "
            f"Remove {part.folder} and rebuild it with: rag-frozen index build {built.name}"
        )
    return manifest
