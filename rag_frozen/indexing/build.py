"""Build what an index recipe names: the corpus store, the BM25 index, the dense index.

Each is an artifact of its own, found again by its fingerprint; what is finished is not built
twice. Vectors are encoded into shards beside the artifact, so that a build that was stopped goes
on where it was.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from rag_frozen.artifacts import (
    ModelRecord,
    artifact_folder,
    artifact_root,
    fingerprint,
    link_or_copy,
    mark_current,
    name_folder,
    storage_errors,
    write_artifact,
)
from rag_frozen.corpus import build_corpus_from, open_corpus
from rag_frozen.corpus.parallel import Executor
from rag_frozen.indexing import encoders
from rag_frozen.indexing.adopted_lucene import corpus_from_lucene
from rag_frozen.indexing.bm25 import (
    bm25_inputs,
    build_bm25,
    count_segments,
    segments_advice,
)
from rag_frozen.indexing.dense import build_search, is_dense_file, resolve_dense, share_finished
from rag_frozen.indexing.executors import open_executor, parts_on, refuse_address, shards_on
from rag_frozen.indexing.fitting import refuse_what_cannot_fit
from rag_frozen.indexing.parts import (
    BuiltIndex,
    BuiltPart,
    Report,
    finished_part,
    found_part,
    part_settings,
)
from rag_frozen.indexing.sources import corpus_source
from rag_frozen.indexing.tuning_queries import tuning_texts
from rag_frozen.recipes.index import IndexRecipe, LuceneCorpus
from rag_frozen.retrieval.dense_shards import encode_corpus

__all__ = ["build_bm25_part", "build_index"]

_log = logging.getLogger(__name__)


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
    settings = part_settings(recipe, "bm25", corpus.n_passages)
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
        segments = count_segments(recipe.bm25, draft.folder)
        draft.measures["segments"] = segments
        if advice := segments_advice(recipe.bm25, segments):
            _log.warning("%s", advice)
    return found_part(target, "bm25", time.perf_counter() - began)


def _dense(
    recipe: IndexRecipe,
    corpus: BuiltPart,
    root: Path | None,
    report: Report,
    executor: Executor | None,
) -> BuiltPart:
    assert recipe.dense is not None
    encoder = encoders.make_encoder(recipe.dense.encoder)
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
                encoders.make_encoder,
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
            elsewhere=None if executor is None else parts_on(executor, shards),
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


def _step(report: Report, name: str) -> Callable[[int, int | None], None]:
    return lambda done, total: report(name, done, total)
