"""What fits on this machine: disk, memory, and the kinds of dense indexes that would."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rag_frozen.errors import StorageError
from rag_frozen.indexing.dense_sizes import dense_sizes
from rag_frozen.indexing.dense_times import search_seconds
from rag_frozen.recipes.index import ConcreteDense

__all__ = [
    "KindFit",
    "free_disk",
    "kinds_that_fit",
    "machine_memory",
    "refuse_what_cannot_fit",
]

_PROCESS = 700 * 2**20
"""Resident memory of Python with torch, faiss and a small encoder, measured."""


@dataclass(frozen=True, slots=True)
class KindFit:
    """A kind of dense index over a corpus: bytes on disk, of the process' own memory when it
    serves, of mapped files, and of own memory while its search is built over the vectors; whether
    it fits this machine; and the seconds that building its search takes beside encoding, 0 where
    nobody asked for them."""

    kind: str
    disk: int
    own: int
    mapped: int
    building: int
    fits: bool
    build_seconds: float = 0.0


def kinds_that_fit(
    settings: ConcreteDense,
    n_passages: int,
    width: int,
    *,
    free: int,
    memory: int,
    flops: float | None = None,
) -> list[KindFit]:
    """Describe each kind, with the encoder and the stored vectors of ``settings``.

    Args:
        settings: of the recipe.
        n_passages: of the corpus.
        width: of the encoder's vectors.
        free: bytes on the disk.
        memory: bytes of the machine.
        flops: of fp32 products a second, from which the seconds of building are told.
    """
    shared = settings.model_dump(include={"encoder", "vectors", "shard_size"})
    found = []
    for model in get_args(ConcreteDense):
        kind = get_args(model.model_fields["kind"].annotation)[0]
        same = kind == settings.kind
        of_kind = settings if same else model(kind=kind, **shared)
        sizes = dense_sizes(of_kind, n_passages, width)
        fits = sizes.disk <= free and max(sizes.own, sizes.building) + _PROCESS <= memory
        seconds = 0.0 if flops is None else search_seconds(of_kind, n_passages, width, flops=flops)
        found.append(
            KindFit(kind, sizes.disk, sizes.own, sizes.mapped, sizes.building, fits, seconds)
        )
    return found


def refuse_what_cannot_fit(
    settings: ConcreteDense, n_passages: int, width: int, *, folder: Path, there: int = 0
) -> None:
    """Refuse a dense index before anything of it is encoded.

    Args:
        settings: of the recipe.
        n_passages: of the corpus.
        width: of the encoder's vectors.
        folder: where it would be written.
        there: bytes of it that stand there already.

    Raises:
        StorageError: when disk or memory do not suffice, with the kinds that would fit.
    """
    free, memory = free_disk(folder) + there, machine_memory()
    kinds = kinds_that_fit(settings, n_passages, width, free=free, memory=memory)
    [wanted] = [kind for kind in kinds if kind.kind == settings.kind]
    if wanted.fits:
        return
    others = ", ".join(kind.kind for kind in kinds if kind.fits)
    advice = (
        f"Of the kinds {others} would fit: --set dense.kind=…"
        if others
        else "No kind would fit: name a disk with more room (--root), or fewer passages."
    )
    raise StorageError(
        f"A dense index of the kind {settings.kind} over {n_passages:,} passages takes "
        f"{_gib(wanted.disk)} on the disk, where {_gib(free)} are free, and "
        f"{_gib(max(wanted.own, wanted.building) + _PROCESS)} of memory, of which this machine has "
        f"{_gib(memory)}. {advice}"
    )


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def free_disk(folder: Path) -> int:
    """Bytes that are free where ``folder`` is or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
