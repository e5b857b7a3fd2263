"""Vectors on disk: what is read is what was written, rounded; and what is damaged is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError
from rag_frozen.retrieval.dense_shards import encode_corpus
from rag_frozen.retrieval.dense_vectors import StoredVectors
from rag_frozen.types import Passage
from tests.retrieval.clustered import Handing, clustered, store

TYPES = ("float32", "float16", "bfloat16")


@pytest.mark.parametrize("dtype", TYPES)
def test_vectors_are_read_as_the_nearest_numbers_of_their_type(tmp_path: Path, dtype: str):
    made = clustered(50)
    read = store(tmp_path, made, dtype=dtype, shard_size=16)  # type: ignore[arg-type]
    rounded = torch.from_numpy(made).to(getattr(torch, dtype)).float().numpy()
    assert (len(read), read.width, read.dtype) == (50, 32, dtype)
    assert np.array_equal(np.concatenate([block for _, block in read.blocks(size=7)]), rounded)
    rows = np.array([49, 0, 16, 15, 15, 31])
    assert np.array_equal(read.take(rows), rounded[rows])
    assert read.greatest_norm() == pytest.approx(np.linalg.norm(rounded, axis=1).max(), rel=1e-6)
    suffix = ".safetensors" if dtype == "bfloat16" else ".npy"
    assert {path.suffix for path in tmp_path.glob("vectors-*")} == {suffix}


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 40),
    shard_size=st.integers(1, 45),
    start=st.integers(0, 45),
    size=st.integers(1, 50),
    rows=st.lists(st.integers(0, 39), max_size=20),
)
def test_blocks_and_rows_do_not_depend_on_shards(
    tmp_path_factory, n, shard_size, start, size, rows
):
    made = clustered(n)
    read = store(tmp_path_factory.mktemp("v"), made, dtype="float32", shard_size=shard_size)
    pieces = [made[:0], *(block for _, block in read.blocks(start=start, size=size))]
    assert np.array_equal(np.concatenate(pieces), made[start:])
    chosen = np.array([row % n for row in rows], dtype=np.int64)
    assert np.array_equal(read.take(chosen), made[chosen])


def test_a_sample_is_drawn_by_its_seed(tmp_path: Path):
    read = store(tmp_path, clustered(100))
    assert np.array_equal(read.sample(30, seed=1), read.sample(30, seed=1))
    assert not np.array_equal(read.sample(30, seed=1), read.sample(30, seed=2))
    assert len(read.sample(1_000, seed=1)) == 100


@pytest.mark.parametrize("dtype", TYPES)
def test_a_build_that_was_stopped_ends_in_the_same_bytes(tmp_path: Path, dtype: str):
    store(tmp_path / "whole", clustered(50), dtype=dtype, shard_size=16)  # type: ignore[arg-type]
    store(tmp_path / "cut", clustered(50), dtype=dtype, shard_size=16)  # type: ignore[arg-type]
    shards = sorted((tmp_path / "cut").glob("vectors-*"))
    shards[1].rename(shards[1].with_suffix(".partial"))  # stopped before this rename
    shards[3].unlink()
    store(tmp_path / "cut", clustered(50), dtype=dtype, shard_size=16)  # type: ignore[arg-type]
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("whole", "cut")
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("keep", [0, 5, 300])
def test_a_shard_that_is_cut_off_is_told(tmp_path: Path, dtype: str, keep: int):
    store(tmp_path, clustered(50), dtype=dtype, shard_size=16)  # type: ignore[arg-type]
    victim = sorted(tmp_path.glob("vectors-*"))[1]
    victim.write_bytes(victim.read_bytes()[:keep])
    with pytest.raises(ArtifactDamagedError, match=rf"{victim.name}.*index build"):
        StoredVectors(tmp_path)


def test_shards_of_other_widths_or_none_are_told(tmp_path: Path):
    with pytest.raises(ArtifactDamagedError, match="found: none"):
        StoredVectors(tmp_path)
    store(tmp_path, clustered(50))
    np.save(tmp_path / "vectors-00007.npy", np.zeros((3, 8), dtype=np.float16))
    with pytest.raises(ArtifactDamagedError, match="8 x float16, 32 x float16"):
        StoredVectors(tmp_path)
    np.save(tmp_path / "vectors-00007.npy", np.zeros((3, 32), dtype=np.int8))
    with pytest.raises(ArtifactDamagedError, match="int8"):
        StoredVectors(tmp_path)


def test_an_encoder_that_makes_another_width_than_it_says_is_refused(tmp_path: Path):
    with pytest.raises(ArtifactMismatchError, match=r"48 numbers.*\(1, 32\)"):
        encode_corpus(
            tmp_path,
            [Passage("0", "", "x")],
            Handing(clustered(1), width=48),
            n_passages=1,
            shard_size=4,
        )
    assert not list(tmp_path.glob("vectors-*"))
