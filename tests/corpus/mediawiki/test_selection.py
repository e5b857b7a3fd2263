"""A small wiki: the articles that are linked to stay, with the numbers that decided it."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_frozen.artifacts import verify
from rag_frozen.corpus import open_corpus
from rag_frozen.corpus.build import CorpusArtifact, build_corpus_from
from rag_frozen.corpus.mediawiki.aliases import AliasTable
from rag_frozen.corpus.mediawiki.articles import Cutting
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.reader import DumpSource
from rag_frozen.corpus.mediawiki.selection import SCORES, Selection
from rag_frozen.errors import InputError, RecipeError
from rag_frozen.recipes.index import IndexRecipe
from rag_frozen.recipes.loading import load_recipe

from .dumps import MadePage, dump_text

pytest.importorskip("mwxml")

WIKI = [
    MadePage("Alone", "It is long. " + "word " * 300),
    MadePage("Star", "Many link here."),
    MadePage("A", "See [[star]] and [[Alone|it]]."),
    MadePage("B", "See [[The star]] here."),
    MadePage("C", "See [[star#Life]], [[B]] and [[Missing]]."),
    MadePage("The star", redirect="Star"),
    MadePage("Sun", redirect="The star"),
    MadePage("Lonely", redirect="Alone"),
]


def source(pages: list[MadePage], folder: Path, selection: Selection) -> DumpSource:
    path = folder / "dump.xml"
    path.write_text(dump_text(pages))
    return DumpSource(path, options=WikiOptions(), cutting=Cutting(), selection=selection)


def build(pages: list[MadePage], folder: Path, selection: Selection) -> CorpusArtifact:
    return build_corpus_from(source(pages, folder, selection), folder / "root", name="small")


def scores(folder: Path) -> list[dict[str, Any]]:
    with pa.memory_map(str(folder / SCORES)) as source:
        rows: list[dict[str, Any]] = pa.ipc.open_file(source).read_all().to_pylist()
    return rows


def titles(built: CorpusArtifact) -> list[str]:
    return [p.title for batch in open_corpus(built.folder).iter_passages() for p in batch]


def test_links_are_counted_after_redirects_and_decide_with_length(tmp_path: Path) -> None:
    built = build(WIKI, tmp_path, Selection(articles=2))
    found = {row["title"]: row for row in scores(built.folder)}
    assert list(found) == ["Alone", "Star", "A", "B", "C"]
    assert [row["inbound"] for row in found.values()] == [1, 3, 0, 1, 0]
    assert [row["redirects"] for row in found.values()] == [1, 2, 0, 0, 0]
    assert found["Star"]["score"] == pytest.approx(
        math.log(1 + 3) + 0.5 * math.log(1 + 2) + 0.25 * math.log(1 + 3)
    )
    assert [title for title, row in found.items() if row["kept"]] == ["Alone", "Star"]
    assert set(titles(built)) == {"Alone", "Star"}
    manifest = verify(built.folder)
    assert manifest.counts["articles"] == 2
    assert manifest.counts["dropped_selection"] == 3
    assert manifest.counts["words"] == sum(found[title]["words"] for title in ("Alone", "Star"))
    assert not [file.name for file in built.folder.iterdir() if file.name.startswith(".")]


def test_aliases_lead_only_to_the_articles_that_stay(tmp_path: Path) -> None:
    built = build(WIKI, tmp_path, Selection(articles=1, words=0.0))
    assert titles(built) == ["Star"]
    assert list(AliasTable(built.folder)) == [("Sun", "Star"), ("The star", "Star")]
    assert built.manifest.counts["loose_redirects"] == 1


@settings(max_examples=20)
@given(
    st.integers(1, 12),
    st.floats(0.01, 1.0),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30),
)
def test_the_share_asked_for_stays_best_first_and_in_the_dumps_order(
    tmp_path_factory: pytest.TempPathFactory,
    n_pages: int,
    share: float,
    links: list[tuple[int, int]],
) -> None:
    pages = [
        MadePage(
            f"P{number}",
            "text " + " ".join(f"[[P{to}]]" for source, to in links if source == number),
        )
        for number in range(n_pages)
    ]
    folder = tmp_path_factory.mktemp("dump")
    with closing(source(pages, folder, Selection(share=share))) as dump:
        found = [passage.title for passage in dump.passages(folder)]
    rows = scores(folder)
    kept = [row for row in rows if row["kept"]]
    assert len(kept) == math.ceil(share * n_pages)
    assert found == [row["title"] for row in kept]
    worst = min(row["score"] for row in kept)
    assert all(row["score"] <= worst for row in rows if not row["kept"])
    expected = {f"P{n}": len({s for s, to in links if to == n and s < n_pages}) for n in range(12)}
    assert all(row["inbound"] == expected[row["title"]] for row in rows)


def test_a_selection_needs_one_size(tmp_path: Path) -> None:
    for wrong in (Selection(), Selection(articles=1, share=0.5)):
        with pytest.raises(InputError, match="either a number of articles or their share"):
            build(WIKI, tmp_path, wrong)
    with pytest.raises(RecipeError, match="either articles or share"):
        load_recipe(
            "wiki-small", IndexRecipe, folder="indexes", overrides=["corpus.select.articles=5"]
        )


def test_a_real_wiki_keeps_what_it_links_to_most(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "wikidump" / "ltgwiki-latest-pages-articles.xml"
    if not path.exists():
        pytest.skip(f"no dump at {path}")
    wiki = DumpSource(
        path, options=WikiOptions(), cutting=Cutting(), selection=Selection(share=0.25)
    )
    built = build_corpus_from(wiki, tmp_path, name="ltg")
    best = sorted(scores(built.folder), key=lambda row: -row["inbound"])[:3]
    assert "Latgola" in {row["title"] for row in best}
    assert built.manifest.counts["articles"] == math.ceil(881 / 4)
