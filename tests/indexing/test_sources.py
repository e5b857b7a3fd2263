"""Corpora of every kind are built and planned from their recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rag_frozen.artifacts import load_manifest
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.errors import RecipeError
from rag_frozen.indexing.build import build_index
from rag_frozen.indexing.opening import open_bm25, open_store
from rag_frozen.indexing.plan import plan_index
from rag_frozen.indexing.sources import corpus_source
from rag_frozen.recipes.corpora import MediaWikiCorpus
from rag_frozen.recipes.index import IndexRecipe
from rag_frozen.types import Question

from ..corpus.mediawiki.dumps import MadePage, dump_text

pytest.importorskip("mwxml")
pytest.importorskip("selectolax")


def recipe(**corpus: Any) -> IndexRecipe:
    values = {"kind": "index", "name": "made", "corpus": corpus, "bm25": {"kind": "tantivy"}}
    return IndexRecipe.model_validate(values)


@pytest.fixture
def corpora(tmp_path: Path) -> dict[str, dict[str, Any]]:
    texts = {f"Page {n}": f"the word{n} stands here " * 30 for n in range(40)}
    dump = tmp_path / "dump.xml"
    dump.write_text(dump_text([MadePage(title, text) for title, text in texts.items()]))
    documents = tmp_path / "documents"
    documents.mkdir()
    for title, text in texts.items():
        (documents / f"{title}.md").write_text(f"# {title}\n\n{text}")
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"id": title, "title": title, "text": text} for title, text in texts.items()]
    pq.write_table(pa.Table.from_pylist(rows), data / "train.parquet")
    return {
        "mediawiki": {"kind": "mediawiki", "path": str(dump), "processes": 1},
        "folder": {"kind": "folder", "path": str(documents)},
        "hub": {"kind": "hub", "dataset": str(data), "chunk_words": 100},
    }


@pytest.mark.parametrize("kind", ["mediawiki", "folder", "hub"])
def test_a_recipe_of_each_kind_is_planned_built_and_searched(
    corpora: dict[str, dict[str, Any]], tmp_path: Path, kind: str
) -> None:
    made = recipe(**corpora[kind])
    plan = plan_index(made, root=tmp_path)
    built = build_index(made, root=tmp_path)
    corpus = built.part("corpus")
    assert plan.n_passages == corpus.n_passages >= 80
    assert plan.basis == "all passages"
    assert "report.json" in load_manifest(corpus.folder).files
    best = open_bm25(built).retrieve([Question("q", "word7")], k=3)[0][0]
    assert open_store(built).get([best.passage_id])[0].title == "Page 7"
    assert build_index(made, root=tmp_path).part("corpus").reused


def test_a_plan_of_a_part_of_a_dump_reckons_with_its_share(
    corpora: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_frozen.indexing.plan._SAMPLE", 30)
    monkeypatch.setattr("rag_frozen.corpus.mediawiki.stream._BLOCK_PAGES", 2)
    monkeypatch.setattr("rag_frozen.corpus.mediawiki.stream._CHUNK", 4_096)
    plan = plan_index(recipe(**corpora["mediawiki"]), root=tmp_path)
    assert plan.basis == "estimated from 30 passages"
    assert 60 <= plan.n_passages <= 100  # 80


def test_a_data_set_of_unknown_length_cannot_be_planned(
    corpora: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_frozen.indexing.plan._SAMPLE", 30)
    with pytest.raises(RecipeError, match="does not say how many rows"):
        plan_index(recipe(**corpora["hub"]), root=tmp_path)


@pytest.mark.parametrize("kind", ["mediawiki", "folder", "files"])
def test_a_corpus_without_a_path_says_how_to_name_one(kind: str) -> None:
    with pytest.raises(RecipeError, match=r"corpus\.path="):
        corpus_source(recipe(kind=kind))


def test_the_recipe_of_a_dump_has_the_readers_defaults() -> None:
    assert MediaWikiCorpus(kind="mediawiki").options() == WikiOptions()
    changed = MediaWikiCorpus(kind="mediawiki", lists=True, min_words=9, skip_titles=("X",))
    assert changed.options() == WikiOptions(lists=True, min_words=9, skip_titles=("X",))
