"""A file of training rows that is being written: a kill loses one chunk at most."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_frozen.artifacts import storage_errors, temporary_folder
from rag_frozen.artifacts.storage import make_folder
from rag_frozen.artifacts.stream import RunStream, open_stream
from rag_frozen.artifacts.writing import atomic_writer

__all__ = ["finish_rows", "unfinished_rows"]


@contextmanager
def unfinished_rows(
    target: Path, identity: str | None, names: tuple[str, ...]
) -> Iterator[RunStream]:
    """What is written so far, in a folder beside the target; gone when the block ends well.

    Args:
        target: the file to write in the end.
        identity: names the work, so that no other is taken for it; None begins anew.
        names: of the files that grow.

    Raises:
        InputError: when another process is at it.
        ArtifactDamagedError: when its files are not those that were written.
        StorageError: when they cannot be written.
    """
    with storage_errors(target.parent):
        make_folder(target.parent)
        if identity is None:
            with temporary_folder(target.parent) as folder, open_stream(folder, names) as stream:
                yield stream
            return
        folder = target.with_name(f"{target.name}.unfinished-{identity}")
        folder.mkdir(exist_ok=True)
        with open_stream(folder, names) as stream:
            yield stream
        shutil.rmtree(folder, ignore_errors=True)


def finish_rows(stream: RunStream, name: str, target: Path) -> None:
    """Write what a file of the stream holds to the target, whole or not at all."""
    with atomic_writer(target) as out, stream.path(name).open("rb") as finished:
        shutil.copyfileobj(finished, out)
