"""Dense kinds from recipe to search: built, tuned, recorded, shared, continued, refused."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from rag_frozen.artifacts import load_manifest, verify
from rag_frozen.corpus import open_corpus
from rag_frozen.errors import (
    ArtifactDamagedError,
    ArtifactMismatchError,
    CheckFailedError,
    DataFormatError,
    InputError,
    StorageError,
)
from rag_frozen.indexing import build as building
from rag_frozen.indexing import dense as dense_room
from rag_frozen.indexing import encoders, opening, parts
from rag_frozen.indexing.dense import recorded_settings, resolve_dense
from rag_frozen.indexing.dense_sizes import dense_sizes
from rag_frozen.indexing.tuning_queries import tuning_texts
from rag_frozen.recipes.index import IndexRecipe, TuningSettings
from rag_frozen.retrieval import dense_ivf, dense_parts
from rag_frozen.types import Question
from tests.artifacts.disks import small_disk
from tests.contracts.test_retriever import HashEncoder
from tests.retrieval.clustered import clustered, questions, store

KINDS = ("flat", "scalar-fp16", "scalar-int8", "ivf-pq-fastscan", "hnsw", "exact-torch")
WORDS = [
    "river",
    "stone",
    "bird",
    "cloud",
    "ash",
    "lamp",
    "north",
    "seven",
    "quiet",
    "yellow",
    "market",
    "glass",
]


class Counting(HashEncoder):
    """Counts the passages that it encodes."""

    encoded = 0

    def encode_passages(self, passages):
        Counting.encoded += len(passages)
        return super().encode_passages(passages)


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    Counting.encoded = 0
    monkeypatch.setattr(encoders, "make_encoder", lambda settings, device=None: Counting())


def recipe(folder: Path, kind: str, **changes: object) -> IndexRecipe:
    path = folder / "rows.jsonl"
    if not path.exists():
        rows = (
            {
                "id": f"p{n}",
                "title": f"T{n}",
                "text": f"{WORDS[n % 12]} {WORDS[n % 11]} {WORDS[n % 7] * (n % 5 + 1)} it is. "
                f"Then {WORDS[n % 5]} came with {WORDS[n % 10] * (n % 3 + 1)}.",
            }
            for n in range(120)
        )
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dense = {
        "kind": kind,
        "encoder": {"kind": "sentence-transformers", "model": "any"},
        "shard_size": 50,
        **changes,
    }
    corpus = {"kind": "files", "path": path}
    values = {"kind": "index", "name": "tiny", "corpus": corpus, "dense": dense}
    return IndexRecipe.model_validate(values)


def files(built: parts.BuiltIndex) -> dict[str, str]:
    listed = load_manifest(built.part("dense").folder).files
    return {name: record.sha256 for name, record in listed.items()}


@pytest.mark.parametrize("vectors", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_built_recorded_opened_and_searched(tmp_path: Path, kind: str, vectors: str):
    built = building.build_index(recipe(tmp_path, kind, vectors=vectors), root=tmp_path)
    folder = built.part("dense").folder
    verify(folder)
    assert load_manifest(folder).recipe["kind"] == kind
    assert load_manifest(folder).recipe["vectors"] == vectors
    found = parts.index_parts(recipe(tmp_path, kind, vectors=vectors), root=tmp_path)
    retriever = opening.open_dense(found, Counting(), device="cpu")
    [ranking] = retriever.retrieve([Question("q", "a quiet bird of the north")], k=20)
    assert len(ranking) == 20
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("scalar-int8", {"refine"}),
        ("ivf-pq-fastscan", {"n_probe", "refine"}),
        ("hnsw", {"ef_search"}),
    ],
)
def test_what_was_tuned_and_its_recall_stand_in_the_manifest(
    tmp_path: Path, kind: str, parameters: set[str]
):
    built = building.build_index(recipe(tmp_path, kind, recall=0.9), root=tmp_path)
    measures = load_manifest(built.part("dense").folder).measures
    assert set(measures) == {"recall@20", "tuning_queries", *parameters}
    assert 0.9 <= measures["recall@20"] <= 1
    assert measures["tuning_queries"] == 120
    engine = opening.open_dense(built, Counting()).search
    for name in parameters:
        assert getattr(engine, "refine" if name == "refine" else "breadth") == measures[name]


def test_another_kind_over_the_same_vectors_encodes_nothing(tmp_path: Path):
    flat = building.build_index(recipe(tmp_path, "flat"), root=tmp_path)
    assert Counting.encoded == 120
    for kind in KINDS[1:]:
        other = building.build_index(recipe(tmp_path, kind), root=tmp_path)
        shared = {n: h for n, h in files(other).items() if n != "index.faiss"}
        assert shared == files(flat)
    assert Counting.encoded == 120
    building.build_index(recipe(tmp_path, "flat", vectors="bfloat16"), root=tmp_path)
    building.build_index(recipe(tmp_path, "flat", shard_size=60), root=tmp_path)
    assert Counting.encoded == 360


def test_another_recall_takes_over_the_built_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = building.build_index(recipe(tmp_path, "ivf-pq-fastscan", recall=0.8), root=tmp_path)
    monkeypatch.setattr(dense_parts, "write_file", None)  # nothing is trained or written again
    second = building.build_index(recipe(tmp_path, "ivf-pq-fastscan", recall=0.95), root=tmp_path)
    assert files(first) == files(second)
    assert first.part("dense").folder != second.part("dense").folder


def test_vectors_of_an_index_that_is_removed_stay_with_the_other(tmp_path: Path):
    flat = building.build_index(recipe(tmp_path, "flat"), root=tmp_path)
    other = building.build_index(recipe(tmp_path, "hnsw"), root=tmp_path)
    for path in flat.part("dense").folder.iterdir():
        path.unlink()
    verify(other.part("dense").folder)


def test_an_index_of_an_older_kind_gives_its_vectors_and_is_not_opened(tmp_path: Path):
    old = building.build_index(recipe(tmp_path, "flat"), root=tmp_path).part("dense").folder
    manifest = json.loads((old / "manifest.json").read_text())
    manifest["recipe"]["kind"] = "faiss-flat"
    manifest["recipe"]["dtype"] = manifest["recipe"].pop("vectors")
    (old / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactDamagedError, match=r"'faiss-flat'.*taken over"):
        recorded_settings(old)
    old.rename(old.with_name("0123456789abcdef"))
    building.build_index(recipe(tmp_path, "flat"), root=tmp_path)
    assert Counting.encoded == 120


@pytest.mark.parametrize("step", ["share_finished", "encode_corpus", "build_search"])
@pytest.mark.parametrize("kind", ["scalar-int8", "ivf-pq-fastscan"])
def test_a_build_that_dies_after_a_step_ends_in_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, step: str
):
    whole = building.build_index(recipe(tmp_path, kind), root=tmp_path / "whole")
    does = getattr(building, step)

    def dies(*args: object, **kwargs: object) -> None:
        does(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(building, step, dies)
    with pytest.raises(KeyboardInterrupt):
        building.build_index(recipe(tmp_path, kind), root=tmp_path / "cut")
    monkeypatch.setattr(building, step, does)
    resumed = building.build_index(recipe(tmp_path, kind), root=tmp_path / "cut")
    assert files(resumed) == files(whole)
    measures = [load_manifest(b.part("dense").folder).measures for b in (whole, resumed)]
    assert measures[0] == measures[1]


def test_a_recall_out_of_reach_is_an_error_and_what_was_built_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # one list is all there is, and 4 bits for 16 dimensions tell hardly anything apart
    wanted = {"subvector": 16, "lists": 1, "recall": 1.0}
    with monkeypatch.context() as patch:
        patch.setattr(dense_ivf, "_REFINEMENTS", (1, 2))
        with pytest.raises(CheckFailedError, match=r"recall@20 1\.0: the best measured on 120 q"):
            building.build_index(recipe(tmp_path, "ivf-pq-fastscan", **wanted), root=tmp_path)
    building.build_index(recipe(tmp_path, "ivf-pq-fastscan", **wanted), root=tmp_path)
    assert Counting.encoded == 120


def test_a_full_disk_keeps_the_finished_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk fills while the build goes on: before it, too small a disk is refused."""
    monkeypatch.setattr(building, "refuse_what_cannot_fit", lambda *_, **__: None)
    settings = recipe(tmp_path, "flat", vectors="float32")
    whole = building.build_index(settings, root=tmp_path / "whole")
    with small_disk(tmp_path / "disk", kib=400) as disk:
        filler = disk / "filler"

        def fills(role: str, done: int, total: int | None) -> None:
            if role == "dense index" and not filler.exists():  # a shard takes 3,328 bytes
                filler.write_bytes(bytes(shutil.disk_usage(disk).free - 11_000))

        Counting.encoded = 0
        with pytest.raises(StorageError, match="bytes free"):
            building.build_index(settings, root=disk, report=fills)
        kept = len(list(disk.rglob("unfinished-*/vectors-*.npy")))
        assert kept in (1, 2)
        filler.unlink()
        Counting.encoded = 0
        built = building.build_index(settings, root=disk)
        assert Counting.encoded == 120 - 50 * kept
        assert files(built) == files(whole)


