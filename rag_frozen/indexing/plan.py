"""What a build will take on this machine, estimated from a sample of its corpus."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rag_frozen.artifacts import artifact_root
from rag_frozen.corpus.store_writing import write_store
from rag_frozen.indexing import encoders
from rag_frozen.indexing.bm25 import build_engine
from rag_frozen.indexing.dense import resolve_dense
from rag_frozen.indexing.dense_times import measured_flops
from rag_frozen.indexing.fitting import KindFit, free_disk, kinds_that_fit, machine_memory
from rag_frozen.indexing.sampling import CorpusSample, sample_corpus
from rag_frozen.recipes.index import IndexRecipe, LuceneBm25, LuceneIndex, TantivyBm25
from rag_frozen.retrieval.dense_encoders import Encoder
from rag_frozen.retrieval.tantivy_segments import plan_segments
from rag_frozen.types import Passage

__all__ = ["IndexPlan", "PlannedStep", "plan_index"]

_SAMPLE = 8_192
_PARTS = (8, 2, 1)
"""The sample's eighth, its half and all of it are built, to tell what grows and how."""
_ENCODED = 512
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_PYTHON = 320 * 2**20
"""Resident memory of a build without a model, measured."""
_ENCODING = 900 * 2**20
"""The same with torch, transformers and one batch of activations."""
_ID_BYTES = 48
"""Of memory a passage while the table of ids is sorted: hash, row, their order and copies."""
_ID_TEXT = 70
"""Of memory a passage for its id while vectors are encoded: a Python string and its place."""
_MERGE = 0.14
"""Of tantivy's time to index, that of merging eight parts into one, measured."""
_HEAPS = 0.6
"""The power of a text's length with which its vocabulary grows (Heaps' law), for English."""
_TEXT_BYTES = 1_200
"""Of memory a passage that waits in a shard for its vector."""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One part of a build: bytes on disk, seconds on this machine, bytes of memory at the most."""

    part: str
    disk_bytes: int
    seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """The estimate; ``basis`` says what it rests on, ``kinds`` what each kind of dense index would
    take when it serves."""

    name: str
    n_passages: int
    basis: str
    steps: tuple[PlannedStep, ...]
    kinds: tuple[KindFit, ...]
    chosen_kind: str | None
    free_bytes: int
    memory_bytes: int

    @property
    def fits(self) -> bool:
        """True when the disk has room for all parts and the memory for each step and the kind."""
        on_disk = sum(step.disk_bytes for step in self.steps) < self.free_bytes
        in_memory = all(step.memory_bytes < self.memory_bytes for step in self.steps)
        served = all(kind.fits for kind in self.kinds if kind.kind == self.chosen_kind)
        return on_disk and in_memory and served

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """The plan as plain JSON values."""
        return {**asdict(self), "fits": self.fits}


def plan_index(
    recipe: IndexRecipe, *, root: Path | None = None, n_passages: int | None = None
) -> IndexPlan:
    """Build parts of a sample in a temporary folder and extend what they took to all passages.

    Seconds grow with the passages beside a fixed part; the bytes of a BM25 index have a part that
    grows slower, its vocabulary (Heaps' law). Memory, the sizes of dense indexes and the time of
    building their search are formulas (indexes/README.md). All is exact in the number of passages
    when the sample is the whole corpus.

    Args:
        recipe: what would be built.
        root: where; its disk is looked at.
        n_passages: plan as if the corpus had so many passages like those that it has.

    Raises:
        RecipeError: when the recipe's files are not named, or its source cannot be sampled.
        InputError, DataFormatError: when they cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="rag-frozen-plan-") as name:
        work = Path(name)
        sample = sample_corpus(recipe, n=_SAMPLE, work=work)
        if n_passages is not None:
            sample = replace(sample, n_passages=n_passages, whole=False)
        n = sample.n_passages
        steps = [_corpus_step(sample, work)]
        if recipe.bm25 is not None and not isinstance(recipe.bm25, LuceneIndex):
            steps.append(_bm25_step(recipe.bm25, sample, work))
    free, memory = free_disk(artifact_root(root)), machine_memory()
    kinds: list[KindFit] = []
    chosen = None
    if recipe.dense is not None:
        settings = resolve_dense(recipe.dense, n)
        encoder = encoders.make_encoder(recipe.dense.encoder)
        chosen = settings.kind
        kinds = kinds_that_fit(
            settings, n, encoder.width, free=free, memory=memory, flops=measured_flops()
        )
        this = next(kind for kind in kinds if kind.kind == chosen)
        shard = min(settings.shard_size, n)
        encoding = shard * (encoder.width * _BYTES[settings.vectors] + _TEXT_BYTES)
        at_most = _ENCODING + _weights(encoder) + _ID_TEXT * n + max(encoding, this.building)
        seconds = n * _seconds_to_encode(encoder, sample) + this.build_seconds
        steps.append(PlannedStep("dense", this.disk, seconds, at_most))
    count = len(sample.passages)
    basis = "all passages" if sample.whole else f"estimated from {count:,} passages"
    if n_passages is not None:
        basis = f"extrapolated from {count:,} passages"
    return IndexPlan(recipe.name, n, basis, tuple(steps), tuple(kinds), chosen, free, memory)


