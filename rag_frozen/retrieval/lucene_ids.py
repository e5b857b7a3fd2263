"""Which passages a Lucene index holds: its identity on disk, and whether a corpus is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_frozen.artifacts import file_sha256
from rag_frozen.corpus.ids import hash_ids
from rag_frozen.errors import ArtifactMismatchError, ArtifactMissingError

__all__ = ["check_same_ids", "index_digest"]

_SHOWN = 3
Ids = Callable[[], Iterable[list[str]]]
"""Gives the ids of an index or a corpus, in lists; may be called again."""


def index_digest(folder: Path) -> str:
    """Return the SHA-256 of the newest commit of a Lucene index, 64 hex digits.

    Lucene draws an id for each segment and each commit, and the commit lists them: two indexes
    with one digest hold the same segments. Java is not needed.

    Raises:
        ArtifactMissingError: when the folder holds no Lucene index.
    """
    commits = [path for path in folder.glob("segments_*") if path.is_file()]
    if not commits:
        raise ArtifactMissingError(
            f"{folder} is no folder of a Lucene index: it has no file segments_N. Name the folder "
            "that holds Lucene's own files."
        )
    return file_sha256(max(commits, key=lambda path: int(path.name.removeprefix("segments_"), 36)))


def check_same_ids(index: Ids, corpus: Ids, *, folder: Path, corpus_folder: Path) -> None:
    """Check that an index and a corpus hold the same ids, each once, in whatever order.

    Ids are compared as 64-bit hashes: 8 bytes a passage, for each of the two.

    Raises:
        ArtifactMismatchError: saying how many differ, and naming some.
    """
    ours, theirs = _hashes(index()), _hashes(corpus())
    if np.array_equal(ours, theirs):
        return
    told = [f"it holds {len(ours):,} passages, the corpus {len(theirs):,}"]
    if repeated := len(ours) - len(np.unique(ours)):
        told.append(f"{repeated:,} of its ids stand there twice")
    told += _differing(index, ours, theirs, "of its ids are not in the corpus")
    told += _differing(corpus, theirs, ours, "ids of the corpus are not in it")
    raise ArtifactMismatchError(
        f"The Lucene index in {folder} is not over the corpus in {corpus_folder}: "
        f"{'; '.join(told)}. Name the corpus that it was made of, or build an index of this one: "
        "bm25.kind: bm25-lucene"
    )


def _hashes(ids: Iterable[list[str]]) -> npt.NDArray[np.uint64]:
    blocks = [hash_ids(some) for some in ids if some]
    return np.sort(np.concatenate(blocks)) if blocks else np.empty(0, dtype=np.uint64)


def _differing(
    ids: Ids, mine: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64], what: str
) -> Iterator[str]:
    odd = np.setdiff1d(mine, other)
    if not len(odd):
        return
    named: list[str] = []
    for some in ids():
        strange = np.isin(hash_ids(some), odd)
        named += [one for one, wrong in zip(some, strange, strict=True) if wrong]
        if len(named) >= _SHOWN:
            break
    yield f"{len(odd):,} {what}, such as {', '.join(map(repr, named[:_SHOWN]))}"
