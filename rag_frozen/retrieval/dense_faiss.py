"""What the faiss engines share: loading faiss, index files, and building them step by step."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rag_frozen.errors import ArtifactDamagedError, MissingPackageError
from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_vectors import StoredVectors
from rag_frozen.retrieval.faiss_packages import check_faiss_packages, faiss_packages

__all__ = [
    "BATCH",
    "INDEX_NAME",
    "UNFINISHED_NAME",
    "build_file",
    "last_line",
    "load_faiss",
    "open_file",
    "read_unfinished",
    "reserve",
    "training_sample",
    "write_file",
]

INDEX_NAME = "index.faiss"
UNFINISHED_NAME = "index.faiss.unfinished"
_BLAS_THRESHOLD = 5
"""faiss searches batches of at least so many questions as one matrix product: 249 against 7
questions/s at 1M x 384 and 256 questions, eight in 270 against 605 ms at 467k x 384. Fewer over a
list of centroids are faster one by one."""
BATCH = 65_536
"""Vectors that are added at once."""
_CHECKPOINT = 16
"""Batches between two checkpoints, about a million vectors."""
_log = logging.getLogger(__name__)


def load_faiss() -> Any:  # Any: faiss has no types
    """Import faiss and set when it multiplies matrices.

    Raises:
        MissingPackageError: when it is not there, or there twice.
    """
    found = faiss_packages()
    if len(found) > 1:
        check_faiss_packages(found)
    try:
        import faiss
    except ImportError as error:
        check_faiss_packages(found)
        raise MissingPackageError(
            f"faiss ({', '.join(found)}) is installed but cannot be imported: {error}. Type: pip "
            f"install --force-reinstall --no-deps {next(iter(found))}"
        ) from error
    faiss.cvar.distance_compute_blas_threshold = _BLAS_THRESHOLD
    return faiss


def training_sample(vectors: StoredVectors, n: int, *, seed: int, at_least: int = 1) -> Vectors:
    """Draw ``n`` stored vectors by ``seed``; where there are fewer than ``at_least``, each stands
    several times, since faiss refuses to train on fewer than it makes centroids."""
    drawn = vectors.sample(n, seed=seed)
    if len(drawn) >= at_least:
        return drawn
    return np.resize(drawn, (at_least, vectors.width))


def reserve(index: Any, n: int) -> Any:  # Any: faiss has no types
    """Take the memory of ``n`` vectors' codes at once, for a flat or scalar index that is empty:
    growing step by step copies, and holds up to three times as much."""
    index.codes.resize(index.code_size * n)
    index.codes.resize(0)
    return index


def build_file(
    folder: Path,
    vectors: StoredVectors,
    make: Callable[[], Any],
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Train an index and add all vectors to it, into ``index.faiss`` of ``folder``.

    For an engine that cannot be merged; the others are built by
    :func:`rag_frozen.retrieval.dense_parts.build_merged`. The trained index, and then the index
    after about every million vectors, is written beside; a build that was stopped goes on from the
    last of them.

    Args:
        folder: of this build alone.
        vectors: what is added.
        make: returns the trained empty index.
        progress: is told the number of vectors added.

    Raises:
        OSError: when the disk refuses.
    """
    target = folder / INDEX_NAME
    if target.exists():
        return target
    unfinished = folder / UNFINISHED_NAME
    index = read_unfinished(unfinished)
    if index is None:
        index = make()
        write_file(index, unfinished)
    for number, (start, block) in enumerate(vectors.blocks(start=index.ntotal, size=BATCH), 1):
        index.add(block)
        progress(start + len(block))
        if number % _CHECKPOINT == 0:
            write_file(index, unfinished)
    write_file(index, target)
    unfinished.unlink(missing_ok=True)
    return target


def open_file(folder: Path, *, n: int, width: int, mapped: bool) -> Any:  # Any: faiss has no types
    """Read ``index.faiss``; ``mapped`` leaves codes and links in the file until they are used.

    Measured with faiss 1.15: flat codes, scalar quantisers and HNSW (codes and links) are mapped
    by ``IO_FLAG_MMAP_IFC``; the inverted lists of PQ fast-scan are not, by any flag.

    Raises:
        ArtifactDamagedError: when it is missing, cut off, or not of ``n`` vectors of ``width``.
    """
    faiss = load_faiss()
    path = folder / INDEX_NAME
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise ArtifactDamagedError(
            f"The index in {path} cannot be read: {last_line(error)}. Build it again with: "
            "rag-frozen index build RECIPE"
        ) from error
    if (index.ntotal, index.d) != (n, width):
        raise ArtifactDamagedError(
            f"The index in {path} is of {index.ntotal:,} vectors of {index.d}, the vectors beside "
            f"it are {n:,} of {width}. Build it again with: rag-frozen index build RECIPE"
        )
    return index


def read_unfinished(unfinished: Path) -> Any:  # Any: faiss has no types
    """The index that a build which was stopped, or a change, left; None where there is none that
    can be read."""
    if not unfinished.exists():
        return None
    try:
        return load_faiss().read_index(str(unfinished))
    except RuntimeError as error:
        _log.warning("%s cannot be read and is made again: %s", unfinished, last_line(error))
        return None


def write_file(index: Any, path: Path, *, attempt: str = "") -> None:  # Any: faiss has no types
    """Write an index under a temporary name, then rename it; ``attempt`` tells apart those who may
    write it at once.

    Raises:
        OSError: when the disk refuses.
    """
    partial = path.with_name(f"{path.name}{attempt}.partial")
    try:
        load_faiss().write_index(index, str(partial))
    except RuntimeError as error:
        raise _system_error(error, partial) from error
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def _system_error(error: RuntimeError, path: Path) -> Exception:
    """faiss puts the system's words for what went wrong into its message."""
    import errno

    for code in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
        if os.strerror(code) in str(error):
            return OSError(code, os.strerror(code), str(path))
    return error


def last_line(error: RuntimeError) -> str:
    """faiss's messages name its own source file first.

    >>> last_line(RuntimeError("Error in f(x) at /a/b.cpp:12: Error: 'n' failed: too short"))
    "Error: 'n' failed: too short"
    """
    text = str(error).strip()
    return text[text.find("Error:") :] if "Error:" in text else text
