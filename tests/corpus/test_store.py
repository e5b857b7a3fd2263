"""The passage store: what went in comes out, by id and by row; damage is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_frozen.artifacts import verify
from rag_frozen.corpus import ArrowPassageStore, build_corpus, chunk_text, open_corpus
from rag_frozen.corpus.ids import ids_digest
from rag_frozen.corpus.store_writing import write_changed_store, write_store
from rag_frozen.errors import (
    ArtifactDamagedError,
    DataFormatError,
    InputError,
    UnknownPassageError,
)
from rag_frozen.protocols import PassageStore
from rag_frozen.types import Passage

text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=60)
corpora = st.lists(
    st.builds(Passage, text.filter(bool), text, text), max_size=40, unique_by=lambda p: p.id
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(passages=corpora, data=st.data())
def test_what_went_in_comes_out(tmp_path_factory, passages, data):
    folder = tmp_path_factory.mktemp("store")
    summary = write_store(folder, passages)
    store = ArrowPassageStore(folder)
    assert isinstance(store, PassageStore)
    assert len(store) == summary.n_passages == len(passages)
    assert [p for batch in store.iter_passages(7) for p in batch] == passages
    wanted = data.draw(st.permutations(passages))
    assert store.get([p.id for p in wanted]) == wanted


def test_unknown_ids_are_named(tmp_path: Path):
    write_store(tmp_path, [Passage("a", "t", "x")])
    with pytest.raises(UnknownPassageError, match="'b', 'c'"):
        ArrowPassageStore(tmp_path).get(["a", "b", "c"])


def test_passages_of_many_batches_are_found(tmp_path: Path):
    passages = [Passage(f"id-{n}", f"t{n}", f"text {n}") for n in range(9_001)]
    write_store(tmp_path, iter(passages))
    store = ArrowPassageStore(tmp_path)
    assert store.get(["id-9000", "id-0", "id-4096"]) == [passages[n] for n in (9_000, 0, 4_096)]
    assert store.row(8_999) == passages[8_999]
    with pytest.raises(IndexError):
        store.row(9_001)


@pytest.mark.parametrize("file", ["passages.arrow", "id-hashes.npy", "id-rows.npy"])
def test_a_truncated_file_is_told(tmp_path: Path, file: str):
    write_store(tmp_path, [Passage(str(n), "t", "x" * 50) for n in range(200)])
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArtifactDamagedError, match="corpus build"):
        ArrowPassageStore(tmp_path)


def write_rows(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_corpus_is_found_again_by_its_content_not_its_files_name(tmp_path: Path):
    rows = [{"id": str(n), "title": "t", "text": f"text {n}"} for n in range(5)]
    one = build_corpus(write_rows(tmp_path / "a.jsonl", rows), tmp_path / "root", name="c")
    two = build_corpus(write_rows(tmp_path / "b.jsonl", rows), tmp_path / "root", name="c")
    other = build_corpus(write_rows(tmp_path / "c.jsonl", rows[1:]), tmp_path / "root", name="c")
    assert (one.reused, two.reused, other.reused) == (False, True, False)
    assert one.folder == two.folder != other.folder
    assert verify(one.folder).counts == {"passages": 5, "malformed": 0}
    assert len(open_corpus(one.folder)) == 5


def test_malformed_rows_are_counted_and_named_with_file_and_line(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"id": "1", "title": "t", "text": "x"}\n{"id": "2", "title"\n'
        '{"id": "1", "title": "t", "text": "again"}\n{"id": "4", "title": "t", "text": ""}\n'
        '{"_id": "5", "title": "t", "text": "BEIR"}\n{"id": "6", "contents": "\\"T\\"\\nbody"}\n',
        encoding="utf-8",
    )
    built = build_corpus(path, tmp_path / "root", name="c")
    assert built.report.kept == 3
    assert built.report.malformed == 3
    assert {problem.line for problem in built.report.problems} == {2, 3, 4}
    assert all(problem.file.endswith("rows.jsonl") for problem in built.report.problems)
    store = open_corpus(built.folder)
    assert store.get(["6"]) == [Passage("6", "T", "body")]
    with pytest.raises(DataFormatError, match="line 2"):
        build_corpus(path, tmp_path / "root", name="c", strict=True)


def test_dpr_tsv_is_read_plain_and_gzipped(tmp_path: Path):
    table = 'id\ttext\ttitle\n1\t"He said ""no""."\tHamlet\n2\tplain text\tOther\n'
    (tmp_path / "p.tsv").write_text(table, encoding="utf-8")
    (tmp_path / "q.tsv.gz").write_bytes(gzip.compress(table.encode()))
    for name in ("p.tsv", "q.tsv.gz"):
        store = open_corpus(build_corpus(tmp_path / name, tmp_path / "root", name="c").folder)
        assert store.get(["1"]) == [Passage("1", "Hamlet", 'He said "no".')]


def test_longer_documents_are_cut_into_hundred_words(tmp_path: Path):
    words = " ".join(f"w{n}" for n in range(250))
    path = write_rows(tmp_path / "d.jsonl", [{"id": "d", "title": "T", "text": words}])
    store = open_corpus(build_corpus(path, tmp_path / "root", name="c", chunk_words=100).folder)
    assert [len(p.text.split()) for b in store.iter_passages() for p in b] == [100, 100, 50]
    assert store.get(["d-2"])[0].title == "T"


@given(st.lists(st.sampled_from(["a", "bb.", "ccc", "d?"]), max_size=350), st.integers(1, 120))
def test_chunks_together_are_the_text(words, n_words):
    for at_sentences in (False, True):
        chunks = chunk_text(" ".join(words), n_words=n_words, at_sentences=at_sentences)
        assert [w for chunk in chunks for w in chunk.split()] == words
        assert all(0 < len(c.split()) < 1.1 * n_words + 1 for c in chunks)


def test_a_file_without_a_passage_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="No passage was read"):
        build_corpus(write_rows(tmp_path / "e.jsonl", [{"id": 1}]), tmp_path / "root", name="c")
    with pytest.raises(InputError, match="no file or folder"):
        build_corpus(tmp_path / "missing.jsonl", tmp_path / "root", name="c")
    assert not list((tmp_path / "root").rglob("manifest.json"))


changes_of_ids = st.lists(
    st.tuples(
        st.lists(st.integers(0, 30), max_size=6, unique=True),
        st.lists(st.integers(0, 30), max_size=6, unique=True),
    ),
    max_size=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(first=st.integers(1, 12), steps=changes_of_ids)
def test_a_store_after_any_changes_holds_what_a_list_would(tmp_path_factory, first, steps):
    folder = tmp_path_factory.mktemp("store")
    held = {str(n): Passage(str(n), "t", f"text {n}") for n in range(first)}
    write_store(folder, held.values())
    for step, (wanted, new) in enumerate(steps):
        deleted = [str(n) for n in wanted if str(n) in held]
        for one in deleted:
            del held[one]
        added = [Passage(str(n), "t", f"text {n} of {step}") for n in new if str(n) not in held]
        held |= {passage.id: passage for passage in added}
        changed = tmp_path_factory.mktemp("changed")
        summary = write_changed_store(
            changed, folder, added=added, deleted=deleted, base_content="c"
        )
        folder = changed
        assert summary.n_passages == len(held)
        assert summary.ids_digest == ids_digest(held)
    store = ArrowPassageStore(folder)
    assert [p for batch in store.iter_passages(3) for p in batch] == list(held.values())
    assert store.get(list(held)) == list(held.values())
    assert store.holds(["0", "nobody"]) == ["0" in held, False]
    if gone := [str(n) for n in range(31) if str(n) not in held]:
        with pytest.raises(UnknownPassageError):
            store.get(gone[:1])