def test_an_encoder_of_another_width_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built = building.build_index(recipe(tmp_path, "hnsw"), root=tmp_path)
    wider = Counting()
    wider.width = 48  # type: ignore[misc]
    with pytest.raises(ArtifactMismatchError, match=r"vectors of 16, hash makes vectors of 48"):
        opening.open_dense(built, wider)


def test_a_manifest_without_tuned_values_is_damaged(tmp_path: Path):
    built = building.build_index(recipe(tmp_path, "hnsw"), root=tmp_path)
    path = built.part("dense").folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["measures"]["ef_search"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactDamagedError, match="lacks 'ef_search'"):
        opening.open_dense(built, Counting())


def test_auto_is_exact_for_small_corpora_and_lists_for_large():
    settings = recipe_of_auto()
    small, large = resolve_dense(settings, 1_000_000), resolve_dense(settings, 1_000_001)
    assert (small.kind, large.kind) == ("flat", "ivf-pq-fastscan")
    assert small.vectors == large.vectors == "bfloat16"
    assert getattr(large, "recall", None) == 0.97


def recipe_of_auto():  # type: ignore[no-untyped-def]
    values = {
        "kind": "index",
        "name": "tiny",
        "corpus": {"kind": "pocket"},
        "dense": {
            "kind": "auto",
            "encoder": {"kind": "sentence-transformers", "model": "any"},
            "vectors": "bfloat16",
            "recall": 0.97,
        },
    }
    return IndexRecipe.model_validate(values).dense


