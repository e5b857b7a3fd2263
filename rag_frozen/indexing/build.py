"""Build what an index recipe names: the corpus store, the BM25 index, the dense index.

Each is an artifact of its own, found again by its fingerprint; what is finished is not built
twice. Vectors are encoded into shards beside the artifact, so that a build that was stopped goes
on where it was.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rag_frozen.artifacts import (
    Manifest,
    ModelRecord,
    artifact_folder,
    artifact_root,
    find_artifact,
    fingerprint,
    link_or_copy,
    load_manifest,
    mark_current,
    name_folder,
    storage_errors,
    write_artifact,
)
from rag_frozen.corpus import ArrowPassageStore, build_corpus_from, open_corpus
from rag_frozen.corpus.parallel import Executor
from rag_frozen.errors import (
    ArtifactDamagedError,
    ArtifactMismatchError,
    ArtifactMissingError,
    RecipeError,
)
from rag_frozen.indexing.bm25 import (
    Bm25Retriever,
    bm25_identity,
    bm25_inputs,
    build_bm25,
    corpus_from_lucene,
    count_segments,
    open_bm25_engine,
    recount,
)
from rag_frozen.indexing.dense import (
    build_search,
    is_dense_file,
    open_search,
    recorded_settings,
    resolve_dense,
    share_finished,
)
from rag_frozen.indexing.executors import open_executor, refuse_address, shards_on
from rag_frozen.indexing.fitting import refuse_what_cannot_fit
from rag_frozen.indexing.sources import corpus_source
from rag_frozen.indexing.tuning_queries import tuning_texts
from rag_frozen.models.source import resolve_model
from rag_frozen.recipes.index import (
    Bm25Settings,
    DprEncoderSettings,
    EncoderSettings,
    IndexRecipe,
    LuceneCorpus,
)
from rag_frozen.retrieval.dense_encoders import DprEncoder, Encoder, SentenceEncoder
from rag_frozen.retrieval.dense_search import DenseRetriever
from rag_frozen.retrieval.dense_vectors import encode_corpus

__all__ = [
    "BuiltIndex",
    "BuiltPart",
    "Report",
    "build_bm25_part",
    "build_index",
    "check_agreement",
    "finished_part",
    "found_part",
    "index_parts",
    "make_encoder",
    "open_bm25",
    "open_dense",
    "open_store",
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


def build_index(
    recipe: IndexRecipe, *, root: Path | None = None, report: Report = lambda *_: None
) -> BuiltIndex:
    """Build the recipe's artifacts, or find those that are there.

    Raises:
        InputError, DataFormatError: when the corpus' files, the executor or an address as ``root``
            cannot be used.
        ModelMissingError: when an encoder is not at hand.
        StorageError: when the disk is full, or a dense index fits neither disk nor memory; what was
            finished stays.
    """
    refuse_address(artifact_root(root))
    with open_executor(recipe.executor) as executor:
        corpus = _corpus(recipe, root, report, executor)
        parts = [corpus]
        if recipe.bm25 is not None:
            parts.append(build_bm25_part(recipe, corpus, root, report))
        if recipe.dense is not None:
            parts.append(_dense(recipe, corpus, root, report, executor))
    mark_current(corpus.folder)
    return BuiltIndex(recipe.name, tuple(parts), recipe.bm25)


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
            inputs["encoder"] = make_encoder(recipe.dense.encoder).digest
        mark = fingerprint(_settings(recipe, role, corpus.n_passages), inputs)
        folder = artifact_folder(root, "index", name=f"{recipe.name}-{role}", fingerprint=mark)
        if not folder.is_dir():
            raise ArtifactMissingError(
                f"The {role} index of {recipe.name} is not built over this corpus. Build it "
                f"with: rag-frozen index build {recipe.name}"
            )
        parts.append(found_part(folder, role))
    return BuiltIndex(recipe.name, tuple(parts), recipe.bm25)


def make_encoder(settings: EncoderSettings, *, device: str | None = None) -> Encoder:
    """Make the encoder that a recipe names."""
    match settings:
        case DprEncoderSettings():
            return DprEncoder(
                resolve_model(settings.question_model, revision=settings.question_revision),
                resolve_model(settings.passage_model, revision=settings.passage_revision),
                device=device,
            )
        case _:
            return SentenceEncoder(
                resolve_model(settings.model, revision=settings.revision), device=device
            )


def open_store(built: BuiltIndex) -> ArrowPassageStore:
    """Open the corpus' passages."""
    return open_corpus(built.part("corpus").folder)


