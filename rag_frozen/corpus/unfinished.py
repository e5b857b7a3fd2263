"""Shards of a corpus that is being built: a build that was killed goes on after the last one.

They lie in ``unfinished-<identity>/`` beside the finished builds: for each shard the Arrow file of
its passages, what the source keeps of its reading, and last a record ``shard-<number>.json``
without which the others do not count. The identity stands for the recipe, what is read and the
software that reads it, so that no build goes on where another one was. Knows nothing about how
sources read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_frozen.artifacts import (
    atomic_write_text,
    canonical_json,
    file_sha256,
    held_folder,
    link_or_copy,
    storage_errors,
)
from rag_frozen.artifacts.provenance import package_versions, project_commit
from rag_frozen.artifacts.storage import sync_folder

__all__ = ["ShardRecord", "UnfinishedCorpus", "file_marks"]

_PREFIX = "unfinished-"
_RECORD = "shard-{:05d}.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A finished shard.

    Attributes:
        number: from 0.
        file: of its passages; None where the source has gathered, and given no passage yet.
        state: where the source stood at its end, as JSON values.
        saved: names of the files that the source wrote beside it, in its order.
        digests: SHA-256 of all these files.
    """

    number: int
    file: str | None
    state: Mapping[str, Any]  # Any: JSON values
    saved: Sequence[str]
    digests: Mapping[str, str]


class UnfinishedCorpus:
    """The finished shards of one build. Use it in a ``with`` block, which lets go of the folder and
    leaves what is in it."""

    def __init__(self, home: Path, identity: Mapping[str, Any] | None) -> None:  # Any: JSON values
        """Look at the folder of a corpus' name; nothing is made there before the first shard.

        Args:
            home: folder of the corpus' name.
            identity: of the build, JSON values; None keeps nothing and finds nothing.
        """
        marks = {"build": identity, "versions": package_versions(), "commit": project_commit()}
        digest = hashlib.sha256(canonical_json(marks).encode()).hexdigest()
        self._home = home
        self.folder = home / f"{_PREFIX}{digest[:16]}"
        self._held: bool | None = None if identity is not None else False
        self._stack = ExitStack()

    def __enter__(self) -> UnfinishedCorpus:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def records(self) -> list[ShardRecord]:
        """Return the finished shards in order, up to the first that is missing or damaged; of a
        folder that another living process holds, none."""
        if not self.folder.is_dir() or not self._hold():
            return []
        found: list[ShardRecord] = []
        while (record := _read(self.folder, len(found))) is not None:
            found.append(record)
        return found

    def keep(
        self,
        number: int,
        shard: Path | None,
        *,
        state: Mapping[str, Any],  # Any: JSON values
        saved: Sequence[Path] = (),
    ) -> None:
        """Keep a finished shard, whose file and ``saved`` are linked or copied here.

        Nothing is kept where another living process builds the same: it keeps the same shards.
        """
        if not self._hold():
            return
        with storage_errors(self.folder):
            digests: dict[str, str] = {}
            for path in saved if shard is None else (shard, *saved):
                place = self.folder / path.name
                place.unlink(missing_ok=True)  # of a shard without record, or a damaged one
                link_or_copy(path, place)
                _sync(place)
                digests[path.name] = file_sha256(place)
            sync_folder(self.folder)
            record = {
                "file": None if shard is None else shard.name,
                "state": state,
                "saved": [path.name for path in saved],
                "digests": digests,
            }
            text = json.dumps(record)
            atomic_write_text(self.folder / _RECORD.format(number), f"{text}\n")

    def remove_all(self) -> None:
        """Remove this folder and abandoned ones of other identities, which is told in the log."""
        self._stack.close()
        for folder in sorted(self._home.glob(f"{_PREFIX}*")):
            with held_folder(folder) as held:
                if not held:
                    continue  # a living process builds there
                if folder != self.folder:
                    _log.warning(
                        "Removed %s, an unfinished build of other files, settings or versions",
                        folder,
                    )
                shutil.rmtree(folder, ignore_errors=True)

    def _hold(self) -> bool:
        """Hold the folder, which is made when missing."""
        if self._held is None:
            self._held = self._stack.enter_context(held_folder(self.folder))
            if not self._held:
                _log.warning("Another process builds in %s; its shards are left alone", self.folder)
        return self._held


def file_marks(paths: Iterable[Path]) -> list[list[Any]]:  # Any: JSON values
    """Return name, size and time of last change of files: what tells cheaply that they changed."""
    marks: list[list[Any]] = []
    for path in paths:
        found = path.stat()
        marks.append([ascii(str(path.resolve())), found.st_size, found.st_mtime_ns])
    return marks


def _read(folder: Path, number: int) -> ShardRecord | None:
    path = folder / _RECORD.format(number)
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        record = ShardRecord(number, **values)
        for name, digest in record.digests.items():
            if file_sha256(folder / name) != digest:
                raise ValueError(f"{name} was changed")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _log.warning("The shard of %s is damaged and made again: %s", path, error)
        return None
    return record


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
