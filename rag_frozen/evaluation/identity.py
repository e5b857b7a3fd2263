"""What a run must share with another to be the same: weights, prompts, versions, data.

Knows pipelines and manifests; nothing about how a run is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rag_frozen.artifacts import ModelRecord, canonical_json, load_manifest
from rag_frozen.artifacts.provenance import package_versions, project_commit
from rag_frozen.errors import ArtifactMissingError
from rag_frozen.pipeline import Pipeline
from rag_frozen.types import Question

__all__ = ["code_version", "models_of", "pipeline_inputs", "prompt_digests", "questions_digest"]


def code_version() -> dict[str, str]:
    """Versions of the packages that compute, and the commit of this checkout (empty without)."""
    versions = {f"version of {name}": version for name, version in package_versions().items()}
    return {**versions, "commit": project_commit() or ""}


def questions_digest(questions: Sequence[Question]) -> str:
    """SHA-256 over ids and texts, in their order."""
    return hashlib.sha256(canonical_json([[q.id, q.text] for q in questions]).encode()).hexdigest()


def pipeline_inputs(pipeline: Pipeline) -> dict[str, str]:
    """Fingerprints of the indexes, digests of the models and of the trained prompts, by role."""
    return {
        **pipeline.artifacts,
        **{role: model.digest for role, model in models_of(pipeline).items()},
        **prompt_digests(pipeline.recipe.get("prompt")),
    }


def models_of(pipeline: Pipeline) -> dict[str, ModelRecord]:
    """The models whose digests the stages know."""
    records = {}
    for role, stage in (("reranker", pipeline.reranker), ("reader", pipeline.reader)):
        digest = getattr(stage, "digest", None)
        name = (pipeline.recipe.get(role) or {}).get("model")
        if isinstance(digest, str) and isinstance(name, str):
            records[role] = ModelRecord(name=name, digest=digest)
    return records


def prompt_digests(settings: Mapping[str, Any] | None) -> dict[str, str]:  # Any: JSON values
    """SHA-256 over the files of each soft prompt that a pipeline's recipe names, by its role.

    A prompt that is trained anew lies in the same folder and is another one.

    Raises:
        ArtifactError: when a folder holds no prompt.

    >>> prompt_digests({"kind": "none"})
    {}
    """
    found = settings or {}
    paths = [found["path"]] if found.get("path") else list(found.get("paths", ()))
    return {f"prompt {number}": _files_digest(Path(path)) for number, path in enumerate(paths, 1)}


def _files_digest(folder: Path) -> str:
    try:
        manifest = load_manifest(folder, kind="head")
    except ArtifactMissingError as error:
        raise ArtifactMissingError(
            f"There is no trained prompt in {folder}. Train one with: rag-frozen train RECIPE, and "
            "name the folder that it prints."
        ) from error
    files = {name: record.sha256 for name, record in manifest.files.items()}
    return hashlib.sha256(canonical_json(files).encode()).hexdigest()
