"""Engines over clustered vectors: the exact ones are exact, the others reach what they state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_frozen.errors import ArtifactDamagedError
from rag_frozen.retrieval import dense_faiss, dense_parts
from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_faiss import INDEX_NAME
from rag_frozen.retrieval.dense_flat import FlatSearch
from rag_frozen.retrieval.dense_hnsw import HnswSearch, build_hnsw
from rag_frozen.retrieval.dense_ivf import IvfSearch, build_ivf
from rag_frozen.retrieval.dense_scalar import Int8Search, SixteenBitSearch, build_scalar
from rag_frozen.retrieval.dense_search import TunableSearch, VectorSearch
from rag_frozen.retrieval.dense_torch import TorchSearch
from rag_frozen.retrieval.dense_tuning import exact_neighbours, recall, tune
from rag_frozen.retrieval.dense_vectors import StoredVectors
from tests.retrieval.clustered import clustered, questions, store

Maker = Callable[[StoredVectors], VectorSearch]


def scalar16(vectors: StoredVectors) -> SixteenBitSearch:
    build_scalar(vectors.folder, vectors, bits=16)
    return SixteenBitSearch(vectors.folder, vectors)


def int8(vectors: StoredVectors) -> Int8Search:
    build_scalar(vectors.folder, vectors, bits=8)
    return Int8Search(vectors.folder, vectors, refine=1)


def ivf(vectors: StoredVectors) -> IvfSearch:
    build_ivf(vectors.folder, vectors)
    return IvfSearch(vectors.folder, vectors)


def hnsw(vectors: StoredVectors) -> HnswSearch:
    build_hnsw(vectors.folder, vectors, build_ef=40)
    return HnswSearch(vectors.folder, vectors)


def torch32(vectors: StoredVectors) -> TorchSearch:
    return TorchSearch(vectors, device="cpu", dtype="float32")


def torch16(vectors: StoredVectors) -> TorchSearch:
    return TorchSearch(vectors, device="cpu", dtype="bfloat16", pool=30)


def resident(vectors: StoredVectors) -> TorchSearch:
    return TorchSearch(vectors, device="cpu", dtype="bfloat16", pool=25, resident=True)


EXACT: list[Maker] = [FlatSearch, scalar16, torch32, torch16, resident]
TUNED: list[Callable[[StoredVectors], TunableSearch]] = [int8, ivf, hnsw]
FILES: dict[str, Maker] = {"scalar16": scalar16, "int8": int8, "ivf": ivf, "hnsw": hnsw}


def products(vectors: StoredVectors, queries: Vectors) -> Vectors:
    stored = np.concatenate([block for _, block in vectors.blocks()])
    return queries @ stored.T


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("make", EXACT)
def test_an_exact_kind_gives_the_scores_of_numpy(tmp_path: Path, make: Maker, dtype: str):
    vectors = store(tmp_path, clustered(), dtype=dtype)  # type: ignore[arg-type]
    truth = products(vectors, questions())
    scores, rows = make(vectors).search(questions(), k=20)
    assert scores == pytest.approx(-np.sort(-truth, axis=1)[:, :20], abs=2e-6)
    assert np.take_along_axis(truth, rows, axis=1) == pytest.approx(scores, abs=2e-6)
    assert all(len(set(row)) == 20 for row in rows.tolist())


def test_bf16_products_alone_would_not_be_exact(tmp_path: Path):
    """What the rescoring and the enlarged pool of exact-torch are there for."""
    near = clustered(1)[0] + 1e-4 * np.random.default_rng(3).standard_normal((2_000, 32))
    vectors = store(tmp_path, near.astype(np.float32), dtype="float32")
    engine = torch16(vectors)
    best = np.argmax(products(vectors, questions(40)), axis=1)
    _, rough = engine._rough(questions(40), 30, torch.bfloat16)
    assert np.mean([row in found for row, found in zip(best, rough, strict=True)]) < 0.9
    _, rows = engine.search(questions(40), k=1)
    truth = products(vectors, questions(40))
    assert truth[np.arange(40), rows[:, 0]] == pytest.approx(truth.max(axis=1), abs=1e-6)


@pytest.mark.parametrize("asked", [1, 3, 4])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("near", [False, True])
def test_products_of_stored_sixteen_bit_numbers_end_in_the_exact_best(
    tmp_path: Path, asked: int, scale: float, near: bool
):
    """Few questions are multiplied with fp16 as it is stored, unless products could overflow."""
    made = scale * (np.tile(clustered(50), (50, 1)) if near else clustered())
    made += near * scale * 1e-3 * np.random.default_rng(3).standard_normal(made.shape)
    vectors = store(tmp_path, made.astype(np.float32))
    engine = TorchSearch(vectors, device="cpu", pool=20)
    queries = scale * questions(asked)
    few = asked < 4 and scale < 100
    assert (engine._products_in(queries) is torch.float16) is few
    truth = products(vectors, queries)
    scores, rows = engine.search(queries, k=10)
    assert scores == pytest.approx(-np.sort(-truth, axis=1)[:, :10], rel=1e-5)
    assert np.take_along_axis(truth, rows, axis=1) == pytest.approx(scores, rel=1e-5)


@pytest.mark.parametrize("make", TUNED)
def test_an_approximate_kind_reaches_its_stated_recall(tmp_path: Path, make):
    vectors = store(tmp_path, clustered())
    truth = exact_neighbours(vectors, questions(), k=20)
    engine = make(vectors)
    coarse = recall(engine.search(questions(), k=20)[1], truth)
    recalls = []
    for target in (0.9, 0.99):
        found = tune(engine, questions(), truth, target=target)
        engine.breadth, engine.refine = found.breadth, found.refine
        scores, rows = engine.search(questions(), k=20)
        assert recall(rows, truth) == pytest.approx(found.recall, abs=2e-3)
        assert found.recall >= target
        exact = np.take_along_axis(products(vectors, questions()), rows, axis=1)
        assert scores == pytest.approx(exact, abs=2e-6)  # rescored, not approximate
        recalls.append(found.recall)
    assert coarse <= recalls[0] <= recalls[1]


@pytest.mark.parametrize("make", [*EXACT, *TUNED])
def test_a_batch_gives_what_one_by_one_gives(tmp_path: Path, make: Maker):
    vectors = store(tmp_path, clustered())
    engine = make(vectors)
    together, _ = engine.search(questions(60), k=10)
    for place, query in enumerate(questions(60)):
        alone, _ = engine.search(query[None], k=10)
        assert alone[0] == pytest.approx(together[place], abs=2e-6)


@pytest.mark.parametrize("make", [*EXACT, *TUNED])
def test_more_than_there_are_gives_all_that_were_found(tmp_path: Path, make: Maker):
    engine = make(store(tmp_path, clustered(6)))
    scores, rows = engine.search(questions(3), k=6)
    for place in range(3):
        found = rows[place][rows[place] >= 0]
        assert len(set(found.tolist())) == len(found) >= 1
        assert np.isneginf(scores[place][rows[place] < 0]).all()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), asked=st.integers(1, 6), k=st.integers(1, 70), seed=st.integers(0, 9))
def test_flat_search_of_few_and_of_many_questions_is_numpys(
    tmp_path_factory: pytest.TempPathFactory, n: int, asked: int, k: int, seed: int
):
    made = np.repeat(clustered(n, seed=seed), 2, axis=0)  # every vector stands twice
    search = FlatSearch(store(tmp_path_factory.mktemp("v"), made, dtype="float32"))
    queries = questions()[:asked]
    scores, rows = search.search(queries, k=k)
    found = min(k, 2 * n)
    truth = -np.sort(-(queries @ made.T), axis=1)[:, :found]
    assert scores.shape == rows.shape == (asked, k)
    assert np.allclose(scores[:, :found], truth, atol=1e-5)
    assert (rows[:, found:] == -1).all()
    for place in range(asked):
        chosen = rows[place, :found]
        assert len(set(chosen.tolist())) == found
        assert np.allclose(made[chosen] @ queries[place], scores[place, :found], atol=1e-5)
        if asked <= 3:
            assert np.isneginf(scores[place, found:]).all()
            ties = np.flatnonzero(scores[place, 1:found] == scores[place, : found - 1])
            assert (chosen[ties] < chosen[ties + 1]).all()
            assert len(ties) >= found // 2 - 1


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 3, 40, 2_000])
def test_an_index_that_is_cut_off_is_told(tmp_path: Path, name: str, keep: int):
    vectors = store(tmp_path, clustered(500))
    FILES[name](vectors)
    path = tmp_path / INDEX_NAME
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactDamagedError, match="index build"):
        FILES[name](vectors)  # finds the file and opens it


@pytest.mark.parametrize("name", FILES)
def test_an_index_over_other_vectors_is_told(tmp_path: Path, name: str):
    FILES[name](store(tmp_path / "a", clustered(500)))
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / INDEX_NAME).rename(tmp_path / "b" / INDEX_NAME)
    other = store(tmp_path / "b", clustered(400))
    with pytest.raises(ArtifactDamagedError, match=r"500 vectors of 32.*400 of 32"):
        FILES[name](other)


@pytest.mark.parametrize("name", ["scalar16", "int8", "ivf"])
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_an_index_that_was_stopped_goes_on_and_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stop: int
):
    monkeypatch.setattr(dense_faiss, "BATCH", 450)
    monkeypatch.setattr(dense_parts, "PART_SIZE", 900)
    FILES[name](store(tmp_path / "whole", clustered()))
    write, written = dense_parts.write_file, []

    def dies(index: object, path: Path, *, attempt: str = "") -> None:
        write(index, path, attempt=attempt)
        written.append(path)
        if len(written) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(dense_parts, "write_file", dies)
    vectors = store(tmp_path / "cut", clustered())
    with pytest.raises(KeyboardInterrupt):
        FILES[name](vectors)
    monkeypatch.setattr(dense_parts, "write_file", write)
    FILES[name](vectors)
    whole, cut = ((tmp_path / which / INDEX_NAME).read_bytes() for which in ("whole", "cut"))
    assert whole == cut
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {
        path.name for path in (tmp_path / "cut").iterdir()
    }


def test_a_checkpoint_that_cannot_be_read_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    vectors = store(tmp_path, clustered(300))
    (tmp_path / "index.faiss.unfinished").write_bytes(b"IwPf")
    assert recall(ivf(vectors).search(questions(), k=5)[1], exact_neighbours(
        vectors, questions(), k=5)) > 0.2  # fmt: skip
    assert "is made again" in caplog.text


def test_a_disk_that_refuses_is_told_as_the_system_tells_it(tmp_path: Path):
    vectors = store(tmp_path, clustered(300))
    (tmp_path / "index.faiss.trained.partial").mkdir()
    with pytest.raises((OSError, RuntimeError), match=r"index\.faiss\.trained"):
        ivf(vectors)
    full = RuntimeError("Error: 'ret == size' failed: write error (No space left on device)")
    told = dense_faiss._system_error(full, tmp_path / "x")
    assert isinstance(told, OSError)
    assert told.errno == 28


def test_hnsw_that_was_stopped_goes_on_from_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dense_faiss, "BATCH", 450)
    monkeypatch.setattr(dense_faiss, "_CHECKPOINT", 2)
    vectors = store(tmp_path, clustered())
    added: list[int] = []

    def stops(done: int) -> None:
        added.append(done)
        if done == 1_350:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_hnsw(tmp_path, vectors, progress=stops)
    build_hnsw(tmp_path, vectors, progress=added.append)
    assert added == [450, 900, 1_350, 1_350, 1_800, 2_250, 2_500]
    assert len(HnswSearch(tmp_path, vectors)) == 2_500
