"""Recipes of indexes (``indexes/*.yaml``): what to index and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rag_frozen.recipes.corpora import FolderCorpus, HubCorpus, MediaWikiCorpus

__all__ = [
    "AutoDense",
    "ConcreteDense",
    "CorpusSettings",
    "DenseSettings",
    "DprEncoderSettings",
    "EncoderSettings",
    "FilesCorpus",
    "FlatDense",
    "HnswDense",
    "IndexRecipe",
    "IvfPqDense",
    "PocketCorpus",
    "ScalarFp16Dense",
    "ScalarInt8Dense",
    "SentenceEncoderSettings",
    "TantivyBm25",
    "TorchDense",
    "TuningSettings",
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


class _Dense(_Frozen):
    """What all dense kinds share: the encoder, and how its vectors are stored on disk."""

    encoder: EncoderSettings
    vectors: Literal["float32", "float16", "bfloat16"] = "float16"
    shard_size: int = Field(65_536, ge=1)


class TuningSettings(_Frozen):
    """Queries on which recall is measured: so many sentences of passages drawn by ``seed``, or
    the questions of a file (a line each, or JSONL with the field ``question``)."""

    queries: Path | None = None
    n: int = Field(1_000, ge=1)
    seed: int = 0


class _Tuned(_Dense):
    """An approximate kind; ``recall`` is that of the exact top 20, to which it is tuned."""

    recall: float = Field(0.98, gt=0, le=1)
    tuning: TuningSettings = TuningSettings()
    seed: int = 0


class AutoDense(_Tuned):
    """The kind that fits the corpus' size: see ``rag_frozen.indexing.dense.default_kind``."""

    kind: Literal["auto"]


class FlatDense(_Dense):
    """Exact search by faiss, all vectors as fp32 in memory."""

    kind: Literal["flat"]


class ScalarFp16Dense(_Dense):
    """Exact search by faiss over 16-bit vectors, memory-mapped."""

    kind: Literal["scalar-fp16"]


class ScalarInt8Dense(_Tuned):
    """8-bit vectors, memory-mapped; the best are rescored from the stored vectors."""

    kind: Literal["scalar-int8"]


class IvfPqDense(_Tuned):
    """Inverted lists of 4-bit codes, a code for ``subvector`` dimensions; the best are rescored
    from the stored vectors. ``lists`` follows the corpus' size where it is not given."""

    kind: Literal["ivf-pq-fastscan"]
    lists: int | None = Field(None, ge=1)
    subvector: int = Field(2, ge=1, le=16)


class HnswDense(_Tuned):
    """A graph of near neighbours with ``links`` of each, memory-mapped."""

    kind: Literal["hnsw"]
    links: int = Field(32, ge=2, le=256)
    build_ef: int = Field(128, ge=1)


class TorchDense(_Dense):
    """Exact search by torch in bf16 where that pays, at least ``pool`` passages rescored in
    fp32; on a GPU where there is one."""

    kind: Literal["exact-torch"]
    pool: int = Field(200, ge=1)


ConcreteDense = FlatDense | ScalarFp16Dense | ScalarInt8Dense | IvfPqDense | HnswDense | TorchDense
DenseSettings = Annotated[AutoDense | ConcreteDense, Field(discriminator="kind")]


class IndexRecipe(_Frozen):
    """A corpus and the indexes over it."""

    kind: Literal["index"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    corpus: CorpusSettings
    bm25: TantivyBm25 | None = None
    dense: DenseSettings | None = None