def test_auto_is_the_same_index_as_the_kind_it_stands_for(tmp_path: Path):
    auto = building.build_index(recipe(tmp_path, "auto"), root=tmp_path)
    flat = building.build_index(recipe(tmp_path, "flat"), root=tmp_path)
    assert auto.part("dense").folder == flat.part("dense").folder
    assert parts.index_parts(recipe(tmp_path, "auto"), root=tmp_path).parts[1].reused


def test_tuning_queries_are_sentences_drawn_by_seed_or_those_of_a_file(tmp_path: Path):
    built = building.build_index(recipe(tmp_path, "flat"), root=tmp_path)
    corpus = open_corpus(built.part("corpus").folder)
    drawn = tuning_texts(TuningSettings(n=30), corpus)
    assert drawn == tuning_texts(TuningSettings(n=30), corpus)
    assert drawn != tuning_texts(TuningSettings(n=30, seed=1), corpus)
    whole = [passage.text for batch in corpus.iter_passages() for passage in batch]
    assert len(drawn) == 30
    assert all(any(text in one and text != one for one in whole) for text in drawn)
    assert len(tuning_texts(TuningSettings(n=500), corpus)) == 120

    plain, rows = tmp_path / "q.txt", tmp_path / "q.jsonl.gz"
    plain.write_text("who wrote hamlet\n\nwhere is the nile\n")
    rows.write_bytes(gzip.compress(b'{"question": "who wrote hamlet", "id": "1"}\n'))
    of_file = TuningSettings(queries=plain)
    assert tuning_texts(of_file, corpus) == ["who wrote hamlet", "where is the nile"]
    assert tuning_texts(TuningSettings(queries=rows), corpus) == ["who wrote hamlet"]
    for content, error, said in (
        (b"", InputError, "hold no question"),
        (b'{"text": "x"}', DataFormatError, "no field question"),
        (b"\xff\xfe\xfa", InputError, "cannot be read"),
    ):
        plain.write_bytes(content)
        with pytest.raises(error, match=said):
            tuning_texts(of_file, corpus)
    with pytest.raises(InputError, match="cannot be read"):
        tuning_texts(TuningSettings(queries=tmp_path / "none"), corpus)


@pytest.mark.parametrize("kind", KINDS)
def test_predicted_sizes_are_those_of_the_files(tmp_path: Path, kind: str):
    n, width = 2_500, 32
    store(tmp_path, clustered(n))
    tuned = {"recall": 0.5} if kind in ("scalar-int8", "ivf-pq-fastscan", "hnsw") else {}
    settings = resolve_dense(recipe(tmp_path, kind, **tuned).dense, n)  # type: ignore[arg-type]
    dense_room.build_search(settings, tmp_path, queries=lambda _: questions(20))
    size = sum(p.stat().st_size for p in tmp_path.iterdir() if dense_room.is_dense_file(p))
    # ids are numbers of up to four digits, and Arrow keeps 4 bytes of offset for each
    predicted = dense_sizes(settings, n, width, id_bytes=8)
    assert size == pytest.approx(predicted.disk, rel=0.06)
    assert predicted.own + predicted.mapped >= n * width / 4
