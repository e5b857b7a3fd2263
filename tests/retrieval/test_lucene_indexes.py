"""Lucene indexes from elsewhere: Pyserini's prebuilt ones, what they store, whose passages."""

from __future__ import annotations

import hashlib
import sys
import tarfile
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import ArtifactMismatchError, ArtifactMissingError, InputError
from rag_frozen.retrieval.bm25_lucene import LuceneRetriever
from rag_frozen.retrieval.lucene_build import build_lucene
from rag_frozen.retrieval.lucene_contents import LucenePassages
from rag_frozen.retrieval.lucene_ids import check_same_ids, index_digest
from rag_frozen.retrieval.lucene_jvm import start_jvm
from rag_frozen.retrieval.lucene_prebuilt import prebuilt_folder
from rag_frozen.types import Passage, Question
from tests.lucene import skip_without_lucene

PASSAGES = [
    Passage("7", "Aaron", "Aaron is a prophet."),
    Passage("8", '"Heroes"', 'A song; he said "no".\nTwice.'),
    Passage("9", "", "Without a title.\nTwo lines."),
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without_lucene()
    folder = tmp_path_factory.mktemp("stored") / "index"
    build_lucene(folder, PASSAGES, store_contents=True)
    return folder


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, dict[str, object]]:
    """Pyserini's list of prebuilt indexes, which a test may change, and an empty cache."""
    skip_without_lucene()
    start_jvm(heap_mb=256)
    known: dict[str, dict[str, object]] = import_module(
        "pyserini.prebuilt_index_info"
    ).TF_INDEX_INFO
    monkeypatch.setenv("PYSERINI_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name, entry in list(known.items()):
        monkeypatch.setitem(known, name, dict(entry))
    return known


def packed(listed: dict[str, dict[str, object]], stored: Path, folder: Path) -> Path:
    """Have Pyserini list the stored index as a prebuilt one, at an address of this disk."""
    archive = folder / "lucene-index.small.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        made.add(stored / "lucene", arcname="lucene-index.small")
    entry = listed["wikipedia-dpr-100w"]
    entry["filename"], entry["urls"] = archive.name, [archive.as_uri()]
    entry["size compressed (bytes)"] = archive.stat().st_size
    entry["md5"] = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    return archive


def test_stored_passages_come_back_as_they_were(stored: Path):
    passages = LucenePassages(stored)
    assert len(passages) == 3
    everything = [one for batch in passages.iter_passages() for one in batch]
    assert sorted(everything, key=lambda passage: passage.id) == PASSAGES


def test_an_index_of_pyserini_gives_its_raw_passages(tmp_path: Path):
    skip_without_lucene()
    start_jvm(heap_mb=256)
    module = import_module("pyserini.index.lucene")
    indexer = module.LuceneIndexer(args=["-index", str(tmp_path / "i"), "-storeRaw"], threads=1)
    indexer.add_doc_raw('{"id": "3", "contents": "\\"Aaron\\"\\nAaron is a prophet."}')
    indexer.close()
    [passage] = LucenePassages(tmp_path / "i").get(["3"])
    assert passage == Passage("3", "Aaron", "Aaron is a prophet.")


def test_an_index_without_contents_says_what_to_take_instead(tmp_path: Path):
    skip_without_lucene()
    build_lucene(tmp_path / "slim", PASSAGES)
    with pytest.raises(ArtifactMismatchError, match=r"stores no contents .* store_contents: true"):
        LucenePassages(tmp_path / "slim")


def test_a_prebuilt_index_in_the_cache_is_opened_offline(
    listed: dict[str, dict[str, object]],
    stored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    packed(listed, stored, tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ArtifactMissingError, match="HF_HUB_OFFLINE forbids"):
        prebuilt_folder("wikipedia-dpr-100w", fetch=True)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    fetched = prebuilt_folder("wikipedia-dpr-100w", fetch=True)
    assert fetched.parent == tmp_path / "cache" / "indexes"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert prebuilt_folder("wikipedia-dpr-100w", fetch=False) == fetched
    [ranking] = LuceneRetriever(fetched).retrieve([Question("q", "prophets")], k=3)
    assert [hit.passage_id for hit in ranking] == ["7"]


def test_fetching_writes_nothing_to_standard_output(
    listed: dict[str, dict[str, object]],
    stored: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    packed(listed, stored, tmp_path)
    prebuilt_folder("wikipedia-dpr-100w", fetch=True)
    told = capsys.readouterr()
    assert told.out == ""
    assert "Downloading" in told.err


def test_what_cannot_be_fetched_or_is_another_file_is_refused(
    listed: dict[str, dict[str, object]], stored: Path, tmp_path: Path
):
    archive = packed(listed, stored, tmp_path)
    listed["wikipedia-dpr-100w"]["md5"] = "0" * 32
    with pytest.raises(ArtifactMissingError, match="does not match checksum"):
        prebuilt_folder("wikipedia-dpr-100w", fetch=True)
    archive.unlink()
    with pytest.raises(ArtifactMissingError, match="could not be fetched"):
        prebuilt_folder("wikipedia-dpr-100w", fetch=True)
    with pytest.raises(ArtifactMissingError, match="Fetch it with"):
        prebuilt_folder("wikipedia-dpr-100w", fetch=False)


def test_an_unknown_name_is_answered_with_the_nearest(listed: dict[str, dict[str, object]]):
    with pytest.raises(InputError, match="wikipedia-dpr-100w"):
        prebuilt_folder("wikipedia-dpr-100", fetch=True)
    assert "pyserini.encode" not in sys.modules


def test_an_index_is_known_by_its_newest_commit(stored: Path, tmp_path: Path):
    with pytest.raises(ArtifactMissingError, match="no file segments_N"):
        index_digest(tmp_path)
    for number in ("9", "a", "10"):  # base 36: 9 < a < 10
        (tmp_path / f"segments_{number}").write_text(number)
    assert index_digest(tmp_path) == hashlib.sha256(b"10").hexdigest()
    assert index_digest(stored / "lucene") == index_digest(stored / "lucene")


def parts(ids: Iterable[str]) -> list[list[str]]:
    listed = list(ids)
    return [listed[n : n + 3] for n in range(0, len(listed), 3)]


@given(ids=st.lists(st.text(max_size=4), unique=True, max_size=12), order=st.randoms())
def test_the_order_of_ids_does_not_matter(ids: list[str], order):
    shuffled = order.sample(ids, len(ids))
    check_same_ids(
        lambda: parts(shuffled), lambda: parts(ids), folder=Path("i"), corpus_folder=Path("c")
    )


@pytest.mark.parametrize(
    ("index", "corpus", "told"),
    [
        ("abcde", "abcdf", r"1 of its ids are not in the corpus, such as 'e'; 1 ids of the corpus"),
        ("abcd", "abc", r"it holds 4 passages, the corpus 3; 1 of its ids .* such as 'd'"),
        ("aab", "ab", r"1 of its ids stand there twice"),
        ("", "ab", r"2 ids of the corpus are not in it, such as 'a', 'b'"),
    ],
)
def test_ids_that_differ_are_counted_and_named(index: str, corpus: str, told: str):
    with pytest.raises(ArtifactMismatchError, match=told):
        check_same_ids(
            lambda: parts(index), lambda: parts(corpus), folder=Path("i"), corpus_folder=Path("c")
        )
