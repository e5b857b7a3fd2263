"""BM25 by Lucene in an index: built, killed and built again, adopted from elsewhere, recounted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rag_frozen.artifacts import load_manifest, verify
from rag_frozen.errors import (
    ArtifactDamagedError,
    ArtifactMismatchError,
    ArtifactMissingError,
    RecipeError,
    StorageError,
)
from rag_frozen.indexing import build as building
from rag_frozen.indexing import opening, parts
from rag_frozen.indexing.bm25 import bm25_identity, recount
from rag_frozen.indexing.plan import plan_index
from rag_frozen.recipes.index import IndexRecipe, LuceneBm25, LuceneIndex, TantivyBm25
from rag_frozen.retrieval.lucene_build import build_lucene
from rag_frozen.types import Passage, Question
from tests.artifacts.disks import small_disk
from tests.lucene import skip_without_lucene

QUESTIONS = [Question("a", "river"), Question("b", "passage 7"), Question("c", "rivers of mud 31")]


@pytest.fixture(autouse=True)
def _lucene() -> None:
    skip_without_lucene()


def rows(path: Path, n: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for row in range(n):
            text = f"passage {row} of the river {row % 7} mud" + " water" * (row % 5)
            file.write(json.dumps({"id": f"p{row}", "title": f"T{row % 3}", "text": text}) + "\n")
    return path


def recipe(path: Path, **bm25: object) -> IndexRecipe:
    values = {
        "kind": "index",
        "name": "tiny",
        "corpus": {"kind": "files", "path": path},
        "bm25": {"kind": "bm25-lucene", "threads": 2, "heap_mb": 256, **bm25},
    }
    return IndexRecipe.model_validate(values)


def answers(built: parts.BuiltIndex) -> object:
    return opening.open_bm25(built).retrieve(QUESTIONS, k=20)


def test_a_lucene_index_has_the_same_manifest_as_tantivys(tmp_path: Path):
    path = rows(tmp_path / "rows.jsonl")
    ours = building.build_index(recipe(path, k1=1.2, b=0.75, stop_words=False), root=tmp_path)
    theirs = building.build_index(
        recipe(path).model_copy(update={"bm25": TantivyBm25(kind="tantivy")}), root=tmp_path
    )
    lucene, tantivy = (load_manifest(built.part("bm25").folder) for built in (ours, theirs))
    assert (lucene.counts, lucene.digests, lucene.inputs) == (
        tantivy.counts, tantivy.digests, tantivy.inputs,
    )  # fmt: skip
    assert lucene.measures == tantivy.measures == {"segments": 1}
    assert ours.part("bm25").segments == 1
    verify(ours.part("bm25").folder)
    opening.check_agreement(ours, ours.part("bm25"))
    opening.check_agreement(theirs, theirs.part("bm25"))
    assert [
        [hit.passage_id for hit in ranking]
        for ranking in opening.open_bm25(ours).retrieve(QUESTIONS[:2], k=5)
    ] == [
        [hit.passage_id for hit in ranking]
        for ranking in opening.open_bm25(theirs).retrieve(QUESTIONS[:2], k=5)
    ]


def test_threads_and_heap_are_no_part_of_what_an_index_is(tmp_path: Path):
    path = rows(tmp_path / "rows.jsonl")
    first = building.build_index(recipe(path), root=tmp_path)
    more = recipe(path, threads=1, heap_mb=300)
    again = building.build_index(more, root=tmp_path)
    assert again.part("bm25").folder == first.part("bm25").folder
    assert again.part("bm25").reused
    found = parts.index_parts(more, root=tmp_path)
    assert found.part("bm25").folder == first.part("bm25").folder
    other = building.build_index(recipe(path, k1=2.0), root=tmp_path)
    assert other.part("bm25").folder != first.part("bm25").folder


def test_the_settings_of_a_tantivy_index_are_what_they_were():
    assert bm25_identity(TantivyBm25(kind="tantivy")) == {
        "kind": "tantivy", "stemming": True, "stop_words": False,
    }  # fmt: skip


def test_an_index_opens_with_the_settings_it_was_built_with(tmp_path: Path):
    path = rows(tmp_path / "rows.jsonl")
    built = building.build_index(recipe(path, k1=3.0, b=0.0, stop_words=("river",)), root=tmp_path)
    bare = parts.BuiltIndex(built.name, built.parts)
    assert answers(bare) == answers(built)
    [river, number, _] = opening.open_bm25(bare).retrieve(QUESTIONS, k=20)
    assert river == ()
    assert number[0].passage_id == "p7"


_BUILD = """
import sys
from pathlib import Path
from rag_frozen.indexing.build import build_index
from tests.indexing.test_bm25 import recipe
told = lambda *what: print(*what, flush=True)
build_index(recipe(Path(sys.argv[1])), root=Path(sys.argv[2]), report=told)
"""


def test_a_build_that_is_killed_leaves_nothing_that_counts_and_is_made_again(tmp_path: Path):
    path = rows(tmp_path / "rows.jsonl", 8_000)
    whole = building.build_index(recipe(path), root=tmp_path / "whole")
    root = tmp_path / "killed"
    building.build_index(recipe(path).model_copy(update={"bm25": None}), root=root)
    with subprocess.Popen(
        [sys.executable, "-c", _BUILD, str(path), str(root)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("bm25 index") and int(line.split()[2]) >= 4_000:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    with pytest.raises(ArtifactMissingError, match="bm25 index of tiny is not built"):
        parts.index_parts(recipe(path), root=root)
    again = building.build_index(recipe(path), root=root)
    assert again.part("bm25").n_passages == 8_000
    assert answers(again) == answers(whole)
    left = [one.name for one in again.part("bm25").folder.parent.iterdir()]
    assert [name for name in left if not name.startswith(".")] == [again.part("bm25").fingerprint]


def test_a_full_disk_is_told_and_leaves_what_was_finished(tmp_path: Path):
    path = rows(tmp_path / "rows.jsonl", 8_000)
    with small_disk(tmp_path / "disk", kib=8_000) as disk:
        corpus = recipe(path).model_copy(update={"bm25": None})
        building.build_index(corpus, root=disk)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))
        with pytest.raises(StorageError, match="No space left"):
            building.build_index(recipe(path), root=disk)
        assert parts.index_parts(corpus, root=disk).part("corpus").n_passages == 8_000
        assert not list(disk.rglob("segments_*"))


def elsewhere(folder: Path, path: Path, **settings: object) -> Path:
    passages = [Passage(**json.loads(line)) for line in path.read_text().splitlines()]
    build_lucene(folder, reversed(passages), **settings)  # type: ignore[arg-type]
    return folder / "lucene"


def adopting(path: Path, place: Path) -> IndexRecipe:
    settings = LuceneIndex(kind="lucene-index", path=place, heap_mb=256)
    return recipe(path).model_copy(update={"bm25": settings})


def test_an_index_from_elsewhere_is_opened_where_it_lies(tmp_path: Path):
    path = rows(tmp_path / "rows.jsonl")
    place = elsewhere(tmp_path / "other", path)
    built = building.build_index(adopting(path, place), root=tmp_path)
    own = building.build_index(recipe(path), root=tmp_path)
    assert answers(built) == answers(own)
    assert [one.name for one in built.part("bm25").folder.iterdir()].count("lucene.json") == 1
    assert built.part("bm25").size < 1_000
    assert (
        load_manifest(built.part("bm25").folder).digests["ids"]
        == (load_manifest(own.part("bm25").folder).digests["ids"])
    )
    opening.check_agreement(built, built.part("bm25"))
    found = parts.index_parts(adopting(path, place), root=tmp_path)
    assert found.part("bm25").folder == built.part("bm25").folder
    moved = place.rename(tmp_path / "moved")
    again = parts.index_parts(adopting(path, moved), root=tmp_path)
    assert answers(again) == answers(own)


def test_an_index_from_elsewhere_that_changed_is_refused(tmp_path: Path):
    path = rows(tmp_path / "rows.jsonl")
    place = elsewhere(tmp_path / "other", path)
    built = building.build_index(adopting(path, place), root=tmp_path)
    elsewhere(tmp_path / "new", path)
    for old in place.iterdir():
        old.unlink()
    for new in (tmp_path / "new" / "lucene").iterdir():
        new.rename(place / new.name)
    with pytest.raises(ArtifactMismatchError, match="was changed since"):
        opening.open_bm25(built)
    with pytest.raises(ArtifactMissingError, match="bm25 index of tiny is not built"):
        parts.index_parts(adopting(path, place), root=tmp_path)


def test_an_index_of_another_corpus_is_refused_with_the_ids_that_differ(tmp_path: Path):
    place = elsewhere(tmp_path / "other", rows(tmp_path / "other.jsonl", 41))
    with pytest.raises(ArtifactMismatchError, match=r"41 passages, the corpus 40; .* 'p40'"):
        building.build_index(adopting(rows(tmp_path / "rows.jsonl"), place), root=tmp_path)


def test_an_index_that_lost_passages_is_found_when_it_is_recounted(tmp_path: Path):
    built = building.build_index(recipe(rows(tmp_path / "rows.jsonl")), root=tmp_path)
    other = building.build_index(recipe(rows(tmp_path / "more.jsonl", 41)), root=tmp_path / "b")
    same = building.build_index(recipe(rows(tmp_path / "rows.jsonl", 40)), root=tmp_path)
    corpus = other.part("corpus").folder
    with pytest.raises(ArtifactDamagedError, match=r"holds 40 passages, its corpus .* 41"):
        recount(opening.open_bm25(built), built.part("bm25").folder, corpus=corpus)
    recount(
        opening.open_bm25(same),
        same.part("bm25").folder,
        corpus=same.part("corpus").folder,
    )


def test_a_corpus_can_be_read_from_an_index_that_stores_it(tmp_path: Path):
    place = elsewhere(tmp_path / "other", rows(tmp_path / "rows.jsonl"), store_contents=True)
    values = {"kind": "lucene-index", "path": place, "heap_mb": 256}
    made = IndexRecipe.model_validate(
        {"kind": "index", "name": "read", "corpus": values, "bm25": values}
    )
    built = building.build_index(made, root=tmp_path)
    store = opening.open_store(built)
    assert len(store) == 40
    assert store.get(["p3"])[0].text == "passage 3 of the river 3 mud water water water"
    assert [hit.passage_id for hit in opening.open_bm25(built).retrieve(QUESTIONS, k=1)[1]] == [
        "p7"
    ]
    with pytest.raises(RecipeError, match="read from a Lucene index"):
        plan_index(made, root=tmp_path)


def test_a_corpus_read_from_an_index_is_not_read_twice(tmp_path: Path):
    place = elsewhere(tmp_path / "other", rows(tmp_path / "rows.jsonl"), store_contents=True)
    values = {"kind": "lucene-index", "path": place, "heap_mb": 256}
    made = IndexRecipe.model_validate({"kind": "index", "name": "read", "corpus": values})
    first = building.build_index(made, root=tmp_path).part("corpus")
    again = building.build_index(made, root=tmp_path).part("corpus")
    assert (first.reused, again.reused, again.folder) == (False, True, first.folder)


def test_a_file_that_changed_is_found_by_its_checksum(tmp_path: Path):
    path = rows(tmp_path / "rows.jsonl")
    place = elsewhere(tmp_path / "other", path)
    built = building.build_index(adopting(path, place), root=tmp_path)
    [victim] = place.glob("*.doc")
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    victim.write_bytes(damaged)
    with pytest.raises(ArtifactDamagedError, match="CorruptIndex"):
        opening.check_agreement(built, built.part("bm25"))


@pytest.mark.parametrize("named", [{}, {"path": "a", "prebuilt": "b"}])
def test_a_lucene_index_is_named_by_its_path_or_its_name(named: dict[str, str]):
    with pytest.raises(ValueError, match="either path"):
        LuceneIndex.model_validate({"kind": "lucene-index", **named})


def test_a_plan_of_a_lucene_index_is_made_from_a_sample(tmp_path: Path):
    plan = plan_index(recipe(rows(tmp_path / "rows.jsonl", 500)), root=tmp_path)
    [step] = [step for step in plan.steps if step.part == "bm25"]
    assert step.disk_bytes > 1_000
    assert isinstance(recipe(tmp_path).bm25, LuceneBm25)
