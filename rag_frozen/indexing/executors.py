"""Who builds an index: this machine, or the cluster that a recipe names.

Knows the recipe's settings and what is made elsewhere: shards of vectors, and parts of a search
over them. Where they are made changes no artifact's fingerprint.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from rag_frozen.corpus.parallel import Executor
from rag_frozen.errors import ArtifactMismatchError, InputError, StorageError
from rag_frozen.indexing.executors_ray import RayCluster
from rag_frozen.recipes.index import EncoderSettings, ExecutorSettings, LocalExecutor
from rag_frozen.retrieval.dense_encoders import Encoder, Vectors
from rag_frozen.retrieval.dense_parts import MissingPart, PartMaker, is_part_file, write_part
from rag_frozen.retrieval.dense_shards import MissingShard, ShardMaker, encode_passages, write_shard
from rag_frozen.retrieval.dense_vectors import VectorType

__all__ = ["MakeEncoder", "open_executor", "parts_on", "refuse_address", "shards_on"]

_ADDRESS = re.compile(r"(^|/)[a-z][a-z0-9+.-]+:/")  # what a path makes of s3://…
MakeEncoder = Callable[[EncoderSettings], Encoder]
_APPEARS = 60.0  # seconds in which a file that another machine wrote must be seen


def open_executor(settings: ExecutorSettings) -> AbstractContextManager[Executor | None]:
    """The executor of a recipe for a ``with`` block, None for this machine; it connects when the
    first function is to run."""
    if isinstance(settings, LocalExecutor):
        return nullcontext()
    return RayCluster(
        settings.address,
        cpus_per_task=settings.cpus_per_task,
        gpus_per_task=settings.gpus_per_task,
        tasks_in_flight=settings.tasks_in_flight,
    )


def refuse_address(root: Path) -> None:
    """Refuse an artifacts' folder such as ``s3://bucket``, which would become one of that name.

    Raises:
        InputError: when it is an address.
    """
    if _ADDRESS.search(root.as_posix()):
        raise InputError(
            f"Artifacts are written to disks (they are renamed and memory-mapped), not to {root}. "
            "Give --root a folder; for many machines one on a shared disk, such as NFS. The "
            "corpus' files may be at an address."
        )


def shards_on(
    executor: Executor,
    make: MakeEncoder,
    settings: EncoderSettings,
    *,
    digest: str,
    dtype: VectorType,
    folder: Path,
) -> ShardMaker:
    """Return what makes shards of vectors on an executor, one a task.

    A worker writes the shard itself where it sees ``folder``, on a shared disk, and sends the
    vectors back where it does not.

    Args:
        executor: runs the tasks.
        make: makes the encoder; each worker process calls it once.
        settings: of the encoder.
        digest: that the encoder must have there.
        dtype: in which vectors are stored.
        folder: of the shards.

    Raises:
        ArtifactMismatchError: while shards are made, when a machine has another encoder.
        StorageError: when a shard that a machine wrote does not appear here.
    """
    work = _Work(make, settings, digest, dtype)

    def made(shards: Iterable[MissingShard]) -> Iterator[int]:
        with _marked(folder) as mark:
            absolute = (
                MissingShard(Path(os.path.abspath(shard.path)), shard.passages) for shard in shards
            )
            for path, count, vectors in executor.map(
                partial(_make_shard, work=work, mark=mark), absolute, device=True
            ):
                if vectors is not None:
                    write_shard(path, vectors)
                _await(path)
                yield count

    return made


def parts_on(executor: Executor, folder: Path) -> PartMaker:
    """Return what codes parts of a folder's vectors on an executor, one a task.

    A part whose worker does not see ``folder`` is coded here: what it is made of is as large as
    the vectors.

    Args:
        executor: runs the tasks.
        folder: of the vectors and the trained index.

    Raises:
        StorageError: while parts are made, when one that a machine wrote does not appear here.
    """

    def made(parts: Iterable[MissingPart]) -> Iterator[MissingPart]:
        with _marked(folder) as mark:
            absolute = [replace(part, folder=Path(os.path.abspath(folder))) for part in parts]
            there = executor.map(partial(_make_part, mark=mark), absolute)
            for part, seen in zip(absolute, there, strict=True):
                if not seen:
                    write_part(part)
                _await(part.path)
                yield part

    return made


def _make_part(part: MissingPart, mark: Path) -> bool:
    """What a worker does; False where it does not see the folder."""
    if not mark.exists():
        return False
    if not part.path.exists():  # there when a worker died after writing it
        write_part(part, attempt=f".{uuid.uuid4().hex}")
    return True


@dataclass(frozen=True, slots=True)
class _Work:
    make: MakeEncoder
    settings: EncoderSettings
    digest: str
    dtype: VectorType


def _make_shard(shard: MissingShard, work: _Work, mark: Path) -> tuple[Path, int, Vectors | None]:
    """What a worker does: its file, the number of its passages, and the vectors where the worker
    could not write them."""
    encoder = _encoder(work.make, work.settings)
    if encoder.digest != work.digest:
        raise ArtifactMismatchError(
            f"On {os.uname().nodename} the encoder {encoder.name} has digest "
            f"{encoder.digest[:12]}, on the machine that builds {work.digest[:12]}. Put the same "
            "files on all machines, or name a revision in the recipe."
        )
    count = len(shard.passages)
    if not mark.exists():
        return shard.path, count, encode_passages(shard.passages, encoder, work.dtype)
    if not shard.path.exists():  # there when a worker died after writing it
        vectors = encode_passages(shard.passages, encoder, work.dtype)
        write_shard(shard.path, vectors, attempt=f".{uuid.uuid4().hex}")
    return shard.path, count, None


@lru_cache(maxsize=1)
def _encoder(make: MakeEncoder, settings: EncoderSettings) -> Encoder:
    """Kept for the life of the worker process: loading takes longer than a small shard."""
    return make(settings)


@contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """A file of a name that nobody else can have: who sees it sees the folder."""
    for left in folder.glob("*.partial"):  # of workers that were killed
        if left.name.startswith("vectors-") or is_part_file(left):
            left.unlink(missing_ok=True)
    mark = Path(os.path.abspath(folder)) / f".shared-{uuid.uuid4().hex}"
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _await(path: Path) -> None:
    """Network disks show what another machine wrote after a while."""
    until = time.monotonic() + _APPEARS
    while path.name not in os.listdir(path.parent):  # asks anew, where exists() may remember
        if time.monotonic() > until:
            raise StorageError(
                f"A machine wrote {path}, and it is not seen here after {_APPEARS:.0f} seconds. "
                "Check that the artifacts' folder is one and the same disk on all machines, or "
                "give a folder that only this machine has: vectors are then sent here."
            )
        time.sleep(0.2)
