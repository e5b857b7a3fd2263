"""What a dense index of each kind takes: on disk, in the process' own memory, and mapped."""

from __future__ import annotations

from dataclasses import dataclass

from rag_frozen.recipes.index import (
    ConcreteDense,
    FlatDense,
    HnswDense,
    IvfPqDense,
    ScalarFp16Dense,
    ScalarInt8Dense,
    TorchDense,
)
from rag_frozen.retrieval.dense_parts import PART_SIZE

__all__ = ["DenseSizes", "dense_sizes"]

_VECTOR_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class DenseSizes:
    """Bytes of a dense index: on disk; in the process' own memory when it serves; mapped files,
    which the system holds in its cache as far as it has room; and of own memory while the search
    is built over the finished vectors."""

    disk: int
    own: int
    mapped: int
    building: int


def dense_sizes(settings: ConcreteDense, n: int, width: int, *, id_bytes: int = 24) -> DenseSizes:
    """Predict the sizes of an index of ``n`` vectors of ``width``; formulas in indexes/README.md.

    Bytes of an id are those of its text and 4 more.
    """
    stored = n * width * _VECTOR_BYTES[settings.vectors]
    base = stored + n * id_bytes
    match settings:
        case FlatDense():
            return DenseSizes(base, 4 * n * width, n * id_bytes, 0)
        case TorchDense():
            return DenseSizes(base, 0, base, 0)
        case ScalarFp16Dense():
            codes = 2 * n * width
            building = codes + 2 * min(n, PART_SIZE) * width
            return DenseSizes(base + codes, 0, codes + n * id_bytes, building)
        case ScalarInt8Dense():
            codes = n * width
            building = codes + min(n, PART_SIZE) * width
            return DenseSizes(base + codes, 0, base + codes, building)
        case IvfPqDense():
            from rag_frozen.retrieval.dense_ivf import POINTS_A_LIST, default_lists

            parts = width // settings.subvector if width % settings.subvector == 0 else width
            lists = settings.lists or default_lists(n)
            # 8 bytes for the row; lists are filled up to multiples of 32
            codes = (n + 16 * lists) * -(-parts // 2) + 8 * n + 4 * lists * width
            sample = 4 * min(n, POINTS_A_LIST * lists) * width
            return DenseSizes(base + codes, codes, base, codes + sample)
        case HnswDense():
            each = width * (4 if settings.vectors == "float32" else 2) + 8 * settings.links + 16
            return DenseSizes(base + n * each, 0, n * (each + id_bytes), n * each)
