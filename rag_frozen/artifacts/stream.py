"""An unfinished run: what is answered so far, on disk, so that any kill loses one chunk at most.

After each chunk its lines are appended to the files and synced; then ``progress.json``, replaced in
one step, says how many questions and how many bytes of each file count, and their SHA-256. What a
killed process wrote beyond that is cut off by the next; a file that somebody put there from another
run is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rag_frozen.artifacts.storage import storage_errors
from rag_frozen.artifacts.temporary import held_folder
from rag_frozen.artifacts.writing import atomic_write_text
from rag_frozen.errors import ArtifactDamagedError, InputError

__all__ = ["RunStream", "open_stream"]

_PROGRESS = "progress.json"
_READ_AT_ONCE = 2**20


class RunStream:
    """Files that grow chunk by chunk; use :func:`open_stream`."""

    def __init__(
        self,
        folder: Path,
        done: int,
        files: Mapping[str, IO[bytes]],
        digests: Mapping[str, hashlib._Hash],
    ) -> None:
        self.folder = folder
        self.done = done
        self._files = files
        self._digests = digests

    def append(self, lines: Mapping[str, str], *, questions: int) -> None:
        """Append text to files and count ``questions`` as done.

        Raises:
            StorageError: when the disk is full; what was counted before stays.
        """
        with storage_errors(self.folder):
            for name, text in lines.items():
                data = text.encode()
                self._files[name].write(data)
                self._digests[name].update(data)
                self._files[name].flush()
                os.fsync(self._files[name].fileno())
            self.done += questions
            sizes = {name: handle.tell() for name, handle in self._files.items()}
            digests = {name: digest.hexdigest() for name, digest in self._digests.items()}
            record = {"questions": self.done, "bytes": sizes, "sha256": digests}
            atomic_write_text(self.folder / _PROGRESS, json.dumps(record) + "\n")

    def path(self, name: str) -> Path:
        """Where a file lies."""
        return self.folder / name

    def lines(self, name: str) -> list[str]:
        """The lines that count so far."""
        return self.path(name).read_text(encoding="utf-8").split("\n")[:-1]


@contextmanager
def open_stream(folder: Path, names: tuple[str, ...]) -> Iterator[RunStream]:
    """Open an unfinished run, or begin one.

    Args:
        folder: made when missing.
        names: of its files.

    Raises:
        InputError: when another process is at it.
        ArtifactDamagedError: when its files are not those that it counts; none is changed then.
    """
    with storage_errors(folder), held_folder(folder) as ours:
        if not ours:
            raise InputError(
                f"Another process is at this very work ({folder}). Wait for it, or stop it; what "
                "it finished is kept."
            )
        progress = _progress(folder)
        digests = {name: _counted(folder, name, progress) for name in names}
        with ExitStack() as stack:
            files = {}
            for name in names:
                handle = stack.enter_context((folder / name).open("ab"))
                handle.truncate(progress.sizes.get(name, 0))
                handle.seek(0, os.SEEK_END)
                files[name] = handle
            yield RunStream(folder, progress.done, files, digests)


@dataclass(frozen=True, slots=True)
class _Progress:
    done: int
    sizes: Mapping[str, int]
    digests: Mapping[str, str]


def _progress(folder: Path) -> _Progress:
    try:
        record = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        sizes = {name: int(size) for name, size in record["bytes"].items()}
        return _Progress(int(record["questions"]), sizes, dict(record["sha256"]))
    except FileNotFoundError:
        return _Progress(0, {}, {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"{_PROGRESS} cannot be read.") from error


def _counted(folder: Path, name: str, progress: _Progress) -> hashlib._Hash:
    """The digest of what counts of a file, which must be what was counted."""
    digest = hashlib.sha256()
    left = counted = progress.sizes.get(name, 0)
    if counted:
        size = (folder / name).stat().st_size if (folder / name).exists() else 0
        if size < counted:
            raise _damaged(folder, f"{name} has {size} bytes, {counted} counted.")
        with (folder / name).open("rb") as handle:
            while left and (data := handle.read(min(left, _READ_AT_ONCE))):
                digest.update(data)
                left -= len(data)
        if digest.hexdigest() != progress.digests.get(name):
            raise _damaged(folder, f"{name} is not what this run wrote; is it of another run?")
    return digest


def _damaged(folder: Path, what: str) -> ArtifactDamagedError:
    return ArtifactDamagedError(
        f"The unfinished run in {folder} is damaged: {what} Nothing was overwritten. Remove the "
        "folder to begin anew."
    )
