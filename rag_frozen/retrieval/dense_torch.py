"""Exact search by torch: blocks of vectors times questions, a running top k, fp32 rescoring.

Products are in bf16 where that pays (GPUs, CPUs with AMX or AVX512_BF16), so the order of the best
is uncertain by a rounding error whose bound is known. A pool of the best is rescored in fp32 from
the stored vectors, and enlarged until nothing outside of it can belong to the top k: the result is
that of fp32 (Cauchy-Schwarz; Higham 2002, Accuracy and Stability of Numerical Algorithms, 3.1).

Vectors stay on the device where they fit it, and are streamed from the mapped shards where not. A
CPU multiplies a few questions with vectors of 16 bits as they are stored, and turns the blocks that
many questions need into its type in memory that is used again: fresh memory for each block takes
longer than its products.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rag_frozen.models.device import DtypeName, choose_device, choose_dtype
from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_search import Rows, rescore
from rag_frozen.retrieval.dense_vectors import StoredVectors

__all__ = ["TorchSearch"]

_BLOCK = 16_384
_GPU_BLOCK = 524_288
_QUERIES = 512
_FEW = 3
"""Questions for which a CPU reads vectors faster in fp16 than it converts them."""
_ROWS = 1_024
"""Converted at once, by way of fp32 that stays in the processor's cache."""
_GPU_SHARE = 0.8
"""Of the free memory of a GPU that the vectors may take."""
_SLACK = 2.0**-18
"""Of the product of norms: what adding up some thousand numbers in fp32 can lose, generously."""
_GREATEST_FP16 = 2.0**15
"""Products of norms beyond it may not be written as fp16."""
_log = logging.getLogger(__name__)


