"""The parts of a built index: the artifacts that a recipe names, found by their fingerprints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rag_frozen.artifacts import (
    artifact_folder,
    artifact_root,
    find_artifact,
    fingerprint,
    load_manifest,
)
from rag_frozen.errors import ArtifactMissingError, RecipeError
from rag_frozen.indexing import encoders
from rag_frozen.indexing.bm25 import bm25_identity, bm25_inputs
from rag_frozen.indexing.dense import resolve_dense
from rag_frozen.recipes.index import Bm25Settings, IndexRecipe

__all__ = [
    "BuiltIndex",
    "BuiltPart",
    "Report",
    "finished_part",
    "found_part",
    "index_parts",
    "part_settings",
]

Report = Callable[[str, int, int | None], None]
"""Told of progress: what is being built, how much is done, and of how much."""


@dataclass(frozen=True, slots=True)
class BuiltPart:
    """One artifact of an index: ``role`` is corpus, bm25 or dense; ``seconds`` of this build (0
    when it was there already); ``size`` in bytes; ``segments`` of a BM25 index, None for the other
    parts and where they were not counted."""

    role: str
    folder: Path
    fingerprint: str
    n_passages: int
    size: int
    seconds: float
    reused: bool
    segments: int | None = None


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """What an index recipe names, built. ``bm25`` holds what the recipe says of the BM25 engine."""

    name: str
    parts: tuple[BuiltPart, ...]
    bm25: Bm25Settings | None = None

    def part(self, role: str) -> BuiltPart:
        """Return the part of a role.

        Raises:
            RecipeError: when the recipe has no such part.
        """
        for part in self.parts:
            if part.role == role:
                return part
        raise RecipeError(
            f"The index recipe {self.name} has no {role} part, which the pipeline needs. Add one "
            f"to indexes/{self.name}.yaml, or choose another retrieval."
        )


def index_parts(recipe: IndexRecipe, *, root: Path | None = None) -> BuiltIndex:
    """Find the newest finished artifacts of a recipe without building anything.

    Raises:
        ArtifactMissingError: when one is missing, with the command that builds it.
    """
    try:
        corpus = found_part(find_artifact(root, "corpus", name=recipe.name), "corpus")
    except ArtifactMissingError as error:
        raise ArtifactMissingError(
            f"The index {recipe.name} is not built in {artifact_root(root)}. Build it with: "
            f"rag-frozen index build {recipe.name}; or name another folder with --root."
        ) from error
    parts = [corpus]
    settings = {"bm25": recipe.bm25, "dense": recipe.dense}
    for role, part in settings.items():
        if part is None:
            continue
        inputs = {"corpus": corpus.fingerprint}
        if recipe.bm25 is not None and role == "bm25":
            inputs = bm25_inputs(recipe.bm25, corpus.fingerprint)
        if recipe.dense is not None and role == "dense":
            inputs["encoder"] = encoders.make_encoder(recipe.dense.encoder).digest
        mark = fingerprint(part_settings(recipe, role, corpus.n_passages), inputs)
        folder = artifact_folder(root, "index", name=f"{recipe.name}-{role}", fingerprint=mark)
        if not folder.is_dir():
            raise ArtifactMissingError(
                f"The {role} index of {recipe.name} is not built over this corpus. Build it "
                f"with: rag-frozen index build {recipe.name}"
            )
        parts.append(found_part(folder, role))
    return BuiltIndex(recipe.name, tuple(parts), recipe.bm25)


def finished_part(folder: Path, role: str) -> BuiltPart | None:
    """The part in a folder, or None where none is finished there."""
    try:
        return found_part(folder, role, reused=True)
    except ArtifactMissingError:
        return None


def found_part(folder: Path, role: str, seconds: float = 0.0, reused: bool = False) -> BuiltPart:
    """The finished part in a folder; ``seconds`` of its build."""
    manifest = load_manifest(folder, kind="corpus" if role == "corpus" else "index")
    return BuiltPart(
        role=role,
        folder=folder,
        fingerprint=manifest.fingerprint,
        n_passages=manifest.counts["passages"],
        size=sum(record.size for record in manifest.files.values()),
        seconds=seconds,
        reused=reused or seconds == 0.0,
        segments=int(manifest.measures["segments"]) if "segments" in manifest.measures else None,
    )


def part_settings(recipe: IndexRecipe, role: str, n_passages: int) -> dict[str, object]:
    """The settings that a part's fingerprint covers; ``role`` is bm25 or dense."""
    if role == "dense" and recipe.dense is not None:
        return resolve_dense(recipe.dense, n_passages).model_dump(mode="json")
    assert recipe.bm25 is not None
    return bm25_identity(recipe.bm25)
