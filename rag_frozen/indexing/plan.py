"""What a build will take on this machine, estimated from a sample of its corpus."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rag_frozen.artifacts import artifact_root
from rag_frozen.corpus.mediawiki.reader import suitable_processes
from rag_frozen.corpus.mediawiki.stream import expand_dumps
from rag_frozen.corpus.parallel import usable_cores
from rag_frozen.corpus.readers import expand_sources
from rag_frozen.corpus.sources import CorpusSource
from rag_frozen.corpus.store import write_store
from rag_frozen.errors import RecipeError
from rag_frozen.indexing.build import make_encoder
from rag_frozen.indexing.sources import corpus_source
from rag_frozen.recipes.corpora import MediaWikiCorpus
from rag_frozen.recipes.index import FilesCorpus, IndexRecipe
from rag_frozen.retrieval.bm25_tantivy import build_tantivy
from rag_frozen.types import Passage

__all__ = ["IndexPlan", "PlannedStep", "plan_index"]

_SAMPLE = 4_096
_ENCODED = 256
_VECTOR_BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One part of a build: bytes on disk, seconds on this machine."""

    part: str
    disk_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """The estimate; ``basis`` says what it rests on."""

    name: str
    n_passages: int
    basis: str
    steps: tuple[PlannedStep, ...]
    free_bytes: int

    @property
    def fits(self) -> bool:
        """True when the disk has room for all parts."""
        return sum(step.disk_bytes for step in self.steps) < self.free_bytes

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """The plan as plain JSON values."""
        return {**asdict(self), "fits": self.fits}


def plan_index(recipe: IndexRecipe, *, root: Path | None = None) -> IndexPlan:
    """Build a sample in a temporary folder and scale what it took by the number of passages.

    The number is the sample's rate of passages a byte, times the bytes of the corpus' files, or by
    rows of a data set and documents of a folder; it is exact when the sample is the whole corpus.

    Raises:
        RecipeError: when the recipe's files are not named.
    """
    source = corpus_source(recipe, processes=1)
    steps: list[PlannedStep] = []
    with tempfile.TemporaryDirectory(prefix="rag-frozen-plan-") as name:
        folder = Path(name)
        began = time.perf_counter()
        with closing(source):
            sample = list(islice(source.passages(folder), _SAMPLE))
            read_seconds = (time.perf_counter() - began) / _processes(recipe)
            whole = len(sample) < _SAMPLE
            n_passages = len(sample) if whole else _count(recipe, source, sample)
        scale = n_passages / max(len(sample), 1)
        (folder / "corpus").mkdir()
        began = time.perf_counter()
        write_store(folder / "corpus", sample)
        spent = read_seconds + time.perf_counter() - began
        steps.append(PlannedStep("corpus", int(scale * _size(folder / "corpus")), scale * spent))
        if recipe.bm25 is not None:
            began = time.perf_counter()
            build_tantivy(folder / "bm25", sample, stemming=recipe.bm25.stemming)
            spent = time.perf_counter() - began
            steps.append(PlannedStep("bm25", int(scale * _size(folder / "bm25")), scale * spent))
    if recipe.dense is not None:
        encoder = make_encoder(recipe.dense.encoder)
        some = sample[:: max(1, len(sample) // _ENCODED)][:_ENCODED]
        encoder.encode_passages(some[:8])  # the first batch pays for what is set up once
        began = time.perf_counter()
        encoder.encode_passages(some)
        each = (time.perf_counter() - began) / max(len(some), 1)
        width = encoder.width * _VECTOR_BYTES[recipe.dense.dtype]
        steps.append(PlannedStep("dense", n_passages * width, n_passages * each))
    basis = "all passages" if whole else f"estimated from {len(sample):,} passages"
    free = shutil.disk_usage(_existing(artifact_root(root))).free
    return IndexPlan(recipe.name, n_passages, basis, tuple(steps), free)


def _processes(recipe: IndexRecipe) -> int:
    """How many read the corpus; the sample is read by one."""
    if not isinstance(recipe.corpus, MediaWikiCorpus) or recipe.corpus.path is None:
        return 1
    wanted = recipe.corpus.processes or suitable_processes(expand_dumps(recipe.corpus.path))
    return min(wanted, usable_cores())


def _count(recipe: IndexRecipe, source: CorpusSource, sample: list[Passage]) -> int:
    """Estimate passages from the share of the source that the sample took, or from the files'
    bytes; a gzipped byte stands for about 2.6 of text."""
    if isinstance(recipe.corpus, FilesCorpus) and recipe.corpus.path is not None:
        files = expand_sources(recipe.corpus.path)
        text = sum(len((p.id + p.title + p.text).encode()) + 40 for p in sample) / len(sample)
        size = sum(f.stat().st_size * (2.6 if f.suffix == ".gz" else 1.0) for f in files)
        return max(len(sample), int(size / text))
    if not source.share:
        raise RecipeError(
            f"The corpus of index recipe {recipe.name} does not say how many rows it has, so that "
            "no build of it can be planned. Build it: what is finished is kept."
        )
    return max(len(sample), int(len(sample) / source.share))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
