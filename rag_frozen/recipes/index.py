"""Recipes of indexes (``indexes/*.yaml``): what to index and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rag_frozen.recipes.corpora import DiskPath, FolderCorpus, HubCorpus, MediaWikiCorpus, Place
from rag_frozen.retrieval.tantivy_segments import DEFAULT_HEAP_MB, MOST_HEAP_MB

__all__ = [
    "AutoDense",
    "Bm25Settings",
    "ConcreteDense",
    "CorpusSettings",
    "DenseSettings",
    "DprEncoderSettings",
    "EncoderSettings",
    "ExecutorSettings",
    "FilesCorpus",
    "FlatDense",
    "HnswDense",
    "IndexRecipe",
    "IvfPqDense",
    "LocalExecutor",
    "LuceneBm25",
    "LuceneCorpus",
    "LuceneIndex",
    "PocketCorpus",
    "RayExecutor",
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
    """Passages from files: JSONL or DPR's TSV, plain or gzipped; a file or a folder of files,
    on a disk or at an address of fsspec (``s3://…``).

    ``chunk_words`` cuts longer documents into passages of so many words; without it each row is a
    passage. ``strict`` refuses malformed rows instead of counting them.
    """

    kind: Literal["files"]
    path: Place | None = None
    format: Literal["auto", "jsonl", "tsv"] = "auto"
    chunk_words: int | None = Field(None, ge=10)
    strict: bool = False


class _LuceneFolder(_Frozen):
    """A Lucene index that is there: its folder, or the name of one of Pyserini's prebuilt ones."""

    path: DiskPath | None = None
    prebuilt: str | None = None
    heap_mb: int = Field(1024, ge=64)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.path is None) == (self.prebuilt is None):
            raise ValueError("name either path (a folder) or prebuilt (a name of Pyserini's list)")
        return self


class LuceneCorpus(_LuceneFolder):
    """The passages that a Lucene index stores."""

    kind: Literal["lucene-index"]


CorpusSettings = Annotated[
    PocketCorpus | FilesCorpus | MediaWikiCorpus | HubCorpus | FolderCorpus | LuceneCorpus,
    Field(discriminator="kind"),
]


class TantivyBm25(_Frozen):
    """BM25 by tantivy (k1 = 1.2, b = 0.75). ``heap_mb`` is what its writer may take; it changes no
    result."""

    kind: Literal["tantivy"]
    stemming: bool = True
    stop_words: bool = False
    heap_mb: int = Field(DEFAULT_HEAP_MB, ge=16, le=MOST_HEAP_MB)


class _LuceneSearch(_Frozen):
    """How Lucene weighs and cuts words; the defaults are Anserini's.

    ``stop_words`` is Lucene's English list, none, or a list. ``threads`` (all cores where it is not
    given) and ``heap_mb`` of Java change no result; the heap is settled by the first index that a
    process opens.
    """

    k1: float = Field(0.9, ge=0)
    b: float = Field(0.4, ge=0, le=1)
    stemmer: Literal["porter", "krovetz", "none"] = "porter"
    stop_words: bool | tuple[str, ...] = True
    threads: int | None = Field(None, ge=1)
    heap_mb: int = Field(1024, ge=64)


class LuceneBm25(_LuceneSearch):
    """BM25 by Lucene, through Pyserini. ``store_contents`` keeps the passages in the index too."""

    kind: Literal["bm25-lucene"]
    store_contents: bool = False


class LuceneIndex(_LuceneSearch, _LuceneFolder):
    """BM25 over a Lucene index that is there, made by Pyserini or Anserini of the same passages;
    the words must be cut as they were when it was made."""

    kind: Literal["lucene-index"]


Bm25Settings = Annotated[TantivyBm25 | LuceneBm25 | LuceneIndex, Field(discriminator="kind")]


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


class LocalExecutor(_Frozen):
    """This machine."""

    kind: Literal["local"]


class RayExecutor(_Frozen):
    """A Ray cluster: blocks of a dump's pages and shards of vectors are made by its machines.

    ``address`` is that of ``ray.init``: ``auto`` for the cluster that this machine belongs to,
    ``ray://HOST:10001`` for another, none for a Ray of this machine's cores alone. A task takes
    ``cpus_per_task``, one that encodes also ``gpus_per_task``. ``tasks_in_flight`` bounds what
    waits; twice what the cluster runs at once where it is not given.
    """

    kind: Literal["ray"]
    address: str | None = None
    cpus_per_task: float = Field(1.0, gt=0)
    gpus_per_task: float = Field(0.0, ge=0)
    tasks_in_flight: int | None = Field(None, ge=1)


ExecutorSettings = Annotated[LocalExecutor | RayExecutor, Field(discriminator="kind")]


class IndexRecipe(_Frozen):
    """A corpus and the indexes over it.

    ``executor`` says who builds them, by its kind alone or with settings; it is part of no
    artifact's fingerprint.
    """

    kind: Literal["index"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    corpus: CorpusSettings
    bm25: Bm25Settings | None = None
    dense: DenseSettings | None = None
    executor: ExecutorSettings = LocalExecutor(kind="local")

    @field_validator("executor", mode="before")
    @classmethod
    def _kind_alone(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value
