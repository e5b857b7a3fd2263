"""Dumps become corpora: whole, in order, whatever their form; damage is told with its place."""

from __future__ import annotations

import bz2
import gc
import gzip
import json
import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_frozen.artifacts import verify
from rag_frozen.corpus import open_corpus
from rag_frozen.corpus.build import CorpusArtifact, build_corpus_from
from rag_frozen.corpus.mediawiki.aliases import AliasTable
from rag_frozen.corpus.mediawiki.articles import Cutting
from rag_frozen.corpus.mediawiki.blocks import suitable_processes
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.reader import DumpSource
from rag_frozen.corpus.mediawiki.selection import Selection
from rag_frozen.errors import ArtifactMissingError, DataFormatError, InputError, StorageError
from rag_frozen.types import Passage

from ...artifacts.disks import small_disk
from .dumps import MadePage, dump_parts, dump_text, multistream

pytest.importorskip("mwxml")
pytest.importorskip("mwparserfromhell")


PLAIN = Cutting()


def source(
    path: Path,
    *,
    processes: int = 1,
    damaged: Literal["stop", "keep"] = "stop",
    cutting: Cutting = PLAIN,
    **options: Any,
) -> DumpSource:
    return DumpSource(
        path,
        options=WikiOptions(**options),
        cutting=cutting,
        processes=processes,
        damaged=damaged,
    )


def build(path: Path, root: Path, **settings: Any) -> CorpusArtifact:
    return build_corpus_from(source(path, **settings), root, name="wiki")


def passages_of(built: CorpusArtifact) -> list[Passage]:
    return [passage for batch in open_corpus(built.folder).iter_passages() for passage in batch]


def prose(number: int, n_words: int = 12) -> str:
    return " ".join(f"w{number}x{place}" for place in range(n_words))


WIKI = [
    MadePage("Ada", "'''Ada''' wrote.\n\n" + prose(1)),
    MadePage("Ada Lovelace", redirect="Ada"),
    MadePage("Countess", redirect="Ada Lovelace#Title"),
    MadePage("Loop A", redirect="Loop B"),
    MadePage("Loop B", redirect="Loop A"),
    MadePage("Nowhere", redirect="Missing page"),
    MadePage("Template:Box", "text", ns=10),
    MadePage("Talk:Ada", "talk", ns=1),
    MadePage("Mercury", "Mercury may be:\n* a planet\n{{disambig}}"),
    MadePage("Mercury (disambiguation)", "Mercury is many things, a god among them."),
    MadePage("To Mercury", redirect="Mercury"),
    MadePage("List of gods", "They are many."),
    MadePage("Stub", "Two words."),
    MadePage("Empty", "{{navbox}}\n* only\n* a list"),
    MadePage("Script.js", "var x = 1;", model="javascript"),
    MadePage("Tom & <Jerry>", "AT&T is &lt;here&gt; \"now\" & [[Ada|she]] too."),
]  # fmt: skip


