"""Passage ids as 64-bit hashes: finding repeated ones in bounded memory, and digests of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["SeenIds", "hash_ids", "ids_digest", "update_ids_digest"]

Hashes = npt.NDArray[np.uint64]


def hash_ids(ids: Sequence[str]) -> Hashes:
    """Return 64 bits of the BLAKE2b of each id: ``[n]``, the same on every machine.

    >>> hash_ids(["a", "b"]).dtype
    dtype('uint64')
    """
    blake2b = hashlib.blake2b
    digests = b"".join([blake2b(one.encode(), digest_size=8).digest() for one in ids])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)


def ids_digest(ids: Iterable[str]) -> str:
    """Return the SHA-256 of all ids in order, each followed by a line end: 64 hex digits.

    An index stores it beside its vectors, so that vectors and passages can be shown to align.

    >>> ids_digest(["a", "b"]) == hashlib.sha256(b"a\\nb\\n").hexdigest()
    True
    """
    digest = hashlib.sha256()
    for one in ids:
        update_ids_digest(digest, (one,))
    return digest.hexdigest()


def update_ids_digest(digest: hashlib._Hash, ids: Sequence[str]) -> None:
    """Add a block of ids to a running ``ids_digest``."""
    digest.update("".join([f"{one}\n" for one in ids]).encode())


class SeenIds:
    """The ids met so far, as hashes of 8 bytes each.

    Hashes lie in sorted runs, each at most half as long as the one before it; a new block becomes
    a run, and runs of like length are merged. So n ids cost 8n bytes (twice that while the largest
    runs merge) and each lookup a few binary searches. Two different ids with one hash would be
    taken for a repeated one: among n ids the chance is about n²/2⁶⁵, 1e-5 for 21 million.
    """

    def __init__(self) -> None:
        self._runs: list[Hashes] = []
        self._recent: list[Hashes] | None = None

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    def add(self, ids: Sequence[str]) -> list[bool]:
        """Add a block of ids; return for each whether it is new, here and in all earlier blocks.

        >>> seen = SeenIds()
        >>> seen.add(["a", "b", "a"]), seen.add(["c", "b"])
        ([True, True, False], [True, False])
        """
        if not ids:
            return []
        hashes = hash_ids(ids)
        unique, first = np.unique(hashes, return_index=True)
        fresh = np.ones(len(unique), dtype=bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, unique), len(run) - 1)
            fresh &= run[places] != unique
        is_new = np.zeros(len(ids), dtype=bool)
        is_new[first[fresh]] = True
        self._append(unique[fresh])
        flags: list[bool] = is_new.tolist()
        return flags

    def take_recent(self) -> Hashes:
        """Return the hashes that were added since the last call, sorted, each of 8 bytes; of the
        first call all. Together they bring another instance to the same state by ``restore``."""
        recent = self._runs if self._recent is None else self._recent
        self._recent = []
        return np.sort(np.concatenate(recent)) if recent else np.empty(0, dtype=np.uint64)

    def restore(self, hashes: Hashes) -> None:
        """Add what ``take_recent`` of another instance gave; it is not recent here."""
        self._append(np.sort(hashes))
        self._recent = []

    def _append(self, run: Hashes) -> None:
        if not len(run):
            return
        if self._recent is not None:
            self._recent.append(run)
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate((self._runs.pop(), run)), kind="stable")
        self._runs.append(run)
