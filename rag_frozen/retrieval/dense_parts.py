"""A search over vectors that is made in parts: trained once, coded part by part, merged in order.

A part is a file of its own, made here or by whoever sees the folder, and never touched again. So
a build that was stopped goes on with the first missing part, and one that many machines share ends
in the same bytes: both go this way. A graph cannot be merged from graphs; HNSW is built by
:func:`rag_frozen.retrieval.dense_faiss.build_file`.

Lists in the fast-scan layout hold blocks of 32 codes, and faiss 1.15 writes beyond a list's memory
when it merges two of them of certain sizes (a multiple of a block's bytes). So their parts are
plain lists of codes, which are merged and then laid out once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_frozen.errors import ArtifactDamagedError
from rag_frozen.retrieval import dense_faiss
from rag_frozen.retrieval.dense_faiss import (
    INDEX_NAME,
    UNFINISHED_NAME,
    build_file,
    last_line,
    load_faiss,
    write_file,
)
from rag_frozen.retrieval.dense_vectors import StoredVectors

__all__ = ["PART_SIZE", "MissingPart", "PartMaker", "build_merged", "is_part_file", "write_part"]

PART_SIZE = 2**20
"""Vectors a part: a few minutes' work, and at most some hundred MiB of codes."""
_TRAINED_NAME = "index.faiss.trained"
_PART_NAME = "index.faiss.part"
_LISTS_NAME = "index.faiss.lists"


@dataclass(frozen=True, slots=True)
class MissingPart:
    """Rows ``start`` to ``stop`` of a folder's vectors, whose codes are to be made."""

    folder: Path
    start: int
    stop: int

    @property
    def path(self) -> Path:
        """The part's file."""
        return self.folder / f"{_PART_NAME}-{self.start:012d}"


PartMaker = Callable[[Iterable[MissingPart]], Iterator[MissingPart]]
"""Makes parts elsewhere, in their order; yields each when its file is there."""


def build_merged(
    folder: Path,
    vectors: StoredVectors,
    make: Callable[[], Any],  # Any: faiss has no types
    *,
    progress: Callable[[int], None] = lambda done: None,
    elsewhere: PartMaker | None = None,
) -> Path:
    """Train an index, code all vectors in parts, and merge them into ``index.faiss`` of ``folder``.

    Where ``index.faiss.unfinished`` holds an index of the first vectors, which is so when passages
    are added, the others are added to it here.

    Args:
        folder: of this build alone; parts that are there are kept.
        vectors: what is added.
        make: returns the trained empty index.
        progress: is told the number of vectors coded.
        elsewhere: makes the parts in place of this process.

    Raises:
        OSError: when the disk refuses.
    """
    target = folder / INDEX_NAME
    if target.exists():
        return target
    if (folder / UNFINISHED_NAME).exists():
        return build_file(folder, vectors, make, progress=progress)
    trained = folder / _TRAINED_NAME
    if not trained.exists():
        write_file(make(), trained)
    parts = [
        MissingPart(folder, start, min(start + PART_SIZE, len(vectors)))
        for start in range(0, len(vectors), PART_SIZE)
    ]
    missing = [part for part in parts if not part.path.exists()]
    done = len(vectors) - sum(part.stop - part.start for part in missing)
    if elsewhere is None:
        for part in missing:
            write_part(part, vectors, progress=_from(progress, done))
            done += part.stop - part.start
    else:
        for part in elsewhere(missing):
            done += part.stop - part.start
            progress(done)
    _merge(folder, parts)
    for left in (*(part.path for part in parts), folder / _LISTS_NAME, trained):
        left.unlink(missing_ok=True)
    return target


def write_part(
    part: MissingPart,
    vectors: StoredVectors | None = None,
    *,
    attempt: str = "",
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Code the rows of a part and write its file.

    Args:
        part: its folder holds the vectors and the trained index.
        vectors: of the folder; opened where they are not given.
        attempt: tells apart those who may write it at once.
        progress: is told the number of rows done.

    Raises:
        OSError: when the disk refuses.
    """
    trained = _read(part.folder / _TRAINED_NAME)
    index = _empty(trained)
    stored = StoredVectors(part.folder) if vectors is None else vectors
    for start, block in stored.blocks(start=part.start, stop=part.stop, size=dense_faiss.BATCH):
        index.add(block)
        progress(start + len(block) - part.start)
    write_file(index, part.path, attempt=attempt)


def is_part_file(path: Path) -> bool:
    """True for a part and for what is left of one.

    >>> is_part_file(Path("index.faiss.part-000001048576")), is_part_file(Path("index.faiss"))
    (True, False)
    """
    return path.name.startswith(f"{_PART_NAME}-")


def _merge(folder: Path, parts: Sequence[MissingPart]) -> None:
    faiss = load_faiss()
    trained = _read(folder / _TRAINED_NAME)
    if not isinstance(trained, faiss.IndexIVFPQFastScan):
        index = dense_faiss.reserve(trained, parts[-1].stop)
        for part in parts:
            index.merge_from(_read_part(part))
        write_file(index, folder / INDEX_NAME)
        return
    index = _empty(trained)
    for part in parts:
        index.merge_from(_read_part(part), index.ntotal)
    write_file(index, folder / _LISTS_NAME)
    del index
    plain = faiss.read_index(str(folder / _LISTS_NAME), faiss.IO_FLAG_MMAP)
    write_file(faiss.IndexIVFPQFastScan(plain), folder / INDEX_NAME)


def _empty(trained: Any) -> Any:  # Any: faiss has no types
    """What a part is coded with: the trained index, but plain lists for one in the fast-scan
    layout. It uses the trained one's centroids, so that one must be kept as long."""
    faiss = load_faiss()
    if not isinstance(trained, faiss.IndexIVFPQFastScan):
        return trained
    code = trained.pq
    plain = faiss.IndexIVFPQ(
        trained.quantizer, trained.d, trained.nlist, code.M, code.nbits, trained.metric_type
    )
    plain.by_residual, plain.pq, plain.is_trained = trained.by_residual, code, True
    return plain


def _read_part(part: MissingPart) -> Any:
    index = _read(part.path)
    if index.ntotal != part.stop - part.start:
        raise ArtifactDamagedError(
            f"{part.path} holds {index.ntotal:,} vectors, not {part.stop - part.start:,}. Remove "
            "it; the same command makes it again."
        )
    return index


def _read(path: Path) -> Any:
    try:
        return load_faiss().read_index(str(path))
    except RuntimeError as error:
        raise ArtifactDamagedError(
            f"{path} cannot be read: {last_line(error)}. Remove it; the same command makes it "
            "again."
        ) from error


def _from(progress: Callable[[int], None], before: int) -> Callable[[int], None]:
    return lambda done: progress(before + done)
