"""Passage vectors on disk: shards of ``[n, d]`` numbers beside the ids of their rows.

They are read memory-mapped. Knows nothing about how they are made and searched.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rag_frozen.errors import ArtifactDamagedError
from rag_frozen.retrieval.dense_encoders import Vectors

__all__ = ["ARRAY_NAME", "IDS_NAME", "SUFFIXES", "StoredVectors", "VectorType", "is_vector_file"]

VectorType = Literal["float32", "float16", "bfloat16"]

IDS_NAME = "ids.arrow"
ARRAY_NAME = "vectors"
"""Of a shard's file before its number, and of the array in a safetensors file."""
SUFFIXES = {"float32": ".npy", "float16": ".npy", "bfloat16": ".safetensors"}
"""Of a shard's file; numpy has no bfloat16."""
_BLOCK = 65_536
_REBUILD = "Build the index again with: rag-frozen index build RECIPE"


def is_vector_file(path: Path) -> bool:
    """True for a finished shard.

    >>> is_vector_file(Path("vectors-00003.npy")), is_vector_file(Path("vectors-00003.partial"))
    (True, False)
    """
    return path.name.startswith(f"{ARRAY_NAME}-") and path.suffix in SUFFIXES.values()


class StoredVectors:
    """The vectors of a folder in the order of their shards, memory-mapped.

    ``len`` is their number, ``width`` d, ``dtype`` the type in which they are stored; they are
    read as fp32.
    """

    def __init__(self, folder: Path) -> None:
        """Open what ``dense_shards.encode_corpus`` wrote.

        Raises:
            ArtifactDamagedError: when a shard is unreadable, there is none, or shards differ in
                width or type.
        """
        self.folder = folder
        self._maps: list[mmap.mmap] = []
        self._shards: list[NDArray[Any]] = []
        forms: set[tuple[int, str]] = set()
        for path in sorted(filter(is_vector_file, folder.glob(f"{ARRAY_NAME}-*"))):
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

    def blocks(
        self, *, start: int = 0, stop: int | None = None, size: int = _BLOCK
    ) -> Iterator[tuple[int, Vectors]]:
        """Yield (first row, vectors ``[<= size, d]`` in fp32) from row ``start`` up to ``stop``.

        Blocks begin at multiples of ``size`` counted from row 0 when ``start`` does, whatever the
        shards' sizes.
        """
        end = len(self) if stop is None else min(stop, len(self))
        for first in range(start, end, size):
            yield first, self._range(first, min(first + size, end))

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


def _form(path: Path) -> tuple[int, int, str]:
    """Read number, width and type of a shard from its head."""
    if path.suffix == ".npy":
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
        shape, dtype, ordered = shard.shape, str(shard.dtype), shard.flags.c_contiguous
    else:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                if list(file.keys()) != [ARRAY_NAME]:
                    raise ValueError(f"it holds {list(file.keys())}, not {ARRAY_NAME}")
                part = file.get_slice(ARRAY_NAME)
                shape, ordered = tuple(part.get_shape()), True
                dtype = {"BF16": "bfloat16"}.get(part.get_dtype(), part.get_dtype())
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    if len(shape) != 2 or dtype not in SUFFIXES or not ordered:
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
