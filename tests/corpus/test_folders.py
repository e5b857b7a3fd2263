"""Documents of a folder: what they show becomes text, what cannot be read is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.corpus.build import build_corpus_from
from rag_frozen.corpus.folders import (
    html_document,
    markdown_document,
    read_folder,
    text_document,
)
from rag_frozen.corpus.sources import RowSource
from rag_frozen.errors import DataFormatError, InputError

pytest.importorskip("selectolax")

PAGE = """<!doctype html><html><head><title> The
 tower </title><style>p{}</style><script>var x = "<p>no</p>"</script></head><body>
<header>Menu</header><nav><ul><li>Home</li></ul></nav>
<main><h1>Tower</h1><p>It is <b>324</b>&nbsp;m high.<br>Very.</p><ul><li>one</li><li>two</li></ul>
<table><tr><td>a</td><td>b</td></tr></table></main><footer>Imprint</footer></body></html>"""


def test_html_shows_its_main_part_a_block_a_line() -> None:
    document = html_document(PAGE.encode())
    assert document.title == "The tower"
    assert document.text.split("\n") == [
        "Tower", "It is 324 m high.", "Very.", "one", "two", "a", "b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<meta charset='iso-8859-1'><p>caf\xe9".encode("latin-1"), "café"),
        ("\ufeff<p>café".encode(), "café"),
        ("<p>café".encode("utf-16"), "café"),
        ("<meta charset='nonsense'><p>café".encode(), "café"),
        (b"", ""),
        (b"<p>open <i>never closed", "open never closed"),
        (b"plain words", "plain words"),
    ],
)
def test_html_of_any_encoding_and_shape_is_read(content: bytes, expected: str) -> None:
    assert html_document(content).text == expected


def test_markdown_shows_text_without_its_marks() -> None:
    document = markdown_document(
        "---\ntitle: 'Front'\ntags: [a]\n---\n# Head *line*\n\nSome **bold** [link](http://x.y)\n"
        "in two lines, `code` &amp; ![a picture](p.png).\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "```python\nx = 1\n```\n\n> quoted\n\n<div><p>inline html</p></div>\n"
    )
    assert document.title == "Front"
    assert document.text.split("\n") == [
        "Head line", "Some bold link in two lines, code & a picture.", "a", "b", "1", "2", "x = 1",
        "quoted", "inline html",
    ]  # fmt: skip
    assert markdown_document("Title\n=====\n\ntext").title == "Title"
    assert markdown_document("no heading").title == ""


words = st.lists(st.text("abcdefgäß", min_size=1, max_size=7), min_size=1, max_size=12)


@given(st.lists(words, min_size=1, max_size=5))
def test_paragraphs_come_back_from_every_kind_of_document(paragraphs: list[list[str]]) -> None:
    lines = [" ".join(paragraph) for paragraph in paragraphs]
    expected = "\n".join(lines)
    assert text_document("\n\n".join(lines)).text == expected
    assert markdown_document("\n\n".join(lines)).text == expected
    page = "<meta charset=utf-8>" + "".join(f"<p>{line}</p>" for line in lines)
    assert html_document(page.encode()).text == expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "docs"
    (top / "guide" / ".git").mkdir(parents=True)
    (top / "b.txt").write_text("Plain\ntext.\n\nMore.", encoding="utf-8-sig")
    (top / "guide" / "a.MD").write_text("# Guide\n\nRead it.")
    (top / "page.html").write_text(PAGE)
    (top / "guide" / ".git" / "c.txt").write_text("hidden")
    (top / "image.png").write_bytes(b"\x89PNG")
    return top


def test_a_folders_documents_are_read_in_the_order_of_their_paths(folder: Path) -> None:
    reader = read_folder(folder)
    found = {passage.id: passage for passage in reader}
    assert list(found) == ["b.txt", "guide/a.MD", "page.html"]
    assert found["b.txt"].title == "b"
    assert found["b.txt"].text == "Plain text.\nMore."
    assert found["guide/a.MD"].title == "Guide"
    assert reader.report.summary() == "3 passages kept"
    assert [passage.id for passage in read_folder(folder, endings=(".md",))] == ["guide/a.MD"]


def test_documents_that_cannot_be_read_are_told_with_file_and_line(folder: Path) -> None:
    (folder / "c.txt").write_bytes(b"fine\nnot \xff fine")
    (folder / "d.txt").write_text(" \n ")
    reader = read_folder(folder)
    assert len(list(reader)) == 3
    assert [(p.file, p.line, p.reason) for p in reader.report.problems] == [
        (str(folder / "c.txt"), 2, "bad UTF-8"),
        (str(folder / "d.txt"), 1, "empty text"),
    ]
    assert "2 documents left out" in reader.report.summary()
    with pytest.raises(DataFormatError, match=r"c\.txt, line 2: bad UTF-8"):
        list(read_folder(folder, strict=True))


def test_a_folder_that_is_missing_or_empty_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        read_folder(folder / "nowhere")
    with pytest.raises(InputError, match="holds no documents"):
        read_folder(folder, endings=(".rst",))
    with pytest.raises(InputError, match=r"b\.txt is a file; name the folder"):
        read_folder(folder / "b.txt")


def test_a_corpus_of_documents_is_cut_and_tells_what_it_was_made_of(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "long.txt").write_text(" ".join(f"w{n}" for n in range(250)))
    source = RowSource(read_folder(folder), chunk_words=100, about={"folder": "docs"})
    built = build_corpus_from(source, tmp_path / "root", name="docs")
    report = json.loads((built.folder / "report.json").read_text())
    assert report["folder"] == "docs"
    assert report["passages"] == built.manifest.counts["passages"] == 6
    assert report["documents kept"] == 4
