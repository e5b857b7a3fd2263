"""Add passages to an index and delete passages from it, without building it again.

A change makes new artifacts beside the old ones: they share the old ones' files (as links), hold
the added passages in files of their own, and list the rows of the deleted ones. Only what was added
is read, indexed and encoded. The changed corpus becomes the current one of its name; the old one
stays until it is removed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rag_frozen.artifacts import (
    Manifest,
    ModelRecord,
    artifact_folder,
    atomic_write_text,
    fingerprint,
    link_or_copy,
    load_manifest,
    mark_current,
    name_folder,
    storage_errors,
    temporary_folder,
    write_artifact,
)
from rag_frozen.corpus import open_corpus
from rag_frozen.corpus.store_writing import write_changed_store
from rag_frozen.errors import RecipeError
from rag_frozen.indexing import encoders
from rag_frozen.indexing.bm25 import count_segments
from rag_frozen.indexing.build import build_bm25_part
from rag_frozen.indexing.dense import (
    build_search,
    is_dense_file,
    recorded_settings,
    resolve_dense,
)
from rag_frozen.indexing.gathering import Change, gather_change
from rag_frozen.indexing.parts import (
    BuiltIndex,
    BuiltPart,
    Report,
    finished_part,
    found_part,
    index_parts,
)
from rag_frozen.indexing.tuning_queries import tuning_texts
from rag_frozen.recipes.index import IndexRecipe, LuceneCorpus, LuceneIndex, TantivyBm25
from rag_frozen.retrieval.bm25_tantivy import change_tantivy
from rag_frozen.retrieval.dense_faiss import INDEX_NAME, UNFINISHED_NAME
from rag_frozen.retrieval.dense_shards import encode_shards
from rag_frozen.retrieval.dense_vectors import IDS_NAME, is_vector_file
from rag_frozen.retrieval.passage_ids import PassageIds, write_changed_ids
from rag_frozen.types import Passage

__all__ = ["change_index"]


def change_index(
    recipe: IndexRecipe,
    *,
    add: Iterable[Passage] = (),
    delete: Sequence[str] = (),
    replace: bool = False,
    root: Path | None = None,
    report: Report = lambda *_: None,
) -> BuiltIndex:
    """Change the built corpus of a recipe and every index over it.

    An id that is deleted and added in one change is replaced. A change that was stopped is
    continued by the same call; an equal one that is finished is found again. Added passages are
    read once, into a file beside the corpus; memory holds a batch of them, or one shard while
    they are encoded.

    Args:
        recipe: of the index, which must be built.
        add: passages whose ids are new, or deleted here; they come last.
        delete: ids of passages.
        replace: added passages whose ids are there take the place of those.
        root: artifacts' folder.
        report: is told the progress.

    A Lucene index is built anew from the changed corpus: in its artifacts nothing is shared.

    Raises:
        ArtifactMissingError: when the index is not built.
        RecipeError: when it stands on a Lucene index from elsewhere, which is never changed.
        InputError: when there is nothing to change, an added id is there already or comes twice,
            an added passage has no text, or nothing would be left.
        UnknownPassageError: when an id to delete is not there.
        StorageError: when the disk is full; the old artifacts stay as they are.
    """
    if isinstance(recipe.bm25, LuceneIndex) or isinstance(recipe.corpus, LuceneCorpus):
        raise RecipeError(
            f"The index {recipe.name} stands on a Lucene index from elsewhere, which is never "
            "changed. Build an index of your own over its passages, and change that."
        )
    built = index_parts(recipe, root=root)
    store = open_corpus(built.part("corpus").folder)
    home = name_folder(root, "corpus", name=recipe.name)
    with storage_errors(home), temporary_folder(home) as work:
        change = gather_change(store, work, add=add, delete=delete, replace=replace)
        mark_current(built.part("corpus").folder, before_others=True)
        corpus = _corpus(recipe, built.part("corpus"), change, root)
        parts = [corpus]
        for part in built.parts[1:]:
            make = _bm25 if part.role == "bm25" else _dense
            parts.append(make(recipe, part, corpus, change, root, report))
    mark_current(corpus.folder)
    return BuiltIndex(recipe.name, tuple(parts), recipe.bm25)


def _corpus(recipe: IndexRecipe, base: BuiltPart, change: Change, root: Path | None) -> BuiltPart:
    began = time.perf_counter()
    before = load_manifest(base.folder, kind="corpus")
    home = name_folder(root, "corpus", name=recipe.name)
    with write_artifact(
        home, kind="corpus", name=recipe.name, recipe=before.recipe, by_fingerprint=True
    ) as draft:
        summary = write_changed_store(
            draft.folder,
            base.folder,
            added=change.passages(),
            deleted=change.deleted,
            base_content=before.digests["content"],
        )
        for name in _others(before):
            link_or_copy(base.folder / name, draft / name)
        note = (
            f"{change.n_added:,} passages added to and {len(change.deleted):,} deleted from "
            f"{base.folder.name}"
        )
        atomic_write_text(draft / "changes.txt", _history(base.folder) + note + "\n")
        draft.inputs["content"] = summary.content_digest
        draft.counts.update(before.counts)
        draft.counts["passages"] = summary.n_passages
        draft.digests.update(ids=summary.ids_digest, content=summary.content_digest)
    return found_part(draft.target, "corpus", time.perf_counter() - began)


def _others(manifest: Manifest) -> list[str]:
    """Files of a corpus beside its passages and their table: a dump's aliases and report."""
    own = ("passages", "id-", "deleted-rows", "changes.txt")
    return [name for name in manifest.files if not name.startswith(own)]


