"""Passages in: readers, chunking, and the memory-mapped store."""

from __future__ import annotations

from rag_frozen.corpus.build import (
    CorpusArtifact,
    build_corpus,
    build_corpus_from,
    open_corpus,
)
from rag_frozen.corpus.chunking import chunk_documents, chunk_text
from rag_frozen.corpus.readers import ReadReport, read_passages
from rag_frozen.corpus.store import ArrowPassageStore

__all__ = [
    "ArrowPassageStore",
    "CorpusArtifact",
    "ReadReport",
    "build_corpus",
    "build_corpus_from",
    "chunk_documents",
    "chunk_text",
    "open_corpus",
    "read_passages",
]