def open_bm25(built: BuiltIndex) -> Bm25Retriever:
    """Open the BM25 index, after checking that it is over the corpus."""
    part = built.part("bm25")
    manifest = _agreeing(built, part)
    return open_bm25_engine(part.folder, manifest, built.bm25)


def open_dense(built: BuiltIndex, encoder: Encoder, *, device: str | None = None) -> DenseRetriever:
    """Open the dense index, after checking that it is over the corpus and of this encoder.

    ``device`` is for the kind that searches on one.

    Raises:
        ArtifactMismatchError: when it was built with another encoder.
    """
    part = built.part("dense")
    manifest = _agreeing(built, part)
    made_by = manifest.models["encoder"]
    if made_by.digest != encoder.digest:
        raise ArtifactMismatchError(
            f"The dense index of {built.name} was built with encoder {made_by.name} (digest "
            f"{made_by.digest[:12]}), the pipeline asks for {encoder.name} "
            f"({encoder.digest[:12]}). Name the first in indexes/{built.name}.yaml, or rebuild "
            f"with: rag-frozen index build {built.name}"
        )
    settings = recorded_settings(part.folder)
    search = open_search(settings, part.folder, manifest.measures, device=device)
    return DenseRetriever(encoder, part.folder, search=search)


def check_agreement(built: BuiltIndex, part: BuiltPart) -> Manifest | None:
    """Check that an index is over the corpus it stands beside; return its manifest. The passages
    of a BM25 index are counted again.

    Raises:
        ArtifactMismatchError: when it is over another corpus.
        ArtifactDamagedError: when both list different passage ids.
    """
    if part.role == "corpus":
        return None
    manifest = _agreeing(built, part)
    if part.role == "bm25":
        recount(open_bm25(built), part.folder, corpus=built.part("corpus").folder)
    return manifest


def _agreeing(built: BuiltIndex, part: BuiltPart) -> Manifest:
    manifest = load_manifest(part.folder, kind="index")
    corpus = load_manifest(built.part("corpus").folder, kind="corpus")
    if manifest.inputs.get("corpus") != corpus.fingerprint:
        raise ArtifactMismatchError(
            f"The {part.role} index in {part.folder} is over corpus "
            f"{manifest.inputs.get('corpus')}, the pipeline uses corpus {corpus.fingerprint}. "
            f"Rebuild it with: rag-frozen index build {built.name}"
        )
    if manifest.digests.get("ids") != corpus.digests.get("ids"):
        raise ArtifactDamagedError(
            f"The {part.role} index in {part.folder} and its corpus list different passage ids. "
            f"Remove {part.folder} and rebuild it with: rag-frozen index build {built.name}"
        )
    return manifest


def _corpus(
    recipe: IndexRecipe, root: Path | None, report: Report, executor: Executor | None
) -> BuiltPart:
    began = time.perf_counter()
    told = _step(report, "corpus")
    if isinstance(recipe.corpus, LuceneCorpus):
        artifact = corpus_from_lucene(recipe.corpus, root, name=recipe.name, progress=told)
    else:
        source = corpus_source(recipe, executor=executor)
        artifact = build_corpus_from(source, root, name=recipe.name, progress=told)
    return found_part(artifact.folder, "corpus", time.perf_counter() - began, artifact.reused)