def _history(folder: Path) -> str:
    path = folder / "changes.txt"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _bm25(
    recipe: IndexRecipe,
    base: BuiltPart,
    corpus: BuiltPart,
    change: Change,
    root: Path | None,
    report: Report,
) -> BuiltPart:
    if not isinstance(recipe.bm25, TantivyBm25):
        return build_bm25_part(recipe, corpus, root, report)
    before = load_manifest(base.folder, kind="index")
    inputs = {"corpus": corpus.fingerprint}
    mark = fingerprint(before.recipe, inputs)
    target = artifact_folder(root, "index", name=before.name, fingerprint=mark)
    if (done := finished_part(target, "bm25")) is not None:
        return done
    began = time.perf_counter()
    with write_artifact(
        target, kind="index", name=before.name, recipe=before.recipe, inputs=inputs
    ) as draft:
        count, ids = change_tantivy(
            draft.folder,
            base.folder,
            added=change.passages(),
            deleted=change.deleted,
            stemming=bool(before.recipe["stemming"]),
            stop_words=bool(before.recipe["stop_words"]),
            heap_mb=recipe.bm25.heap_mb,
        )
        draft.counts["passages"] = count
        draft.digests["ids"] = ids
        draft.measures["segments"] = count_segments(recipe.bm25, draft.folder)
    report("bm25 index", change.n_added, change.n_added)
    return found_part(target, "bm25", time.perf_counter() - began)


def _dense(
    recipe: IndexRecipe,
    base: BuiltPart,
    corpus: BuiltPart,
    change: Change,
    root: Path | None,
    report: Report,
) -> BuiltPart:
    assert recipe.dense is not None
    before = load_manifest(base.folder, kind="index")
    settings = resolve_dense(recipe.dense, corpus.n_passages)
    same_kind = settings == recorded_settings(base.folder)  # auto chooses by size
    chosen = settings.model_dump(mode="json")
    encoder = encoders.make_encoder(recipe.dense.encoder)
    inputs = {"corpus": corpus.fingerprint, "encoder": encoder.digest}
    mark = fingerprint(chosen, inputs)
    target = artifact_folder(root, "index", name=before.name, fingerprint=mark)
    if (done := finished_part(target, "dense")) is not None:
        return done
    began = time.perf_counter()
    shards = name_folder(root, "index", name=before.name) / f"unfinished-{mark}"
    with storage_errors(shards):
        shards.mkdir(parents=True, exist_ok=True)
        old = [name for name in before.files if is_vector_file(Path(name))]
        for name in old:
            link_or_copy(base.folder / name, shards / name)
        if same_kind and INDEX_NAME in before.files and not (shards / INDEX_NAME).exists():
            link_or_copy(base.folder / INDEX_NAME, shards / UNFINISHED_NAME)
        if change.n_added:
            encode_shards(
                shards,
                change.passages(),
                encoder,
                n_passages=change.n_added,
                shard_size=settings.shard_size,
                first=len(old),
                dtype=settings.vectors,
                progress=lambda done: report("dense index", done, change.n_added),
            )
        ids = PassageIds(base.folder / IDS_NAME)
        counted = write_changed_ids(
            shards, ids, added=change.ids(), deleted=change.deleted, name=IDS_NAME
        )
        store = open_corpus(corpus.folder)
        measures = build_search(
            settings,
            shards,
            queries=lambda tuning: encoder.encode_questions(tuning_texts(tuning, store)),
        )
    model = ModelRecord(name=encoder.name, digest=encoder.digest)
    with write_artifact(
        target, kind="index", name=before.name, recipe=chosen, inputs=inputs,
        models={"encoder": model},
    ) as draft:  # fmt: skip
        for path in sorted(path for path in shards.iterdir() if is_dense_file(path)):
            link_or_copy(path, draft.folder / path.name)
        draft.counts["passages"], draft.digests["ids"] = counted
        draft.measures.update(measures)
    shutil.rmtree(shards, ignore_errors=True)
    return found_part(target, "dense", time.perf_counter() - began)
