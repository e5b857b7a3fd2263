"""Passages encoded into shards of vectors, each written under a temporary name and then renamed.

A build that was stopped goes on with the first missing shard. Knows nothing about how vectors are
searched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from rag_frozen.errors import ArtifactMismatchError
from rag_frozen.retrieval.dense_encoders import Encoder, Vectors
from rag_frozen.retrieval.dense_vectors import ARRAY_NAME, IDS_NAME, SUFFIXES, VectorType
from rag_frozen.retrieval.passage_ids import PassageIdsWriter
from rag_frozen.types import Passage

__all__ = [
    "MissingShard",
    "ShardMaker",
    "encode_corpus",
    "encode_passages",
    "encode_shards",
    "write_shard",
]

_CHUNK = 8_192


@dataclass(frozen=True, slots=True)
class MissingShard:
    """A shard that is to be made: its file, and its passages in order."""

    path: Path
    passages: tuple[Passage, ...]


ShardMaker = Callable[[Iterable[MissingShard]], Iterator[int]]
"""Makes shards elsewhere, in their order; yields the number of passages of each when its file is
there."""


def encode_corpus(
    folder: Path,
    passages: Iterable[Passage],
    encoder: Encoder,
    *,
    n_passages: int,
    shard_size: int,
    dtype: VectorType = "float16",
    progress: Callable[[int], None] = lambda done: None,
    elsewhere: ShardMaker | None = None,
) -> tuple[int, str]:
    """Encode passages into shards ``vectors-NNNNN`` and ``ids.arrow``.

    float32 and float16 are stored as ``.npy``; bfloat16, which numpy has not, as ``.safetensors``.

    Args:
        folder: of this build alone; shards that are there are kept, and their passages skipped.
        passages: in corpus order, ``n_passages`` of them.
        encoder: makes the vectors.
        shard_size: passages a shard.
        dtype: in which vectors are stored; numbers are rounded to the nearest, ties to even.
        progress: is told the number of passages done.
        elsewhere: makes the shards in place of ``encoder``.

    Returns:
        Number of passages, and SHA-256 over their ids in order.

    Raises:
        ArtifactMismatchError: when passages and ``n_passages`` differ, or the encoder makes
            vectors of another width than it says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with PassageIdsWriter(folder / IDS_NAME) as ids:
        encode_shards(
            folder, passages, encoder, n_passages=n_passages, shard_size=shard_size, dtype=dtype,
            progress=progress, elsewhere=elsewhere, told=ids.add,
        )  # fmt: skip
        return ids.finish()


def encode_shards(
    folder: Path,
    passages: Iterable[Passage],
    encoder: Encoder,
    *,
    n_passages: int,
    shard_size: int,
    first: int = 0,
    dtype: VectorType = "float16",
    progress: Callable[[int], None] = lambda done: None,
    elsewhere: ShardMaker | None = None,
    told: Callable[[Sequence[str]], None] = lambda ids: None,
) -> int:
    """Encode passages into shards numbered from ``first`` on; other arguments and errors as of
    :func:`encode_corpus`. Memory holds one shard.

    Args:
        told: is given the ids of each shard's passages, in order.

    Returns:
        The number of passages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seen = 0

    def counted(ids: Sequence[str]) -> None:
        nonlocal seen
        seen += len(ids)
        told(ids)

    places = _places(folder, n_passages, shard_size, first, dtype)
    finished = sum(wanted for path, wanted in places if path.exists())
    shards = _missing(places, passages, counted)
    if elsewhere is None:
        for shard in shards:
            done = partial(_forward, progress, seen - len(shard.passages))
            write_shard(shard.path, encode_passages(shard.passages, encoder, dtype, done))
            progress(seen)
    else:
        for count in elsewhere(shards):
            finished += count
            progress(finished)
    progress(seen)
    if seen != n_passages:
        raise ArtifactMismatchError(
            f"The corpus gave {seen:,} passages, {n_passages:,} were expected. "
            "Build the corpus again, then the index."
        )
    return seen


def encode_passages(
    passages: Sequence[Passage],
    encoder: Encoder,
    dtype: VectorType,
    progress: Callable[[int], None] = lambda done: None,
) -> Vectors:
    """Return the vectors of a shard ``[n, d]`` in fp32, or in fp16 where they are stored so: half
    the memory. Arguments and errors as of :func:`encode_corpus`."""
    kind = "float16" if dtype == "float16" else "float32"
    vectors = np.empty((len(passages), encoder.width), dtype=kind)
    for start in range(0, len(passages), _CHUNK):
        part = passages[start : start + _CHUNK]
        made = encoder.encode_passages(part)
        if made.shape != (len(part), encoder.width):
            raise ArtifactMismatchError(
                f"Encoder {encoder.name} says that its vectors have {encoder.width} numbers, and "
                f"made an array of {made.shape} for {len(part)} passages. Name another encoder."
            )
        vectors[start : start + len(part)] = made
        progress(start + len(part))
    return vectors


def _places(
    folder: Path, n_passages: int, shard_size: int, first: int, dtype: VectorType
) -> list[tuple[Path, int]]:
    """The files of all shards, and the number of passages in each."""
    return [
        (_shard(folder, first + number, dtype), min(shard_size, n_passages - at))
        for number, at in enumerate(range(0, n_passages, shard_size))
    ]


def _shard(folder: Path, number: int, dtype: VectorType) -> Path:
    return folder / f"{ARRAY_NAME}-{number:05d}{SUFFIXES[dtype]}"


def _missing(
    places: Sequence[tuple[Path, int]],
    passages: Iterable[Passage],
    told: Callable[[Sequence[str]], None],
) -> Iterator[MissingShard]:
    """Yield the shards that are not there; ``told`` is given the ids of all passages."""
    stream = iter(passages)
    for path, wanted in places:
        batch = tuple(islice(stream, wanted))
        told([passage.id for passage in batch])
        if not path.exists() and batch:
            yield MissingShard(path, batch)


def _forward(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


def write_shard(path: Path, vectors: Vectors, *, attempt: str = "") -> None:
    """Write a shard under a temporary name, then rename it; its type is told by ``path``'s ending
    and that of ``vectors: [n, d]``. ``attempt`` tells apart those who may write it at once."""
    unfinished = path.with_suffix(f"{attempt}.partial")
    with unfinished.open("wb") as file:
        if path.suffix == ".npy":
            np.save(file, vectors, allow_pickle=False)
        else:
            import torch
            from safetensors.torch import save

            file.write(save({ARRAY_NAME: torch.from_numpy(vectors).to(torch.bfloat16)}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
