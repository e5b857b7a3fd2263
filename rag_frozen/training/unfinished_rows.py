"""A file of training rows that is being written: a kill loses one chunk at most."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rag_frozen.artifacts import storage_errors, temporary_folder
from rag_frozen.artifacts.storage import make_folder
from rag_frozen.artifacts.stream import RunStream, open_stream
from rag_frozen.artifacts.writing import atomic_writer
from rag_frozen.errors import InputError

__all__ = ["HoldOut", "finish_rows", "unfinished_rows"]


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Every n-th row (of 8: the eighth, the sixteenth) goes to a file of its own: questions to
    choose settings on, which nothing is trained on."""

    path: Path
    every: int = 8

    def __post_init__(self) -> None:
        if self.every < 2:
            raise InputError(f"Every {self.every}th row held out leaves none: take 2 or more.")


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


def finish_rows(stream: RunStream, name: str, target: Path, hold_out: HoldOut | None = None) -> int:
    """Write what a file of the stream holds to the target, whole or not at all, and to the file of
    the rows held out, where there is one. Returns how many are held out."""
    held_out = 0
    with ExitStack() as files:
        source = files.enter_context(stream.path(name).open("rb"))
        if hold_out is None:
            shutil.copyfileobj(source, files.enter_context(atomic_writer(target)))
            return 0
        make_folder(hold_out.path.parent)
        kept, apart = (files.enter_context(atomic_writer(p)) for p in (target, hold_out.path))
        for number, line in enumerate(source, 1):
            is_apart = number % hold_out.every == 0
            (apart if is_apart else kept).write(line)
            held_out += is_apart
    return held_out
