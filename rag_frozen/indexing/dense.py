"""Dense indexes: from a recipe's kind to an engine; built, tuned and opened.

The only place that knows which kind is which engine. Vectors of an equal recipe that differs only
in the kind are shared, not encoded again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from rag_frozen.artifacts import link_or_copy, list_artifacts, load_manifest
from rag_frozen.errors import ArtifactDamagedError, ArtifactError
from rag_frozen.recipes.index import (
    AutoDense,
    ConcreteDense,
    DenseSettings,
    FlatDense,
    HnswDense,
    IvfPqDense,
    ScalarFp16Dense,
    ScalarInt8Dense,
    TorchDense,
    TuningSettings,
)
from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.retrieval.dense_faiss import INDEX_NAME
from rag_frozen.retrieval.dense_parts import PartMaker
from rag_frozen.retrieval.dense_search import TunableSearch, VectorSearch
from rag_frozen.retrieval.dense_vectors import IDS_NAME, StoredVectors, is_vector_file
from rag_frozen.retrieval.passage_ids import DELETED_NAME

__all__ = [
    "build_search",
    "default_kind",
    "is_dense_file",
    "open_search",
    "recorded_settings",
    "resolve_dense",
    "share_finished",
]

FLAT_UP_TO = 1_000_000
TUNED_AT = 20
"""Recall is tuned among the first 20."""
_NOT_STRUCTURE = ("recall", "tuning")
_log = logging.getLogger(__name__)


def default_kind(n_passages: int) -> str:
    """The kind that ``auto`` stands for: exact in memory up to a million passages (at most 3 GB
    with 768 dimensions), inverted lists with 4-bit codes beyond.

    >>> default_kind(1_000_000), default_kind(21_015_324)
    ('flat', 'ivf-pq-fastscan')
    """
    return "flat" if n_passages <= FLAT_UP_TO else "ivf-pq-fastscan"


def resolve_dense(settings: DenseSettings, n_passages: int) -> ConcreteDense:
    """Put the kind that fits the corpus in the place of ``auto``."""
    if not isinstance(settings, AutoDense):
        return settings
    shared = settings.model_dump(include=set(FlatDense.model_fields) - {"kind"})
    if default_kind(n_passages) == "flat":
        return FlatDense(kind="flat", **shared)
    tuned = settings.model_dump(include={"recall", "tuning", "seed"})
    return IvfPqDense(kind="ivf-pq-fastscan", **shared, **tuned)


def recorded_settings(folder: Path) -> ConcreteDense:
    """Read the recipe of a finished dense index.

    Raises:
        ArtifactDamagedError: when it is none that this version writes.
    """
    recipe = load_manifest(folder, kind="index").recipe
    try:
        found: DenseSettings = TypeAdapter(DenseSettings).validate_python(recipe)
    except ValidationError as error:
        raise ArtifactDamagedError(
            f"The dense index in {folder} is of the kind {recipe.get('kind')!r}, which this "
            "version does not write. Build it again with: rag-frozen index build RECIPE; its "
            "vectors are taken over, not encoded again."
        ) from error
    return resolve_dense(found, 0)


def build_search(
    settings: ConcreteDense,
    folder: Path,
    *,
    queries: Callable[[TuningSettings], Vectors],
    progress: Callable[[int], None] = lambda done: None,
    elsewhere: PartMaker | None = None,
) -> dict[str, float]:
    """Write what an engine needs beside the vectors of ``folder``, and tune it.

    Args:
        settings: of the recipe.
        folder: holds all vectors; a build that was stopped in it goes on.
        queries: encodes the queries on which recall is measured, ``[q, d]``; called by tuned kinds.
        progress: is told the number of vectors added.
        elsewhere: codes parts of the vectors in place of this process, for the kinds whose parts
            can be merged: all that code vectors but HNSW.

    Returns:
        For the manifest: tuned parameters by name, ``recall`` and ``tuning_queries``; the
        greatest norm, where the engine wants it.

    Raises:
        CheckFailedError: when the recall cannot be reached; the index stays for another try.
        OSError: when the disk refuses.
    """
    vectors = StoredVectors(folder)
    match settings:
        case FlatDense():
            return {}
        case TorchDense():
            return {"greatest_norm": vectors.greatest_norm()}
        case ScalarFp16Dense():
            from rag_frozen.retrieval.dense_scalar import build_scalar

            build_scalar(folder, vectors, bits=16, progress=progress, elsewhere=elsewhere)
            return {}
        case ScalarInt8Dense():
            from rag_frozen.retrieval.dense_scalar import Int8Search, build_scalar

            build_scalar(
                folder,
                vectors,
                bits=8,
                seed=settings.seed,
                progress=progress,
                elsewhere=elsewhere,
            )
            return _tuned(Int8Search(folder, vectors, refine=1), vectors, queries, settings)
        case IvfPqDense():
            from rag_frozen.retrieval.dense_ivf import IvfSearch, build_ivf

            build_ivf(
                folder,
                vectors,
                lists=settings.lists,
                subvector=settings.subvector,
                seed=settings.seed,
                progress=progress,
                elsewhere=elsewhere,
            )
            return _tuned(IvfSearch(folder, vectors), vectors, queries, settings)
        case HnswDense():
            from rag_frozen.retrieval.dense_hnsw import HnswSearch, build_hnsw

            build_hnsw(
                folder,
                vectors,
                links=settings.links,
                build_ef=settings.build_ef,
                progress=progress,
            )
            return _tuned(HnswSearch(folder, vectors), vectors, queries, settings)


def open_search(
    settings: ConcreteDense,
    folder: Path,
    measures: Mapping[str, float],
    *,
    device: str | None = None,
) -> VectorSearch:
    """Open the engine of a finished index.

    Args:
        settings: its recipe.
        folder: its files.
        measures: what :func:`build_search` returned.
        device: for the engine that has one.

    Raises:
        ArtifactDamagedError: when files or measures are missing or cannot be read.
    """
    vectors = StoredVectors(folder)
    try:
        match settings:
            case FlatDense():
                from rag_frozen.retrieval.dense_flat import FlatSearch

                return FlatSearch(vectors)
            case TorchDense():
                from rag_frozen.retrieval.dense_torch import TorchSearch

                norm = measures["greatest_norm"]
                return TorchSearch(vectors, pool=settings.pool, device=device, greatest_norm=norm)
            case ScalarFp16Dense():
                from rag_frozen.retrieval.dense_scalar import SixteenBitSearch

                return SixteenBitSearch(folder, vectors)
            case ScalarInt8Dense():
                from rag_frozen.retrieval.dense_scalar import Int8Search

                return Int8Search(folder, vectors, refine=int(measures["refine"]))
            case IvfPqDense():
                from rag_frozen.retrieval.dense_ivf import IvfSearch

                n_probe, refine = int(measures["n_probe"]), int(measures["refine"])
                return IvfSearch(folder, vectors, n_probe=n_probe, refine=refine)
            case HnswDense():
                from rag_frozen.retrieval.dense_hnsw import HnswSearch

                return HnswSearch(folder, vectors, ef_search=int(measures["ef_search"]))
    except KeyError as error:
        raise ArtifactDamagedError(
            f"The manifest of the dense index in {folder} lacks {error}, which its building "
            "measures. Remove the folder and build it again with: rag-frozen index build RECIPE"
        ) from error


def is_dense_file(path: Path) -> bool:
    """True for the files of a finished dense index, false for what a build leaves on its way."""
    return path.name in (IDS_NAME, DELETED_NAME, INDEX_NAME) or is_vector_file(path)


def share_finished(
    root: Path | None,
    *,
    name: str,
    recipe: Mapping[str, Any],  # Any: JSON
    inputs: Mapping[str, str],
    into: Path,
) -> None:
    """Let the vectors of a finished index stand in ``into``, if they are those that would be made.

    That is so when corpus, encoder, their type and the shards' size are equal. The engine's file
    is shared too when only recall or tuning differ.
    """
    wanted = _vectors_identity(recipe)
    for folder in list_artifacts(root, "index", name=name):
        try:
            manifest = load_manifest(folder, kind="index")
        except ArtifactError:
            continue
        if manifest.inputs != inputs or _vectors_identity(manifest.recipe) != wanted:
            continue
        files = [Path(file) for file in manifest.files if is_vector_file(Path(file))]
        if _structure(manifest.recipe) == _structure(recipe):
            files += [Path(file) for file in manifest.files if file == INDEX_NAME]
        into.mkdir(parents=True, exist_ok=True)
        for file in files:
            link_or_copy(folder / file, into / file)
        _log.info("The vectors of %s are taken over from %s", name, folder)
        return


def _tuned(
    search: TunableSearch,
    vectors: StoredVectors,
    encode: Callable[[TuningSettings], Vectors],
    settings: ScalarInt8Dense | IvfPqDense | HnswDense,
) -> dict[str, float]:
    from rag_frozen.retrieval.dense_tuning import exact_neighbours, tune

    queries = np.ascontiguousarray(encode(settings.tuning), dtype=np.float32)
    truth = exact_neighbours(vectors, queries, k=TUNED_AT)
    found = tune(search, queries, truth, target=settings.recall)
    measures: dict[str, float] = {
        f"recall@{TUNED_AT}": found.recall,
        "tuning_queries": len(queries),
    }
    if search.breadth_name:
        measures[search.breadth_name] = found.breadth
    if len(search.refinements) > 1:
        measures["refine"] = found.refine
    _log.info("Tuned to recall@%d %.4f: %s", TUNED_AT, found.recall, measures)
    return measures


def _vectors_identity(recipe: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides the bytes of the vectors, beside corpus and encoder; ``dtype`` is what an older
    recipe called ``vectors``."""
    stored = recipe.get("vectors", recipe.get("dtype"))
    return recipe.get("encoder"), recipe.get("shard_size"), stored


def _structure(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in recipe.items() if name not in _NOT_STRUCTURE}
