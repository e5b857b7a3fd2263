"""Artifacts: their places on disk, their manifests, and writing them whole or not at all."""

from __future__ import annotations

from rag_frozen.artifacts.identity import canonical_json, file_sha256, fingerprint
from rag_frozen.artifacts.layout import (
    MANIFEST_NAME,
    ArtifactKind,
    artifact_folder,
    artifact_root,
    list_artifacts,
    name_folder,
)
from rag_frozen.artifacts.manifest import (
    SCHEMA_VERSION,
    FileRecord,
    Hardware,
    Manifest,
    ModelRecord,
    find_artifact,
    load_manifest,
    verify,
)
from rag_frozen.artifacts.storage import link_or_copy, storage_error, storage_errors
from rag_frozen.artifacts.temporary import held_folder, temporary_folder
from rag_frozen.artifacts.writing import (
    Draft,
    atomic_write_bytes,
    atomic_write_text,
    mark_current,
    write_artifact,
)

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "ArtifactKind",
    "Draft",
    "FileRecord",
    "Hardware",
    "Manifest",
    "ModelRecord",
    "artifact_folder",
    "artifact_root",
    "atomic_write_bytes",
    "atomic_write_text",
    "canonical_json",
    "file_sha256",
    "find_artifact",
    "fingerprint",
    "held_folder",
    "link_or_copy",
    "list_artifacts",
    "load_manifest",
    "mark_current",
    "name_folder",
    "storage_error",
    "storage_errors",
    "temporary_folder",
    "verify",
    "write_artifact",
]
