"""A sample of a recipe's passages, and how many there will be, without reading them all."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rag_frozen.corpus.mediawiki.blocks import suitable_processes
from rag_frozen.corpus.mediawiki.stream import expand_dumps
from rag_frozen.corpus.parallel import usable_cores
from rag_frozen.corpus.readers import expand_sources, read_passages
from rag_frozen.corpus.sources import RowSource
from rag_frozen.errors import RecipeError
from rag_frozen.indexing.sources import corpus_source
from rag_frozen.recipes.corpora import MediaWikiCorpus
from rag_frozen.recipes.index import FilesCorpus, IndexRecipe
from rag_frozen.types import Passage

__all__ = ["CorpusSample", "sample_corpus"]

_HEAD = 2**20
_TIMED = 40_000
"""Passages that are read to tell how long reading takes."""
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class CorpusSample:
    """Passages of a corpus, the number that all of it is estimated to hold (exact when ``whole``),
    and the seconds that reading one takes."""

    passages: list[Passage]
    n_passages: int
    whole: bool
    seconds_each: float


def sample_corpus(recipe: IndexRecipe, *, n: int, work: Path) -> CorpusSample:
    """Read about ``n`` passages.

    Of files each gives its share of the sample: the rows of a file are estimated from its first
    MiB, compressed or not. Other sources tell which part of them has been read.

    Args:
        recipe: whose corpus is sampled.
        n: passages wanted.
        work: an empty folder for working files.

    Raises:
        RecipeError: when no files are named, or the source cannot tell how much was read.
        InputError, DataFormatError: when they cannot be read, or hold no passage.
    """
    corpus = recipe.corpus
    if isinstance(corpus, FilesCorpus) and corpus.path is not None:
        return _of_files(recipe.name, corpus, corpus.path, n, work)
    source = corpus_source(recipe, processes=1)
    began = time.perf_counter()
    with closing(source):
        passages = list(islice(source.passages(work), n))
        spent = (time.perf_counter() - began) / _processes(recipe)
        whole = len(passages) < n
        if not whole and not source.share:
            raise RecipeError(
                f"The corpus of index recipe {recipe.name} does not say how many rows it has, so "
                "that no build of it can be planned. Build it: what is finished is kept."
            )
        total = len(passages) if whole else int(len(passages) / (source.share or 1.0))
    return _sample(recipe.name, passages, max(total, len(passages)), whole, spent)


def _of_files(name: str, corpus: FilesCorpus, path: Path | str, n: int, work: Path) -> CorpusSample:
    files = expand_sources(path)
    rows = [_rows_in(file) for file in files]
    total = sum(rows)
    began = time.perf_counter()
    passages: list[Passage] = []
    rows_read = 0
    for file, estimated in zip(files, rows, strict=True):
        wanted = estimated if total <= n else max(1, round(n * estimated / total))
        reader = read_passages(
            [file],
            format=None if corpus.format == "auto" else corpus.format,
            strict=corpus.strict,
        )
        source = RowSource(reader, chunk_words=corpus.chunk_words)
        found = source.passages(work)
        passages += found if total <= n else islice(found, wanted)
        rows_read += reader.report.kept + reader.report.malformed
    spent = time.perf_counter() - began
    whole = total <= n
    expected = len(passages) if whole else round(total * len(passages) / max(rows_read, 1))
    if not whole:
        spent = len(passages) * _seconds_to_read(corpus, files, work)
    return _sample(name, passages, expected, whole, spent)


def _seconds_to_read(corpus: FilesCorpus, files: Sequence[Path], work: Path) -> float:
    """Seconds a passage, of many in a row: a reader takes whole blocks, so that the first rows of
    each of many files, which the sample is made of, say little about all of them."""
    began, timed = time.perf_counter(), 0
    for file in files:
        reader = read_passages(
            [file],
            format=None if corpus.format == "auto" else corpus.format,
            strict=corpus.strict,
        )
        found = RowSource(reader, chunk_words=corpus.chunk_words).passages(work)
        timed += sum(1 for _ in islice(found, _TIMED - timed))
        if timed == _TIMED:
            break
    return (time.perf_counter() - began) / max(timed, 1)


def _sample(
    name: str, passages: list[Passage], expected: int, whole: bool, spent: float
) -> CorpusSample:
    if not passages:
        raise RecipeError(
            f"The corpus of index recipe {name} holds no passage. Check --set corpus.path=…"
        )
    return CorpusSample(passages, expected, whole, spent / len(passages))


def _rows_in(path: Path) -> int:
    """Lines of a file: counted in a small one, estimated from the first MiB of a large one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    text, taken = head, len(head)
    if head.startswith(_GZIP_MAGIC):
        unzip = zlib.decompressobj(wbits=31)
        try:
            text = unzip.decompress(head)
        except zlib.error:
            return 1  # reading it tells what is wrong with it
        taken = len(head) - len(unzip.unused_data)
    lines = text.count(b"\n") + (taken == size and not text.endswith(b"\n"))
    return max(1, round(lines * size / max(taken, 1)))


def _processes(recipe: IndexRecipe) -> int:
    """How many read the corpus; the sample is read by one."""
    if not isinstance(recipe.corpus, MediaWikiCorpus) or recipe.corpus.path is None:
        return 1
    wanted = recipe.corpus.processes or suitable_processes(expand_dumps(recipe.corpus.path))
    return min(wanted, usable_cores())