def test_articles_redirects_and_what_is_left_out_are_counted_and_told(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml"
    path.write_text(dump_text(WIKI))
    built = build(path, tmp_path, min_words=3)
    manifest = verify(built.folder, kind="corpus")
    assert passages_of(built) == [
        Passage("1-0", "Ada", "Ada wrote. " + prose(1)),
        Passage("16-0", "Tom & <Jerry>", 'AT&T is <here> "now" & she too.'),
    ]
    assert manifest.counts == {
        "passages": 2, "malformed": 0, "pages": 16, "articles": 2, "words": 21, "redirects": 6,
        "aliases": 2, "loose_redirects": 4, "dropped_disambiguation": 2, "dropped_empty": 1,
        "dropped_namespace": 2, "dropped_not_wikitext": 1, "dropped_stub": 1, "dropped_title": 1,
    }  # fmt: skip
    report = json.loads((built.folder / "report.json").read_text())
    assert report["files"] == ["dump.xml"]
    assert report["passages"] == 2
    assert report["content"] == manifest.digests["content"]
    assert not [file for file in built.folder.iterdir() if file.name.startswith(".")]


def test_redirects_are_followed_to_the_articles_that_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml"
    path.write_text(dump_text(WIKI))
    table = AliasTable(build(path, tmp_path).folder)
    assert list(table) == [("Ada Lovelace", "Ada"), ("Countess", "Ada")]
    assert len(table) == 2
    assert table.find("Countess") == "Ada"
    assert [table.find(name) for name in ("", "Ada", "Loop A", "Nowhere", "ZZ")] == [None] * 5
    wider = AliasTable(build(path, tmp_path, disambiguation=True).folder)
    assert wider.find("To Mercury") == "Mercury"
    with pytest.raises(ArtifactMissingError, match="mediawiki"):
        AliasTable(tmp_path)


def test_settings_decide_which_pages_are_articles(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml"
    path.write_text(dump_text(WIKI))

    def titles(**settings: Any) -> set[str]:
        return {passage.title for passage in passages_of(build(path, tmp_path, **settings))}

    plain = titles()
    assert plain == {"Ada", "Stub", "Tom & <Jerry>"}
    assert titles(disambiguation=True) - plain == {"Mercury", "Mercury (disambiguation)"}
    assert titles(namespaces=(0, 10)) - plain == {"Template:Box"}
    assert titles(skip_titles=()) - plain == {"List of gods"}
    assert titles(lists=True) - plain == {"Empty"}
    assert plain - titles(skip_titles=("Tom",)) >= {"Tom & <Jerry>"}
    with pytest.raises(InputError, match="no regular expression"):
        titles(skip_titles=("(",))


@pytest.mark.parametrize("version", ["0.10", "0.11"])
def test_every_form_of_a_dump_gives_the_same_corpus(tmp_path: Path, version: str) -> None:
    text = dump_text(WIKI, version)
    forms = {
        "a.xml": text.encode(),
        "b.xml.bz2": bz2.compress(text.encode()),
        "c.xml.bz2": multistream(WIKI, version),
        "d.xml.gz": gzip.compress(text.encode()),
        "e.dat": b"\xef\xbb\xbf" + text.encode(),
        "f.xml": text.replace("\n", "\r\n").encode(),
    }
    folders = set()
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        folders.add(build(tmp_path / name, tmp_path / "root").folder)
    assert len(folders) == 1


def test_a_folder_of_parts_is_one_wiki_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in (2, 10, 1):
        page = MadePage(f"Page {number}", prose(number), id=number)
        alias = MadePage(f"Alias {number}", redirect="Page 1", id=100 + number)
        name = f"w-pages-articles{number}.xml-p{number}p{number}.bz2"
        (parts / name).write_bytes(bz2.compress(dump_text([page, alias]).encode()))
    (parts / "notes.txt").write_text("not a dump")
    built = build(parts, tmp_path)
    assert [passage.title for passage in passages_of(built)] == ["Page 1", "Page 2", "Page 10"]
    assert AliasTable(built.folder).find("Alias 10") == "Page 1"


def test_a_page_that_two_parts_hold_is_read_once(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for name in ("a.xml", "b.xml"):
        (parts / name).write_text(dump_text(WIKI[:2]))
    built = build(parts, tmp_path)
    assert len(passages_of(built)) == 1
    assert built.manifest.counts["dropped_repeated_page_id"] == 2


words = st.text("abcdefgäßñжλ&<>\"'", min_size=1, max_size=6).filter(
    lambda w: any(map(str.isalnum, w))
)


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=30), max_size=4), max_size=12
    ),
    st.sampled_from(["0.10", "0.11"]),
)
def test_paragraphs_written_into_a_dump_come_back_as_passages(
    tmp_path_factory: pytest.TempPathFactory, articles: list[list[list[int]]], version: str
) -> None:
    pages = [
        MadePage(
            f"T{number}",
            "\n\n".join(" ".join(f"[[w{word}]]é" for word in one) for one in article),
        )
        for number, article in enumerate(articles)
    ]
    folder = tmp_path_factory.mktemp("dump")
    (folder / "d.xml").write_text(dump_text(pages, version))
    dump = source(folder / "d.xml", cutting=Cutting(n_words=10))
    found = list(dump.passages(folder))
    dump.close()
    for number, article in enumerate(articles):
        expected = [f"w{word}é" for paragraph in article for word in paragraph]
        own = [passage for passage in found if passage.title == f"T{number}"]
        assert [word for passage in own for word in passage.text.split()] == expected
        assert [p.id for p in own] == [f"{number + 1}-{place}" for place in range(len(own))]
        assert all(len(passage.text.split()) <= 10 for passage in own)


def test_articles_are_cut_into_hundred_words_and_the_last_passage_wraps_where_asked(
    tmp_path: Path,
) -> None:
    path = tmp_path / "dump.xml"
    path.write_text(dump_text([MadePage("Long", prose(1, 230)), MadePage("Short", prose(2, 30))]))
    lengths = [len(passage.text.split()) for passage in passages_of(build(path, tmp_path))]
    assert lengths == [100, 100, 30, 30]
    wrapped = passages_of(build(path, tmp_path, cutting=Cutting(wrap=True)))
    assert [len(passage.text.split()) for passage in wrapped] == [100, 100, 100, 30]
    assert wrapped[2].text.endswith(prose(1, 70))


