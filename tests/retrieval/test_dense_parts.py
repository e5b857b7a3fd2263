"""Searches merged from parts: what they would be in one piece, whoever made the parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_frozen.errors import ArtifactDamagedError
from rag_frozen.retrieval import dense_parts
from rag_frozen.retrieval.dense_faiss import INDEX_NAME, UNFINISHED_NAME, load_faiss
from rag_frozen.retrieval.dense_ivf import build_ivf
from rag_frozen.retrieval.dense_parts import MissingPart, write_part
from rag_frozen.retrieval.dense_scalar import build_scalar
from rag_frozen.retrieval.dense_vectors import StoredVectors
from tests.retrieval.clustered import WIDTH, N, clustered, questions, store

Build = Callable[..., Path]
KINDS: dict[str, Build] = {
    "scalar-fp16": lambda folder, vectors, **how: build_scalar(folder, vectors, bits=16, **how),
    "scalar-int8": lambda folder, vectors, **how: build_scalar(folder, vectors, bits=8, **how),
    "ivf": lambda folder, vectors, **how: build_ivf(folder, vectors, lists=16, **how),
    "ivf-odd": lambda folder, vectors, **how: build_ivf(
        folder, vectors, lists=11, subvector=32, **how
    ),
}


def opened(folder: Path) -> Any:
    return load_faiss().read_index(str(folder / INDEX_NAME))


def scores(index: Any) -> np.ndarray:
    """The score of every row for each question, ``[q, n]``: equal where the codes are."""
    if hasattr(index, "nprobe"):
        index.nprobe = index.nlist
    found, rows = index.search(questions(), index.ntotal)
    by_row = np.full_like(found, np.nan)
    np.put_along_axis(by_row, rows, found, axis=1)
    return by_row


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith("index.faiss")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [331, 1_250])
def test_parts_give_the_bytes_and_hits_of_one_index_that_all_were_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, size: int
):
    monkeypatch.setattr(dense_parts, "PART_SIZE", size)
    vectors = store(tmp_path / "parts", clustered())
    told: list[int] = []
    KINDS[kind](tmp_path / "parts", vectors, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == N
    assert left(tmp_path / "parts") == {INDEX_NAME}
    merged = opened(tmp_path / "parts")
    whole = opened(tmp_path / "parts")
    whole.reset()
    assert whole.ntotal == 0
    for _, block in vectors.blocks(size=999):
        whole.add(block)
    serialized = [load_faiss().serialize_index(index) for index in (whole, merged)]
    assert np.array_equal(*serialized)
    found = [index.search(questions(), 30) for index in (whole, merged)]
    assert np.array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("kind", KINDS)
def test_parts_made_elsewhere_end_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    monkeypatch.setattr(dense_parts, "PART_SIZE", 600)

    def elsewhere(parts: Iterable[MissingPart]) -> Iterator[MissingPart]:
        parts = list(parts)
        for part in reversed(parts):  # in any order, by whoever opens the folder
            write_part(MissingPart(part.folder, part.start, part.stop), attempt=".other")
        yield from parts

    KINDS[kind](tmp_path / "here", store(tmp_path / "here", clustered()))
    vectors = store(tmp_path / "there", clustered())
    told: list[int] = []
    KINDS[kind](tmp_path / "there", vectors, elsewhere=elsewhere, progress=told.append)
    assert told == [600, 1_200, 1_800, 2_400, 2_500]
    assert left(tmp_path / "there") == {INDEX_NAME}
    files = [(tmp_path / which / INDEX_NAME).read_bytes() for which in ("here", "there")]
    assert files[0] == files[1]


@pytest.mark.parametrize("kind", ["scalar-fp16", "scalar-int8", "ivf"])
def test_vectors_are_added_to_an_index_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    monkeypatch.setattr(dense_parts, "PART_SIZE", 400)
    made = clustered()
    KINDS[kind](tmp_path / "old", store(tmp_path / "old", made[:1_000]))
    vectors = store(tmp_path / "new", made)
    old = (tmp_path / "old" / INDEX_NAME).read_bytes()
    (tmp_path / "new" / UNFINISHED_NAME).write_bytes(old)
    KINDS[kind](tmp_path / "new", vectors)
    assert left(tmp_path / "new") == {INDEX_NAME}
    before, after = opened(tmp_path / "old"), opened(tmp_path / "new")
    assert (before.ntotal, after.ntotal) == (1_000, N)
    found = scores(after)
    assert np.array_equal(found[:, :1_000], scores(before))
    assert np.abs(found - questions() @ made.T).max() < 0.5


def test_a_part_that_is_damaged_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dense_parts, "PART_SIZE", 600)
    vectors = store(tmp_path, clustered())

    def keeps(parts: Iterable[MissingPart]) -> Iterator[MissingPart]:
        for part in parts:
            write_part(part)
            yield part
        parts_there = sorted(tmp_path.glob("index.faiss.part-*"))
        parts_there[1].write_bytes(parts_there[1].read_bytes()[:40])
        parts_there[2].write_bytes(parts_there[4].read_bytes())

    with pytest.raises(ArtifactDamagedError, match=r"part-0+600 cannot be read.*Remove it"):
        build_scalar(tmp_path, vectors, bits=8, elsewhere=keeps)
    (tmp_path / "index.faiss.part-000000000600").unlink()
    with pytest.raises(ArtifactDamagedError, match=r"part-0+1200 holds 100 vectors, not 600"):
        build_scalar(tmp_path, vectors, bits=8)
    (tmp_path / "index.faiss.part-000000001200").unlink()
    build_scalar(tmp_path, vectors, bits=8)
    assert StoredVectors(tmp_path).width == opened(tmp_path).d == WIDTH
