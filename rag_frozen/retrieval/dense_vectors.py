"""Passage vectors on disk: shards of ``[n, d]`` numbers beside the ids of their rows.

Vectors are written shard by shard, each under a temporary name and then renamed, so that a build
that was stopped goes on with the first missing shard. They are read memory-mapped. Knows nothing
about how they are searched.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError
from rag_frozen.retrieval.dense_encoders import Encoder, Vectors
from rag_frozen.retrieval.passage_ids import write_passage_ids
from rag_frozen.types import Passage

__all__ = [
    "IDS_NAME",
    "MissingShard",
    "ShardMaker",
    "StoredVectors",
    "VectorType",
    "encode_corpus",
    "encode_passages",
    "encode_shards",
    "is_vector_file",
    "write_shard",
]

VectorType = Literal["float32", "float16", "bfloat16"]

IDS_NAME = "ids.arrow"
_CHUNK = 8_192
_BLOCK = 65_536
_NAME = "vectors"
_SUFFIX = {"float32": ".npy", "float16": ".npy", "bfloat16": ".safetensors"}
_REBUILD = "Build the index again with: rag-frozen index build RECIPE"


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
    ids = encode_shards(
        folder, passages, encoder, n_passages=n_passages, shard_size=shard_size, dtype=dtype,
        progress=progress, elsewhere=elsewhere,
    )  # fmt: skip
    return write_passage_ids(folder / IDS_NAME, ids)


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
) -> list[str]:
    """Encode passages into shards numbered from ``first`` on; arguments and errors as of
    :func:`encode_corpus`.

    Returns:
        The passages' ids in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids: list[str] = []
    places = _places(folder, n_passages, shard_size, first, dtype)
    finished = sum(wanted for path, wanted in places if path.exists())
    shards = _missing(places, passages, ids)
    if elsewhere is None:
        for shard in shards:
            done = partial(_forward, progress, len(ids) - len(shard.passages))
            write_shard(shard.path, encode_passages(shard.passages, encoder, dtype, done))
            progress(len(ids))
    else:
        for count in elsewhere(shards):
            finished += count
            progress(finished)
    progress(len(ids))
    if len(ids) != n_passages:
        raise ArtifactMismatchError(
            f"The corpus gave {len(ids):,} passages, {n_passages:,} were expected. "
            "Build the corpus again, then the index."
        )
    return ids


def is_vector_file(path: Path) -> bool:
    """True for a finished shard.

    >>> is_vector_file(Path("vectors-00003.npy")), is_vector_file(Path("vectors-00003.partial"))
    (True, False)
    """
    return path.name.startswith(f"{_NAME}-") and path.suffix in _SUFFIX.values()