class TorchSearch:
    """All vectors are multiplied with all questions, in blocks."""

    def __init__(
        self,
        vectors: StoredVectors,
        *,
        pool: int = 200,
        device: str | None = None,
        dtype: DtypeName = "auto",
        resident: bool | None = None,
        greatest_norm: float | None = None,
    ) -> None:
        """Read the vectors onto the device where they fit, and for their greatest norm.

        Args:
            vectors: the stored ones.
            pool: at least so many are rescored for each question.
            device: where products are made; the best at hand where it is None.
            dtype: of the products; ``auto`` is bf16 where it pays.
            resident: keep the vectors on the device in ``dtype``; where it is None, on a GPU when
                they take less than 80 % of its free memory, and never on a CPU, whose page cache
                holds them anyway.
            greatest_norm: of the vectors, where it is known; then streamed vectors are not read
                before the first question.

        Raises:
            InputError: for a device that is not there.
        """
        self.width = vectors.width
        self.device = choose_device(device)
        self.dtype = choose_dtype(self.device, dtype)
        self._vectors = vectors
        self._pool = pool
        self._block = _GPU_BLOCK if self.device.type == "cuda" else _BLOCK
        self.greatest_norm = vectors.greatest_norm() if greatest_norm is None else greatest_norm
        keep = self._fits() if resident is None else resident
        on_cpu = self.device.type == "cpu"
        self._kept = [b.clone() if on_cpu else b for b in self._streamed()] if keep else []
        self._fp16 = on_cpu and all(shard.dtype == np.float16 for shard in vectors.shards)

    def __len__(self) -> int:
        return len(self._vectors)

    @torch.inference_mode()
    def search(self, queries: Vectors, *, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows, ``[n, k]``; scores are fp32 inner products of what is stored."""
        parts = [
            self._search(queries[start : start + _QUERIES], k)
            for start in range(0, len(queries), _QUERIES)
        ]
        return np.concatenate([s for s, _ in parts]), np.concatenate([r for _, r in parts])

    def _search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Enlarge the pool of those questions whose top k is not certain yet."""
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        open_ = np.arange(len(queries))
        pool = min(len(self), max(self._pool, 2 * k))
        while len(open_):
            asked = queries[open_]
            dtype = self._products_in(asked)
            rough, found = self._rough(asked, pool, dtype)
            scores[open_], rows[open_] = rescore(self._vectors, asked, found, k=k)
            if pool == len(self):
                break
            outside = rough[:, -1] + self._error(asked, rough[:, -1], dtype)
            last = scores[open_, min(k, len(self)) - 1]
            open_ = open_[outside >= last]
            pool = min(len(self), 4 * pool)
            if len(open_):
                _log.debug("%d questions are looked at again, %d passages each", len(open_), pool)
        return scores, rows

    def _products_in(self, queries: Vectors) -> torch.dtype:
        """fp16 where a CPU need not convert what is stored for so few questions; else ``dtype``."""
        greatest = float(np.linalg.norm(queries, axis=1).max()) * max(1.0, self.greatest_norm)
        few = self._fp16 and not self._kept and len(queries) <= _FEW
        return torch.float16 if few and greatest < _GREATEST_FP16 else self.dtype

    def _rough(self, queries: Vectors, pool: int, dtype: torch.dtype) -> tuple[NDArray[Any], Rows]:
        """The ``pool`` best by products in ``dtype``: scores in fp32 and rows, ``[q, pool]``."""
        asked = torch.from_numpy(np.array(queries, dtype=np.float32)).to(self.device, dtype)
        best: tuple[torch.Tensor, torch.Tensor] | None = None
        start = 0
        for block in self._kept or self._streamed(dtype):
            products = self._product(asked, block)
            n = min(pool, len(block))
            if best is not None and best[0].shape[1] == pool:
                least = best[0].amin(dim=1, keepdim=True).to(products.dtype)
                n = min(n, int((products > least).sum(dim=1).max()))
            if n:
                scores, rows = products.topk(n, dim=1, sorted=False)
                best = _joined(best, (scores.float(), rows + start), pool)
            start += len(block)
        assert best is not None
        scores, order = best[0].sort(dim=1, descending=True)
        return scores.cpu().numpy(), best[1].gather(1, order).cpu().numpy()

    def _product(self, queries: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
        """``[q, b]``; a GPU gives the products of bf16 numbers in fp32."""
        if self.device.type == "cuda" and self.dtype != torch.float32:
            return torch.mm(queries, block.T, out_dtype=torch.float32)
        return queries @ block.T

    def _error(self, queries: Vectors, scores: NDArray[Any], dtype: torch.dtype) -> NDArray[Any]:
        """Bound of |rough score - fp32 score|: both factors are rounded, and so is the product;
        what is too small for ``dtype`` is lost by less than half its smallest number."""
        unit = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps / 2
        smallest = torch.finfo(dtype).smallest_normal * unit
        norms = np.linalg.norm(queries, axis=1) * self.greatest_norm
        bound: NDArray[Any] = (2 * unit + unit**2 + _SLACK) * norms + 1.01 * unit * np.abs(scores)
        bound += smallest * (1 + self.width**0.5 * self.greatest_norm)
        return bound

    def _streamed(self, dtype: torch.dtype | None = None) -> Iterator[torch.Tensor]:
        """Blocks on the device in ``dtype``; on a CPU each may stand where the one before did."""
        dtype = dtype or self.dtype
        room = torch.empty(0, dtype=dtype)
        small = torch.empty(0)
        for shard in self._vectors.shards:
            whole = _as_tensor(shard)
            for start in range(0, len(whole), self._block):
                block = whole[start : start + self._block]
                if self.device.type != "cpu" or block.dtype == dtype:
                    yield block.to(self.device, dtype)
                    continue
                if not len(room):
                    room = torch.empty((self._block, self.width), dtype=dtype)
                    small = torch.empty((_ROWS, self.width))
                for row in range(0, len(block), _ROWS):
                    some = block[row : row + _ROWS]
                    room[row : row + len(some)] = small[: len(some)].copy_(some)
                yield room[: len(block)]

    def _fits(self) -> bool:
        if self.device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(self.device)
        size = len(self) * self.width * torch.empty(0, dtype=self.dtype).element_size()
        return size < _GPU_SHARE * free


def _joined(
    best: tuple[torch.Tensor, torch.Tensor] | None,
    found: tuple[torch.Tensor, torch.Tensor],
    pool: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``pool`` best scores and rows of both, in no order."""
    if best is None:
        return found
    scores, rows = (torch.cat(both, dim=1) for both in zip(best, found, strict=True))
    if scores.shape[1] > pool:
        scores, chosen = scores.topk(pool, dim=1, sorted=False)
        rows = rows.gather(1, chosen)
    return scores, rows


def _as_tensor(shard: NDArray[Any]) -> torch.Tensor:
    """The mapped shard as a tensor over the same memory."""
    if shard.dtype == np.uint16:
        return torch.from_numpy(shard.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(shard)
