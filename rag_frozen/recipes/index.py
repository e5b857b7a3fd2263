"""Recipes of indexes (``indexes/*.yaml``): what to index and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rag_frozen.recipes.corpora import FolderCorpus, HubCorpus, MediaWikiCorpus

__all__ = [
    "CorpusSettings",
    "DprEncoderSettings",
    "EncoderSettings",
    "FaissFlat",
    "FilesCorpus",
    "IndexRecipe",
    "PocketCorpus",
    "SentenceEncoderSettings",
    "TantivyBm25",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PocketCorpus(_Frozen):
    """The embedded encyclopedia."""

    kind: Literal["pocket"]


class FilesCorpus(_Frozen):
    """Passages from files: JSONL or DPR's TSV, plain or gzipped; a file or a folder of files.

    ``chunk_words`` cuts longer documents into passages of so many words; without it each row is a
    passage. ``strict`` refuses malformed rows instead of counting them.
    """

    kind: Literal["files"]
    path: Path | None = None
    format: Literal["auto", "jsonl", "tsv"] = "auto"
    chunk_words: int | None = Field(None, ge=10)
    strict: bool = False


CorpusSettings = Annotated[
    PocketCorpus | FilesCorpus | MediaWikiCorpus | HubCorpus | FolderCorpus,
    Field(discriminator="kind"),
]


class TantivyBm25(_Frozen):
    """BM25 by tantivy (k1 = 1.2, b = 0.75)."""

    kind: Literal["tantivy"]
    stemming: bool = True
    stop_words: bool = False


class SentenceEncoderSettings(_Frozen):
    """Any sentence-transformers model; question and passage share it."""

    kind: Literal["sentence-transformers"]
    model: str
    revision: str | None = None


class DprEncoderSettings(_Frozen):
    """DPR's two towers of transformers."""

    kind: Literal["dpr"]
    question_model: str
    passage_model: str
    question_revision: str | None = None
    passage_revision: str | None = None
    normalize: bool = False


EncoderSettings = Annotated[
    SentenceEncoderSettings | DprEncoderSettings, Field(discriminator="kind")
]


class FaissFlat(_Frozen):
    """Exact inner-product search by faiss over vectors stored in ``dtype``."""

    kind: Literal["faiss-flat"]
    encoder: EncoderSettings
    shard_size: int = Field(65_536, ge=1)
    dtype: Literal["float32", "float16"] = "float16"


class IndexRecipe(_Frozen):
    """A corpus and the indexes over it."""

    kind: Literal["index"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    corpus: CorpusSettings
    bm25: TantivyBm25 | None = None
    dense: FaissFlat | None = None
