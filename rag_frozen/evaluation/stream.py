"""The unfinished run: what is answered so far, on disk, so that any kill loses one chunk at most.

After each chunk its lines are appended to the files and synced; then ``progress.json``, replaced in
one step, says how many questions and how many bytes of each file count. What a killed process wrote
beyond that is cut off by the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from rag_frozen.artifacts import atomic_write_text, held_folder, storage_errors
from rag_frozen.errors import ArtifactDamagedError, InputError

__all__ = ["RunStream", "open_stream"]

_PROGRESS = "progress.json"


class RunStream:
    """Files that grow chunk by chunk; use :func:`open_stream`."""

    def __init__(self, folder: Path, done: int, files: Mapping[str, IO[bytes]]) -> None:
        self.folder = folder
        self.done = done
        self._files = files

    def append(self, lines: Mapping[str, str], *, questions: int) -> None:
        """Append text to files and count ``questions`` as done.

        Raises:
            StorageError: when the disk is full; what was counted before stays.
        """
        with storage_errors(self.folder):
            for name, text in lines.items():
                self._files[name].write(text.encode())
                self._files[name].flush()
                os.fsync(self._files[name].fileno())
            self.done += questions
            sizes = {name: handle.tell() for name, handle in self._files.items()}
            record = {"questions": self.done, "bytes": sizes}
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
        ArtifactDamagedError: when its files are shorter than it says.
    """
    with storage_errors(folder), held_folder(folder) as ours:
        if not ours:
            raise InputError(
                f"Another process is running this very evaluation ({folder}). Wait for it, or stop "
                "it; what it finished is kept."
            )
        done, sizes = _progress(folder)
        with ExitStack() as stack:
            files = {}
            for name in names:
                handle = stack.enter_context((folder / name).open("ab"))
                counted = sizes.get(name, 0)
                if handle.tell() < counted:
                    raise _damaged(folder, f"{name} has {handle.tell()} bytes, {counted} counted")
                handle.truncate(counted)
                handle.seek(counted)
                files[name] = handle
            yield RunStream(folder, done, files)


def _progress(folder: Path) -> tuple[int, dict[str, int]]:
    try:
        record = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        return int(record["questions"]), {k: int(v) for k, v in record["bytes"].items()}
    except FileNotFoundError:
        return 0, {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"{_PROGRESS} cannot be read") from error


def _damaged(folder: Path, what: str) -> ArtifactDamagedError:
    return ArtifactDamagedError(
        f"The unfinished run in {folder} is damaged: {what}. Remove the folder to begin anew."
    )