def _corpus_step(sample: CorpusSample, work: Path) -> PlannedStep:
    def write(folder: Path, passages: Sequence[Passage]) -> None:
        folder.mkdir()
        write_store(folder, passages)

    disk, seconds = _grown(write, sample, work / "corpus", sublinear=False)
    reading = sample.n_passages * sample.seconds_each
    memory = _PYTHON + _ID_BYTES * sample.n_passages
    return PlannedStep("corpus", disk, reading + seconds, memory)


def _bm25_step(settings: TantivyBm25 | LuceneBm25, sample: CorpusSample, work: Path) -> PlannedStep:
    def build(folder: Path, passages: Sequence[Passage]) -> None:
        size = _text_bytes(passages)
        build_engine(settings, folder, iter(passages), n_passages=len(passages), text_bytes=size)

    disk, seconds = _grown(build, sample, work / "bm25", sublinear=True)
    if isinstance(settings, LuceneBm25):
        return PlannedStep("bm25", disk, seconds, _PYTHON + settings.heap_mb * 2**20)
    n = sample.n_passages
    size = round(_text_bytes(sample.passages) * n / len(sample.passages))
    written = plan_segments(n, size, heap_mb=settings.heap_mb)
    seconds *= 1 + _MERGE * written.merges
    return PlannedStep("bm25", disk, seconds, _PYTHON + written.memory)


def _text_bytes(passages: Sequence[Passage]) -> int:
    return sum(len(passage.title.encode()) + len(passage.text.encode()) for passage in passages)


def _grown(
    build: Callable[[Path, Sequence[Passage]], None],
    sample: CorpusSample,
    folder: Path,
    *,
    sublinear: bool,
) -> tuple[int, float]:
    """Bytes and seconds of a part over all passages, from building parts of the sample. What is
    set up once, Java if any, is paid for by a first build that does not count."""
    build(folder.with_name(f"{folder.name}-first"), sample.passages[:64])
    sizes, disk, seconds = [], [], []
    for part in _PARTS:
        some = sample.passages[::part]
        began = time.perf_counter()
        build(folder.with_name(f"{folder.name}-{part}"), some)
        seconds.append(time.perf_counter() - began)
        sizes.append(len(some))
        disk.append(float(_size(folder.with_name(f"{folder.name}-{part}"))))
    if sample.whole:
        return int(disk[-1]), seconds[-1]
    power = _HEAPS if sublinear else 0.0
    return (
        int(_extended(sizes, disk, sample.n_passages, power)),
        _extended(sizes, seconds, sample.n_passages, 0.0),
    )


def _extended(sizes: Sequence[int], values: Sequence[float], n: int, power: float) -> float:
    """Fit a·size + b·size**power with a, b ≥ 0 and tell its value at ``n``; ``sizes`` rise.

    >>> round(_extended([10, 20, 40], [25.0, 45.0, 85.0], 100, 0.0), 6)
    205.0
    >>> _extended([10, 20, 40], [90.0, 45.0, 80.0], 100, 0.0)  # no line, for the first was slow
    200.0
    """
    of = np.asarray(sizes, dtype=np.float64)
    weights = 1.0 / of  # errors count in proportion
    terms = np.stack([of, of**power], axis=1) * weights[:, None]
    target = np.asarray(values) * weights
    slopes = np.linalg.lstsq(terms, target, rcond=None)[0]
    if slopes.min() < 0:  # noise: nothing shrinks as passages are added; the most tell best
        slopes = np.array([values[-1] / of[-1], 0.0])
    return float(slopes @ np.array([n, float(n) ** power]))


def _seconds_to_encode(encoder: Encoder, sample: CorpusSample) -> float:
    """Seconds a passage; the first batch pays for what is set up once and is not counted."""
    passages = sample.passages
    some = passages[:: max(1, len(passages) // _ENCODED)][:_ENCODED]
    encoder.encode_passages(some[:8])
    began = time.perf_counter()
    encoder.encode_passages(some)
    return (time.perf_counter() - began) / len(some)


def _weights(encoder: Encoder) -> int:
    """Bytes of an encoder's weights in fp32, where it can count them."""
    count = getattr(encoder, "parameter_counts", None)
    return 0 if count is None else 4 * int(count()[0])


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
