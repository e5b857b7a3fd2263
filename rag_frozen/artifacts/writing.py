"""Writing artifacts whole or not at all.

A temporary folder beside the target, the manifest last, everything synced, one rename. A process
that dies on the way leaves a temporary folder, which the next writer removes.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from rag_frozen.artifacts.identity import canonical_json, file_sha256, fingerprint
from rag_frozen.artifacts.layout import MANIFEST_NAME, ArtifactKind
from rag_frozen.artifacts.manifest import (
    CURRENT_NAME,
    SCHEMA_VERSION,
    FileRecord,
    Manifest,
    ModelRecord,
    current_build,
    load_manifest,
)
from rag_frozen.artifacts.provenance import describe_hardware, package_versions, project_commit
from rag_frozen.artifacts.storage import make_folder, storage_errors, sync_folder
from rag_frozen.artifacts.temporary import temporary_file, temporary_folder
from rag_frozen.errors import (
    ArtifactDamagedError,
    ArtifactError,
    ArtifactMismatchError,
    ArtifactMissingError,
    InputError,
)

__all__ = [
    "Draft",
    "atomic_write_bytes",
    "atomic_write_text",
    "atomic_writer",
    "mark_current",
    "write_artifact",
]

_log = logging.getLogger(__name__)
_OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST}


@dataclass(slots=True)
class Draft:
    """An artifact in the making. It stands for its temporary folder: ``open(draft / "x.npy")``.

    What is known only at the end (``inputs``, ``models``, ``counts``, ``measures``, ``digests``)
    may be set until the ``with`` block ends. After it, ``target`` is the artifact's folder,
    ``manifest`` what lies there, and ``reused`` true when a finished equal artifact was there
    already and was kept.
    """

    folder: Path
    target: Path
    kind: ArtifactKind
    name: str
    recipe: dict[str, Any]  # Any: JSON, checked by the fingerprint
    inputs: dict[str, str] = field(default_factory=dict)
    models: dict[str, ModelRecord] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    manifest: Manifest | None = None
    reused: bool = False

    def __fspath__(self) -> str:
        return str(self.folder)

    def __truediv__(self, part: str) -> Path:
        return self.folder / part


@contextmanager
def write_artifact(
    target: str | Path,
    *,
    kind: ArtifactKind,
    name: str,
    recipe: Mapping[str, Any],
    inputs: Mapping[str, str] | None = None,
    models: Mapping[str, ModelRecord] | None = None,
    counts: Mapping[str, int] | None = None,
    digests: Mapping[str, str] | None = None,
    seed: int | None = None,
    by_fingerprint: bool = False,
) -> Iterator[Draft]:
    """Yield a draft whose folder becomes the artifact ``target`` when the block ends well.

    ``recipe`` is the resolved recipe as JSON values; ``inputs`` maps roles to fingerprints.
    ``by_fingerprint`` makes ``target`` the parent: the artifact's folder in it is then named by
    the fingerprint, which may depend on inputs that the block finds out.

    A finished artifact of the same fingerprint is kept and the draft thrown away; a damaged one is
    replaced. On any error the temporary folder goes and what was there stays. Raises
    ``StorageError`` when the disk is full or refuses, ``ArtifactMismatchError`` when ``target``
    holds something else.
    """
    target = Path(os.path.abspath(target))
    parent = target if by_fingerprint else target.parent
    draft = Draft(
        folder=parent,
        target=target,
        kind=kind,
        name=name,
        recipe=json.loads(canonical_json(dict(recipe))),
        inputs=dict(inputs or {}),
        models=dict(models or {}),
        counts=dict(counts or {}),
        digests=dict(digests or {}),
        seed=seed,
    )
    if not by_fingerprint:
        _refuse_foreign(target, kind, fingerprint(draft.recipe, draft.inputs))
    # twice: a full disk is described before the temporary folder goes and makes room again
    with storage_errors(parent), temporary_folder(parent) as folder, storage_errors(parent):
        draft.folder = folder
        yield draft
        manifest = _seal(draft)
        draft.target = target / manifest.fingerprint if by_fingerprint else target
        draft.manifest = _place(draft, manifest, ours=by_fingerprint)
        draft.folder = draft.target


@contextmanager
def atomic_writer(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of ``path`` in one step when the block ends well.

    Its folder is made when missing; after an error what was there stays. Raises ``StorageError``.
    """
    path = Path(path)
    with storage_errors(path.parent):
        make_folder(path.parent)
        with temporary_file(path) as temporary, storage_errors(path.parent):
            with temporary.open("wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all; one that is there is replaced in one step.

    Its folder is made when missing. Raises ``StorageError``.
    """
    with atomic_writer(path) as handle:
        handle.write(data)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8, line ends as given) as ``atomic_write_bytes`` does."""
    atomic_write_bytes(path, text.encode())


def mark_current(folder: Path, *, before_others: bool = False) -> None:
    """Make a finished build the one that is found by its name, beside newer or older ones.

    Nothing is written where it is the only one or is found already, so that artifacts on a
    read-only disk can be used; ``before_others`` says that others are about to be written.
    """
    home = folder.parent
    builds = [build for build in home.iterdir() if (build / MANIFEST_NAME).is_file()]
    if (before_others or builds != [folder]) and current_build(home) != folder:
        atomic_write_text(home / CURRENT_NAME, f"{folder.name}\n")


def _refuse_foreign(target: Path, kind: ArtifactKind, identity: str) -> None:
    """Before any work: never build what could not be put there, never remove a user's files."""
    advice = "Choose another folder, or remove it if nothing in it is needed."
    if target.is_file():
        raise ArtifactMismatchError(f"{target} is a file, a folder is needed. {advice}")
    try:
        found = load_manifest(target)
    except ArtifactMissingError as error:
        if target.is_dir() and any(target.iterdir()):
            raise ArtifactMismatchError(
                f"{target} holds files that are no artifact of rag-frozen. {advice}"
            ) from error
    except ArtifactDamagedError:
        return  # a damaged artifact is replaced
    else:
        _check_same(target, found, kind, identity)


def _check_same(target: Path, found: Manifest, kind: ArtifactKind, identity: str) -> None:
    if (found.kind, found.fingerprint) != (kind, identity):
        raise ArtifactMismatchError(
            f"{target} holds the {found.kind} {found.name} ({found.fingerprint}), not this {kind} "
            f"({identity}). Choose another folder, or remove it first."
        )


def _seal(draft: Draft) -> Manifest:
    """Sync and hash every file, then write the manifest."""
    files: dict[str, FileRecord] = {}
    folders = [draft.folder]
    for path in sorted(draft.folder.rglob("*")):
        if path.is_symlink():
            raise InputError(f"{path.name} is a link; an artifact holds its files itself")
        if path.is_dir():
            folders.append(path)
            continue
        _sync_file(path)
        record = FileRecord(size=path.stat().st_size, sha256=file_sha256(path))
        files[path.relative_to(draft.folder).as_posix()] = record
    if MANIFEST_NAME in files:
        raise InputError(f"{MANIFEST_NAME} is written by write_artifact; name the file otherwise")
    manifest = Manifest(
        kind=draft.kind,
        schema_version=SCHEMA_VERSION,
        name=draft.name,
        fingerprint=fingerprint(draft.recipe, draft.inputs),
        recipe=draft.recipe,
        inputs=draft.inputs,
        models=draft.models,
        files=files,
        counts={what: int(number) for what, number in draft.counts.items()},
        measures={what: float(value) for what, value in draft.measures.items()},
        digests=draft.digests,
        seed=draft.seed,
        versions=package_versions(),
        commit=project_commit(),
        hardware=describe_hardware(),
        created=datetime.now(UTC),
    )
    (draft.folder / MANIFEST_NAME).write_bytes(manifest.to_json().encode())
    _sync_file(draft.folder / MANIFEST_NAME)
    for folder in folders:
        sync_folder(folder)
    return manifest


def _place(draft: Draft, manifest: Manifest, *, ours: bool) -> Manifest:
    """Rename the sealed folder to the target; keep an equal finished artifact that is there.

    ``ours`` says that a folder of the target's name can only be an artifact.
    """
    while True:
        try:
            os.rename(draft.folder, draft.target)
        except OSError as error:
            if error.errno not in _OCCUPIED:
                raise
        else:
            sync_folder(draft.target.parent)
            return manifest
        found = _finished(draft.target)
        if found is None:
            if not ours:
                _refuse_foreign(draft.target, draft.kind, manifest.fingerprint)
            _log.warning("%s was not whole; what was built now takes its place", draft.target)
            _move_away(draft.target)
            continue
        _check_same(draft.target, found, draft.kind, manifest.fingerprint)
        draft.reused = True
        return found


def _move_away(target: Path) -> None:
    """Remove a damaged artifact, by a rename first so that no half-removed one is ever seen."""
    with temporary_folder(target.parent) as bin_folder:
        away = bin_folder / target.name
        try:
            os.rename(target, away)
        except FileNotFoundError:
            return  # another writer was faster
        if _finished(away) is not None and not target.exists():
            os.rename(away, target)  # another writer had just put a good one there
        else:
            shutil.rmtree(away, ignore_errors=True)


def _finished(folder: Path) -> Manifest | None:
    try:
        return load_manifest(folder)
    except ArtifactError:
        return None


def _sync_file(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