def build_bm25_part(
    recipe: IndexRecipe, corpus: BuiltPart, root: Path | None, report: Report
) -> BuiltPart:
    """Build the BM25 index over a finished corpus, or find it."""
    assert recipe.bm25 is not None
    settings = _settings(recipe, "bm25", corpus.n_passages)
    inputs = bm25_inputs(recipe.bm25, corpus.fingerprint, fetch=True)
    name = f"{recipe.name}-bm25"
    target = artifact_folder(root, "index", name=name, fingerprint=fingerprint(settings, inputs))
    if (done := finished_part(target, "bm25")) is not None:
        return done
    began = time.perf_counter()
    store = open_corpus(corpus.folder)
    report("bm25 index", 0, len(store))
    with write_artifact(target, kind="index", name=name, recipe=settings, inputs=inputs) as draft:
        count, ids = build_bm25(
            recipe.bm25,
            draft.folder,
            store,
            corpus=corpus.folder,
            progress=lambda done: report("bm25 index", done, len(store)),
        )
        draft.counts["passages"] = count
        draft.digests["ids"] = ids
        # a measure, no count: when tantivy merges is a matter of time
        draft.measures["segments"] = count_segments(recipe.bm25, draft.folder)
    return found_part(target, "bm25", time.perf_counter() - began)


def _dense(
    recipe: IndexRecipe,
    corpus: BuiltPart,
    root: Path | None,
    report: Report,
    executor: Executor | None,
) -> BuiltPart:
    assert recipe.dense is not None
    encoder = make_encoder(recipe.dense.encoder)
    chosen = resolve_dense(recipe.dense, corpus.n_passages)
    settings = chosen.model_dump(mode="json")
    inputs = {"corpus": corpus.fingerprint, "encoder": encoder.digest}
    name = f"{recipe.name}-dense"
    mark = fingerprint(settings, inputs)
    target = artifact_folder(root, "index", name=name, fingerprint=mark)
    if (done := finished_part(target, "dense")) is not None:
        return done
    began = time.perf_counter()
    store = open_corpus(corpus.folder)
    report("dense index", 0, len(store))
    shards = name_folder(root, "index", name=name) / f"unfinished-{mark}"
    with storage_errors(shards):
        share_finished(root, name=name, recipe=settings, inputs=inputs, into=shards)
        there = sum(path.stat().st_size for path in shards.glob("*") if path.is_file())
        refuse_what_cannot_fit(chosen, len(store), encoder.width, folder=shards, there=there)
        elsewhere = None
        if executor is not None:
            elsewhere = shards_on(
                executor,
                make_encoder,
                recipe.dense.encoder,
                digest=encoder.digest,
                dtype=chosen.vectors,
                folder=shards,
            )
        count, ids = encode_corpus(
            shards,
            (passage for batch in store.iter_passages() for passage in batch),
            encoder,
            n_passages=len(store),
            shard_size=chosen.shard_size,
            dtype=chosen.vectors,
            progress=lambda done: report("dense index", done, len(store)),
            elsewhere=elsewhere,
        )
        measures = build_search(
            chosen,
            shards,
            queries=lambda tuning: encoder.encode_questions(tuning_texts(tuning, store)),
            progress=lambda done: report("dense search", done, len(store)),
        )
    model = ModelRecord(name=encoder.name, digest=encoder.digest)
    with write_artifact(
        target, kind="index", name=name, recipe=settings, inputs=inputs, models={"encoder": model}
    ) as draft:
        for path in sorted(path for path in shards.iterdir() if is_dense_file(path)):
            link_or_copy(path, draft.folder / path.name)  # a killed build looks for it here
        draft.counts["passages"] = count
        draft.digests["ids"] = ids
        draft.measures.update(measures)
    shutil.rmtree(shards, ignore_errors=True)
    return found_part(target, "dense", time.perf_counter() - began)


def _settings(recipe: IndexRecipe, role: str, n_passages: int) -> dict[str, object]:
    if role == "dense" and recipe.dense is not None:
        return resolve_dense(recipe.dense, n_passages).model_dump(mode="json")
    assert recipe.bm25 is not None
    return bm25_identity(recipe.bm25)


def _step(report: Report, name: str) -> Callable[[int, int | None], None]:
    return lambda done, total: report(name, done, total)


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
