"""The manifest: what an artifact is, what it was made from, and the hashes that prove it.

Loading checks kind, schema and file sizes, which costs microseconds a file; ``verify`` reads and
hashes everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
)

from rag_frozen.artifacts.identity import file_sha256, fingerprint
from rag_frozen.artifacts.layout import MANIFEST_NAME, ArtifactKind, list_artifacts
from rag_frozen.errors import ArtifactDamagedError, ArtifactMissingError

__all__ = [
    "CURRENT_NAME",
    "SCHEMA_VERSION",
    "FileRecord",
    "Hardware",
    "Manifest",
    "ModelRecord",
    "current_build",
    "find_artifact",
    "load_manifest",
    "verify",
]

CURRENT_NAME = "current"
SCHEMA_VERSION = 1

_BUILT_BY: dict[ArtifactKind, str] = {
    "ablation": "rag-frozen ablate RECIPE",
    "corpus": "rag-frozen corpus build FILE, or rag-frozen index build RECIPE",
    "head": "rag-frozen train RECIPE",
    "index": "rag-frozen index build RECIPE",
    "model": "rag-frozen train RECIPE",
    "run": "rag-frozen eval RECIPE",
}
_NAMED_AT_MOST = 5  # files named in one message


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """One data file: its size in bytes and its SHA-256 (64 hexadecimal digits)."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ModelRecord(_Record):
    """A model that had a part in the artifact: its name and the digest of its weights."""

    name: str
    digest: str


class Hardware(_Record):
    """The machine: processor, usable cores, memory (bytes), accelerator (None without one)."""

    cpu: str
    cores: int
    memory_bytes: int | None
    accelerator: str | None