class StoredVectors:
    """The vectors of a folder in the order of their shards, memory-mapped.

    ``len`` is their number, ``width`` d, ``dtype`` the type in which they are stored; they are
    read as fp32.
    """

    def __init__(self, folder: Path) -> None:
        """Open what :func:`encode_corpus` wrote.

        Raises:
            ArtifactDamagedError: when a shard is unreadable, there is none, or shards differ in
                width or type.
        """
        self.folder = folder
        self._maps: list[mmap.mmap] = []
        self._shards: list[NDArray[Any]] = []
        forms: set[tuple[int, str]] = set()
        for path in sorted(path for path in folder.glob(f"{_NAME}-*") if is_vector_file(path)):
            try:
                count, width, dtype = _form(path)
                self._shards.append(self._map(path, count, width, dtype))
            except (OSError, ValueError, EOFError) as error:
                raise ArtifactDamagedError(
                    f"The vectors in {path} cannot be read: {error}. {_REBUILD}"
                ) from error
            forms.add((width, dtype))
        if len(forms) != 1:
            found = ", ".join(f"{width} x {dtype}" for width, dtype in sorted(forms)) or "none"
            raise ArtifactDamagedError(
                f"The folder {folder} must hold vectors of one width and type, found: {found}. "
                f"{_REBUILD}"
            )
        self.width, name = forms.pop()
        self.dtype: VectorType = next(kind for kind in get_args(VectorType) if kind == name)
        self._starts = np.cumsum([0] + [len(shard) for shard in self._shards])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shards(self) -> tuple[NDArray[Any], ...]:
        """The mapped shards as they are stored, each ``[n, d]``; bfloat16 as its bits, uint16."""
        return tuple(self._shards)

    def blocks(self, *, start: int = 0, size: int = _BLOCK) -> Iterator[tuple[int, Vectors]]:
        """Yield (first row, vectors ``[<= size, d]`` in fp32) from row ``start`` on.

        Blocks begin at multiples of ``size`` counted from row 0 when ``start`` does, whatever the
        shards' sizes.
        """
        for first in range(start, len(self), size):
            yield first, self._range(first, min(first + size, len(self)))

    def take(self, rows: NDArray[np.int64]) -> Vectors:
        """Return the vectors of ``rows: [m]`` in the order asked, ``[m, d]`` in fp32."""
        order = np.argsort(rows, kind="stable")  # disks and caches like rising addresses
        ordered = rows[order]
        found = np.empty((len(rows), self.width), dtype=np.float32)
        cuts = np.searchsorted(ordered, self._starts)
        for number in np.flatnonzero(np.diff(cuts)):
            part = slice(cuts[number], cuts[number + 1])
            chosen = self._shards[number][ordered[part] - self._starts[number]]
            found[order[part]] = _as_float32(chosen)
        return found

    def sample(self, n: int, *, seed: int) -> Vectors:
        """Return ``n`` vectors (all where there are fewer) drawn by ``seed``, in row order."""
        count = min(n, len(self))
        rows = np.random.default_rng(seed).choice(len(self), size=count, replace=False)
        return self.take(np.sort(rows))

    def greatest_norm(self) -> float:
        """The greatest Euclidean norm of all; reads every vector."""
        return max(float(np.sqrt(np.einsum("nd,nd->n", b, b)).max()) for _, b in self.blocks())

    def expect_random_reads(self) -> None:
        """Tell the system that single rows will be read: it then reads no megabytes around each."""
        for mapped in self._maps:
            if hasattr(mmap, "MADV_RANDOM"):
                mapped.madvise(mmap.MADV_RANDOM)

    def _range(self, start: int, stop: int) -> Vectors:
        parts = []
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        for number in range(first, len(self._shards)):
            offset = int(self._starts[number])
            if offset >= stop:
                break
            shard = self._shards[number]
            parts.append(_as_float32(shard[max(0, start - offset) : stop - offset]))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _map(self, path: Path, count: int, width: int, dtype: str) -> NDArray[Any]:
        """Map a file whose last bytes are the numbers; copy-on-write, so that torch takes it."""
        kind = np.dtype("uint16" if dtype == "bfloat16" else dtype)
        size = count * width * kind.itemsize
        with path.open("rb") as file:
            offset = os.fstat(file.fileno()).st_size - size
            if offset <= 0 or not size:
                raise ValueError(f"{count:,} x {width} numbers of {dtype} do not fit the file")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._maps.append(mapped)
        return np.frombuffer(mapped, kind, offset=offset).reshape(count, width)


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
        (folder / f"{_NAME}-{first + number:05d}{_SUFFIX[dtype]}", min(shard_size, n_passages - at))
        for number, at in enumerate(range(0, n_passages, shard_size))
    ]


def _missing(
    places: Sequence[tuple[Path, int]], passages: Iterable[Passage], ids: list[str]
) -> Iterator[MissingShard]:
    """Yield the shards that are not there; the ids of all passages go into ``ids``."""
    stream = iter(passages)
    for path, wanted in places:
        batch = tuple(islice(stream, wanted))
        ids += [passage.id for passage in batch]
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

            file.write(save({_NAME: torch.from_numpy(vectors).to(torch.bfloat16)}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def _form(path: Path) -> tuple[int, int, str]:
    """Read number, width and type of a shard from its head."""
    if path.suffix == ".npy":
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
        shape, dtype, ordered = shard.shape, str(shard.dtype), shard.flags.c_contiguous
    else:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                if list(file.keys()) != [_NAME]:
                    raise ValueError(f"it holds {list(file.keys())}, not {_NAME}")
                part = file.get_slice(_NAME)
                shape, ordered = tuple(part.get_shape()), True
                dtype = {"BF16": "bfloat16"}.get(part.get_dtype(), part.get_dtype())
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    if len(shape) != 2 or dtype not in _SUFFIX or not ordered:
        raise ValueError(f"it is an array of {shape} numbers of {dtype}")
    return shape[0], shape[1], dtype


def _as_float32(stored: NDArray[Any]) -> Vectors:
    """bfloat16 is the upper half of fp32.

    >>> _as_float32(np.array([0x3F80, 0xC000], dtype=np.uint16)).tolist()
    [1.0, -2.0]
    """
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)