def many(n_pages: int, n_words: int = 60) -> Iterator[MadePage]:
    for number in range(n_pages):
        yield MadePage(f"Page {number}", prose(number, n_words))
        yield MadePage(f"Alias {number}", redirect=f"Page {number}")


def test_any_number_of_processes_gives_the_same_corpus(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(multistream(many(300, 30), each=100))
    one = build(path, tmp_path)
    two = build(path, tmp_path, processes=2)
    assert two.reused
    assert one.folder == two.folder
    assert one.manifest.counts["pages"] == 600
    assert one.manifest.counts["aliases"] == 300
    with pytest.raises(InputError, match="At least 1 process"):
        build(path, tmp_path, processes=0)


def test_small_dumps_are_read_in_one_process_and_large_ones_by_all_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_frozen.corpus.mediawiki.blocks.usable_cores", lambda: 4)
    sizes = {"small.xml": 2**20, "large.xml": 2**30, "middle.xml.bz2": 2**22}
    for name, size in sizes.items():
        with (tmp_path / name).open("wb") as handle:
            handle.truncate(size)
    assert [suitable_processes([tmp_path / name]) for name in sizes] == [1, 4, 2]


def test_memory_does_not_grow_with_the_dump(tmp_path: Path) -> None:
    def held(n_pages: int) -> tuple[int, int]:
        """Most bytes held at some moment of reading, and most at any moment with garbage."""
        path = tmp_path / f"{n_pages}.xml"
        with path.open("w") as handle:
            handle.writelines(dump_parts(many(n_pages, 200)))
        samples = []
        tracemalloc.start()
        dump = source(path)
        for number, _ in enumerate(dump.passages(tmp_path)):
            if number % 37 == 36:
                gc.collect()
                samples.append(tracemalloc.get_traced_memory()[0])
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        dump.close()
        return max(samples, default=0), highest

    gc.freeze()  # what other tests have loaded is not looked at again and again
    try:
        held(10)  # what is set up once
        small, large = held(150), held(420)
    finally:
        gc.unfreeze()
    assert (tmp_path / "420.xml").stat().st_size > 2**20
    assert large[0] < small[0] + 2**18, (small, large)
    assert large[1] < 6 * 2**20, large


@pytest.mark.parametrize("packed", ["plain", "bz2", "multistream", "gz"])
@pytest.mark.parametrize("part", [0.6, 0.999])
def test_a_truncated_dump_stops_the_build_or_keeps_what_was_read(
    tmp_path: Path, packed: str, part: float, caplog: pytest.LogCaptureFixture
) -> None:
    pages = [MadePage(f"Page {number}", prose(number, 150)) for number in range(200)]
    text = dump_text(pages).encode()
    whole = {
        "plain": text,
        "bz2": bz2.compress(text, compresslevel=1),
        "multistream": multistream(pages, each=20),
        "gz": gzip.compress(text),
    }[packed]
    path = tmp_path / "dump.xml"
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(DataFormatError, match=r"breaks off after page [\d,]+, at byte [\d,]+"):
        build(path, tmp_path / "root")
    assert not list((tmp_path / "root").rglob("*.arrow"))
    with caplog.at_level(logging.WARNING, logger="rag_frozen"):
        built = build(path, tmp_path / "root", damaged="keep")
    titles = list(dict.fromkeys(passage.title for passage in passages_of(built)))
    assert titles == [f"Page {number}" for number in range(len(titles))]
    assert len(titles) >= 200 * part * 0.7 - 40
    assert built.manifest.counts["damaged_dump_that_breaks_off"] == 1
    assert built.manifest.counts["malformed"] == 1
    assert f"page {len(titles)}: dump that breaks off" in caplog.text
    assert "breaks off" in (built.folder / "report.json").read_text()


def test_damage_inside_a_multistream_dump_is_never_taken_for_its_end(tmp_path: Path) -> None:
    whole = bytearray(multistream([MadePage(f"P{n}", prose(n, 200)) for n in range(60)], each=10))
    third = [at for at in range(len(whole)) if whole[at : at + 3] == b"BZh"][3]
    whole[third + 4 : third + 10] = b"broken"  # the magic of the stream's first block
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(bytes(whole))
    with pytest.raises(DataFormatError, match="breaks off after page 20,"):
        build(path, tmp_path)


def test_a_broken_page_is_told_with_its_number_and_byte_and_takes_no_other(tmp_path: Path) -> None:
    pages = [
        MadePage("One", prose(1)),
        MadePage("", xml="  <page><title>Two</title><ns>0</ns><id>2</id><b></i></page>\n"),
        MadePage("", xml="  <page><title>Three</title><ns>0</ns></page>\n"),
        MadePage("Four", prose(4)),
    ]
    path = tmp_path / "dump.xml"
    text = dump_text(pages)
    path.write_text(text)
    offset = text.index("<page><title>Two")
    with pytest.raises(DataFormatError, match=f"page 2, cannot be read, at byte {offset:,}: "):
        build(path, tmp_path)
    built = build(path, tmp_path, damaged="keep")
    assert [passage.title for passage in passages_of(built)] == ["One", "Four"]
    assert built.manifest.counts["damaged_broken_page"] == 2
    assert built.report.summary() == "2 passages kept, 2 pages left out (2 broken page)"
    assert f"page 2: broken page: at byte {offset:,}" in (built.folder / "problems.txt").read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no MediaWiki export"),
        (b"<html><body>404</body></html>", "no MediaWiki export"),
        (b"id\ttext\ttitle\n" * 50_000, "no MediaWiki export"),
        (b"BZh91AY&SYgarbage", "nothing of it can be read"),
        (b"<mediawiki><page><id>1</id></page></mediawiki>", "up to its first page"),
        (dump_text([]).encode(), "No passage was read"),
        (dump_text([MadePage("T", "x", ns=10)]).encode(), "No passage was read"),
    ],
)
def test_a_file_that_is_no_dump_or_has_no_article_is_refused(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "dump.xml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        build(path, tmp_path / "root")
    assert not (tmp_path / "root").exists()
    with pytest.raises(InputError, match="no file or folder"):
        source(tmp_path / "missing.xml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no dumps"):
        source(tmp_path / "empty")


def test_a_page_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_frozen.corpus.mediawiki.stream._LONGEST_PAGE", 2**20)
    path = tmp_path / "dump.xml"
    path.write_text(dump_text([MadePage("A", prose(1)), MadePage("B", "x " * 2**20)]))
    with pytest.raises(DataFormatError, match=r"after page 1, .*longer than 1,048,576 bytes"):
        build(path, tmp_path)


@pytest.mark.parametrize("selection", [None, Selection(share=0.5)])
def test_a_disk_that_is_full_at_any_moment_leaves_nothing(
    tmp_path: Path, selection: Selection | None
) -> None:
    path = tmp_path / "dump.xml"
    path.write_text(dump_text(many(150, 100)))
    outcomes = []
    for kib in (8, 40, 80, 120, 160, 240, 320, 480, 4_096):
        with small_disk(tmp_path / "disk", kib=kib) as disk:
            dump = DumpSource(path, options=WikiOptions(), cutting=PLAIN, selection=selection)
            try:
                build_corpus_from(dump, disk, name="wiki")
            except StorageError as error:
                outcomes.append("full" if str(disk) in str(error) else str(error))
                assert not [file for file in disk.rglob("*") if file.is_file()]
            else:
                outcomes.append("built")
    assert outcomes[0] == "full"
    assert outcomes[-1] == "built"
    assert outcomes == sorted(outcomes, reverse=True)


REAL = {
    "enwiki-pages-articles-shortened.xml.bz2": (206, 96, 99),
    "enwiki-special-export-20171220.xml": (99, 88, 0),
    "ltgwiki-latest-pages-articles.xml": (2_004, 881, 147),
}


@pytest.mark.parametrize("name", REAL)
def test_real_dumps_leave_no_markup_behind(real_data: Path, tmp_path: Path, name: str) -> None:
    path = real_data / "wikidump" / name
    if not path.exists():
        pytest.skip(f"no dump at {path}")
    built = build(path, tmp_path)
    counts = built.manifest.counts
    assert (counts["pages"], counts["articles"], counts["redirects"]) == REAL[name]
    left = counts["articles"] + counts["redirects"]
    dropped = sum(count for reason, count in counts.items() if reason.startswith("dropped_"))
    assert left + dropped == counts["pages"]
    marks = ("{{", "}}", "[[", "]]", "<ref", "</ref", "'''", "thumb|", "Category:", "File:", "{|")
    for passage in passages_of(built):
        assert not [mark for mark in marks if mark in passage.text], passage
        assert len(passage.text.split()) < 110
    if name.startswith("ltg"):
        assert AliasTable(built.folder).find("Latgale") in {None, "Latgola"}