class Manifest(_Record):
    """Everything that is known of an artifact; ``manifest.json`` in its folder.

    ``inputs`` maps a role to the fingerprint (or digest) of what went in; ``models`` a role to the
    model; ``files`` a path relative to the folder, with forward slashes, to its size and hash;
    ``counts`` are numbers of things (passages, vectors, steps); ``measures`` what was chosen or
    measured while it was built (recall, parameters found by tuning); ``digests`` are hashes of
    contents, such as of all ids in order. ``fingerprint`` covers ``recipe`` and ``inputs``.
    """

    kind: ArtifactKind
    schema_version: int
    name: str
    fingerprint: str = Field(pattern="^[0-9a-f]{16}$")
    recipe: dict[str, JsonValue]
    inputs: dict[str, str] = {}
    models: dict[str, ModelRecord] = {}
    files: dict[str, FileRecord]
    counts: dict[str, int] = {}
    measures: dict[str, float] = {}
    digests: dict[str, str] = {}
    seed: int | None = None
    versions: dict[str, str]
    commit: str | None
    hardware: Hardware
    created: AwareDatetime

    @field_validator("files")
    @classmethod
    def _paths_stay_inside(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        for path in files:
            parts = PurePosixPath(path).parts
            if not parts or path.startswith("/") or ".." in parts or "\\" in path:
                raise ValueError(f"{path!r} does not lie in the artifact's folder")
        return files

    def to_json(self) -> str:
        """Return the text of ``manifest.json``."""
        return self.model_dump_json(indent=2) + "\n"


def load_manifest(folder: str | Path, *, kind: ArtifactKind | None = None) -> Manifest:
    """Read the manifest in ``folder``; check kind, schema and the size of every file.

    Raises ``ArtifactMissingError`` when there is none, ``ArtifactDamagedError`` when it is cut
    off, of another ``kind``, of another schema, or when files are missing or of another size.
    """
    folder = Path(folder)
    manifest = _parse(folder, _read(folder, kind), kind=kind)
    wrong = [
        problem
        for path, record in manifest.files.items()
        if (problem := _size_problem(folder / path, record.size)) is not None
    ]
    if wrong:
        raise ArtifactDamagedError(_damaged(folder, manifest.kind, wrong))
    return manifest


def verify(
    folder: str | Path,
    *,
    kind: ArtifactKind | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Manifest:
    """Hash every file of the artifact in ``folder`` and return its manifest.

    Raises as ``load_manifest`` does, and ``ArtifactDamagedError`` when a file's content or the
    recipe is not what was recorded. ``progress`` is told (bytes hashed, bytes in all).
    """
    folder = Path(folder)
    manifest = load_manifest(folder, kind=kind)
    if fingerprint(manifest.recipe, manifest.inputs) != manifest.fingerprint:
        raise ArtifactDamagedError(
            _damaged(folder, manifest.kind, ["its recipe or inputs do not give its fingerprint"])
        )
    total = sum(record.size for record in manifest.files.values())
    wrong: list[str] = []
    done = 0
    for path, record in manifest.files.items():
        if (found := file_sha256(folder / path)) != record.sha256:
            wrong.append(f"{path} has SHA-256 {found[:12]}…, recorded is {record.sha256[:12]}…")
        done += record.size
        if progress is not None:
            progress(done, total)
    if wrong:
        raise ArtifactDamagedError(_damaged(folder, manifest.kind, wrong))
    return manifest


def find_artifact(
    root: str | Path | None, kind: ArtifactKind, *, name: str, fingerprint: str | None = None
) -> Path:
    """Return the folder of the current finished build of ``name``, or of one fingerprint.

    The current one is that which :func:`mark_current` named last, else the newest.

    Raises ``ArtifactMissingError`` saying what builds it, and as ``load_manifest`` does.
    """
    folders = list_artifacts(root, kind, name=name)
    if fingerprint is not None:
        folders = tuple(folder for folder in folders if folder.name == fingerprint)
    if not folders:
        what = _said(kind)
        which = f"{what} {name}" if fingerprint is None else f"{what} {name} ({fingerprint})"
        where = "the default folder" if root is None else str(root)
        raise ArtifactMissingError(
            f"There is no {which} in {where}. Build it with: {_BUILT_BY[kind]}"
        )
    current = current_build(folders[0].parent)
    if current in folders:
        return current
    return max(folders, key=lambda folder: load_manifest(folder, kind=kind).created)


def current_build(home: Path) -> Path | None:
    """The build that ``mark_current`` named last in the folder of a name, if it did."""
    try:
        return home / (home / CURRENT_NAME).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _read(folder: Path, kind: ArtifactKind | None) -> str:
    build = f" Build it with: {_BUILT_BY[kind]}" if kind else ""
    what = _said(kind)
    if not folder.is_dir():
        raise ArtifactMissingError(f"There is no {what} at {folder}.{build}")
    path = folder / MANIFEST_NAME
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ArtifactMissingError(
            f"{folder} is no finished {what}: it holds no {MANIFEST_NAME}.{build}"
        ) from error
    except UnicodeDecodeError as error:
        raise ArtifactDamagedError(_damaged(folder, kind, [f"{MANIFEST_NAME}: {error}"])) from error
    except OSError as error:
        raise ArtifactDamagedError(f"{path} cannot be read: {error.strerror or error}") from error


def _parse(folder: Path, text: str, *, kind: ArtifactKind | None) -> Manifest:
    """Check kind and schema before the fields: another schema may have other fields."""
    try:
        value: Any = json.loads(text)  # Any: nothing is known of a foreign file
    except ValueError as error:
        problem = f"{MANIFEST_NAME} is cut off or no JSON ({len(text)} characters): {error}"
        raise ArtifactDamagedError(_damaged(folder, kind, [problem])) from error
    if not isinstance(value, dict) or not isinstance(value.get("schema_version"), int):
        problem = f"{MANIFEST_NAME} names no schema version, so it is not one of rag-frozen's"
        raise ArtifactDamagedError(_damaged(folder, kind, [problem]))
    found = value.get("kind")
    if kind is not None and found != kind:
        raise ArtifactDamagedError(
            f"{folder} is of kind {_said(found)}, but one of kind {_said(kind)} is needed. Give "
            f"the folder of one, or build one with: {_BUILT_BY[kind]}"
        )
    _check_schema(folder, value["schema_version"], kind=kind or found)
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        problem = f"{MANIFEST_NAME}: {place}: {first['msg']}"
        raise ArtifactDamagedError(_damaged(folder, kind, [problem])) from error


def _check_schema(folder: Path, found: int, *, kind: ArtifactKind | None) -> None:
    if found == SCHEMA_VERSION:
        return
    ages = f"schema version {found}, this rag-frozen reads version {SCHEMA_VERSION}"
    if found > SCHEMA_VERSION:
        raise ArtifactDamagedError(f"{folder} has {ages}. Upgrade rag-frozen to use it.")
    build = _BUILT_BY.get(kind, "the command that built it") if kind else "the command"
    raise ArtifactDamagedError(f"{folder} has the older {ages}. Build it again with: {build}")


def _size_problem(path: Path, expected: int) -> str | None:
    try:
        size = path.stat().st_size
    except OSError:
        return f"{path.name} is missing"
    if size == expected:
        return None
    return f"{path.name} has {size:,} bytes, recorded are {expected:,}"


def _damaged(folder: Path, kind: ArtifactKind | None, problems: list[str]) -> str:
    named = "; ".join(problems[:_NAMED_AT_MOST])
    more = f"; and {len(problems) - _NAMED_AT_MOST} more" if len(problems) > _NAMED_AT_MOST else ""
    build = f" and build it again with: {_BUILT_BY[kind]}" if kind else " and build it again"
    return f"The {_said(kind)} in {folder} is damaged: {named}{more}. Remove it{build}"


def _said(kind: object) -> str:
    """How messages name a kind: the head of a trained prompt is the prompt to who uses it."""
    return "prompt" if kind == "head" else str(kind or "artifact")
