"""Passages from files of every accepted form; what is wrong is counted and told with its place."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rag_frozen.corpus import read_passages
from rag_frozen.corpus.readers import PassageFormat, ReadReport, expand_sources
from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.types import Passage

ONE = '{"id": "1", "title": "A", "text": "one"}\n'
TWO = '{"id": "2", "title": "B", "text": "two"}\n'


def read(path: Path, format: PassageFormat | None = None) -> tuple[list[Passage], ReadReport]:
    reader = read_passages(path, format=format)
    return list(reader), reader.report


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


text = st.text(st.characters(codec="utf-8"), max_size=30)
some_text = text.filter(str.strip)
corpora = st.lists(st.builds(Passage, some_text, text, some_text), unique_by=lambda p: p.id)


@given(corpora, st.booleans())
def test_json_lines_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, passages: list[Passage], ascii_only: bool
) -> None:
    rows = (json.dumps({"id": p.id, "title": p.title, "text": p.text}) for p in passages)
    if not ascii_only:
        rows = (
            json.dumps({"id": p.id, "title": p.title, "text": p.text}, ensure_ascii=False)
            for p in passages
        )
    path = write(tmp_path_factory.getbasetemp() / "p.jsonl", "".join(f"{row}\n" for row in rows))
    assert read(path) == (passages, ReadReport(kept=len(passages), files=(str(path),)))


one_line = text.filter(lambda value: "\r" not in value)


@given(
    st.lists(
        st.builds(Passage, st.text("ab1", min_size=1, max_size=4), one_line, one_line),
        unique_by=lambda p: p.id,
        max_size=8,
    ),
    st.booleans(),
)
@example([Passage("1", "", '"\n')], False)
def test_quoted_tsv_reads_back_equal_with_tabs_quotes_and_line_ends(
    tmp_path_factory: pytest.TempPathFactory, passages: list[Passage], zipped: bool
) -> None:
    def quote(value: str) -> str:
        return '"' + value.replace('"', '""') + '"'

    passages = [p for p in passages if p.text.strip()]
    rows = [f"{p.id}\t{quote(p.text)}\t{quote(p.title)}\n" for p in passages]
    content = ("id\ttext\ttitle\n" + "".join(rows)).encode()
    path = tmp_path_factory.getbasetemp() / "p.tsv.gz"
    write(path, gzip.compress(content) if zipped else content)
    assert read(path)[0] == passages


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": "1", "title": "A", "text": "x"}, Passage("1", "A", "x")),
        ({"_id": "1", "title": "A", "text": "x", "metadata": {}}, Passage("1", "A", "x")),
        ({"id": 12, "text": "x"}, Passage("12", "", "x")),
        ({"id": "1", "title": None, "text": "x"}, Passage("1", "", "x")),
        ({"id": "1", "contents": '"A ""b"""\nx\ny'}, Passage("1", 'A "b"', "x\ny")),
        ({"id": "1", "contents": "A\nx"}, Passage("1", "A", "x")),
        ({"id": "1", "contents": "only text"}, Passage("1", "", "only text")),
        ({"id": "1", "contents": "only text\n"}, Passage("1", "", "only text\n")),
        ({"id": "1", "title": "A", "contents": "x\ny"}, Passage("1", "A", "x\ny")),
    ],
)
def test_rows_of_other_projects_are_understood(
    tmp_path: Path, row: dict[str, object], expected: Passage
) -> None:
    assert read(write(tmp_path / "p.jsonl", json.dumps(row)))[0] == [expected]


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ('{"id": "1", "text"', "bad JSON", "Expecting"),
        ("[1, 2]", "bad JSON", "an object is expected"),
        ("null", "bad JSON", "an object is expected"),
        ("[" * 100_000, "bad JSON", ""),
        ('{"title": "A", "text": "x"}', "missing field", "no field id or _id, found: title, text"),
        ('{"id": "1", "title": "A"}', "missing field", "no field text or contents"),
        ('{"id": " ", "text": "x"}', "missing field", "the id is empty"),
        ('{"id": true, "text": "x"}', "wrong type", "id must be text, found 'True'"),
        ('{"id": "1", "text": ["x"]}', "wrong type", "text must be text"),
        ('{"id": "1", "title": 3, "text": "x"}', "wrong type", "title must be text"),
        ('{"id": "1", "text": " \\n"}', "empty text", "'1'"),
        ('{"id": "2", "title": "B", "text": "again"}', "duplicate id", "'2'"),
        (b'{"id": "1", "text": "caf\xe9"}', "bad UTF-8", "'1'"),
        ('{"id": "1", "text": "\\ud800"}', "bad UTF-8", "'1'"),
    ],
)
def test_a_malformed_row_is_counted_and_told_with_its_line(
    tmp_path: Path, row: str | bytes, reason: str, detail: str
) -> None:
    line = row.encode() if isinstance(row, str) else row
    path = write(
        tmp_path / "p.jsonl", TWO.encode() + b"\n" + line + b"\n" + b'{"id":"9","text":"z"}'
    )
    passages, report = read(path)
    assert [passage.id for passage in passages] == ["2", "9"]
    assert (report.kept, report.malformed, report.reasons) == (2, 1, ((reason, 1),))
    problem = report.problems[0]
    assert (problem.file, problem.line, problem.reason) == (str(path), 3, reason)
    assert detail in problem.detail
    with pytest.raises(DataFormatError, match=f"p.jsonl, line 3: {reason}"):
        list(read_passages(path, strict=True))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1\tonly two", "wrong column count"),
        ("1\ta\tb\tc", "wrong column count"),
        ('1\t"never closed\tb', "bad quoting"),
        ('1\t"closed" and more\tb', "bad quoting"),
        ("1\t\tb", "empty text"),
        (b"1\tcaf\xe9\tb", "bad UTF-8"),
        ("2\tagain\tb", "duplicate id"),
    ],
)
def test_a_malformed_tsv_row_takes_no_other_with_it(
    tmp_path: Path, row: str | bytes, reason: str
) -> None:
    line = row.encode() if isinstance(row, str) else row
    head = b'id\ttext\ttitle\n2\t"two\nlines"\tB\n'
    path = write(tmp_path / "p.tsv", head + line + b'\n3\tthree\tC\n4\t"four"\tD\n')
    passages, report = read(path)
    assert [passage.id for passage in passages] == ["2", "3", "4"]
    assert passages[0].text == "two\nlines"
    assert report.reasons == ((reason, 1),)
    assert report.problems[0].line == 4


def test_tsv_columns_follow_the_header_and_without_one_dprs_order(tmp_path: Path) -> None:
    named = write(tmp_path / "a.tsv", "title\tid\ttext\nA\t1\tone\n")
    bare = write(tmp_path / "b.tsv", "1\tone\tA\n2\ttwo\tB\n")
    assert read(named)[0] == [Passage("1", "A", "one")]
    assert read(bare)[0] == [Passage("1", "A", "one"), Passage("2", "B", "two")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p", ONE),
        ("p.txt", "\n\n" + ONE),
        ("p.txt", "  " + ONE),
        ("p.txt", "id\ttext\ttitle\n1\tone\tA\n"),
        ("p.dat", gzip.compress(ONE.encode(), mtime=0)),
        ("p.jsonl", b"\xef\xbb\xbf" + ONE.encode()),
        ("p.jsonl", ONE.replace("\n", "\r\n")),
        ("p.JSONL.GZ", gzip.compress(ONE.encode(), mtime=0)),
        ("p.jsonl.gz", ONE),
    ],
)
def test_a_files_format_is_told_by_its_name_or_its_first_row(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    assert read(write(tmp_path / name, content))[0] == [Passage("1", "A", "one")]


def test_an_explicit_format_wins_over_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tsv", ONE)
    assert read(path, "jsonl")[0] == [Passage("1", "A", "one")]
    assert read(path)[1].reasons == (("wrong column count", 1),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[\n{}]", "JSON array"),
        ("Hello\n", "neither"),
        ("<mediawiki xmlns=''>\n", "index build wiki-dump"),
        (b"BZh91AY&SY\xff\xfe", "index build wiki-dump"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(DataFormatError, match=said):
        read(write(tmp_path / "p.txt", content))


@pytest.mark.parametrize("cut", [5, 200, 3_000, -1, -9])
def test_a_truncated_gzip_keeps_what_was_read_and_tells_where_it_broke(
    tmp_path: Path, cut: int
) -> None:
    rows = [json.dumps({"id": str(n), "text": f"{n * 7919 % 9973} {n}"}) for n in range(1_000)]
    whole = gzip.compress("".join(f"{row}\n" for row in rows).encode())
    path = write(tmp_path / "p.jsonl.gz", whole[:cut])
    passages, report = read(path)
    assert [p.id for p in passages] == [str(n) for n in range(len(passages))]
    assert report.reasons == (("truncated file", 1),)
    assert report.problems[0].line == len(passages) + 1
    if cut in (3_000, -1, -9):
        assert len(passages) > 100
    with pytest.raises(DataFormatError, match="breaks off here"):
        list(read_passages(path, strict=True))


def test_several_files_and_a_folder_are_one_corpus_in_sorted_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "b.jsonl", TWO)
    write(tmp_path / "a.tsv", "id\ttext\ttitle\n1\tone\tA\n")
    write(tmp_path / "sub" / "c.jsonl.gz", gzip.compress((ONE + ONE.replace("1", "3")).encode()))
    write(tmp_path / "README.md", "not passages")
    write(tmp_path / ".hidden.jsonl", TWO)
    reader = read_passages(tmp_path)
    assert [passage.id for passage in reader] == ["1", "2", "3"]
    assert reader.report.reasons == (("duplicate id", 1),)
    assert [Path(file).name for file in reader.report.files] == ["a.tsv", "b.jsonl", "c.jsonl.gz"]
    given = read_passages([tmp_path / "b.jsonl", str(tmp_path / "a.tsv")])
    assert [passage.id for passage in given] == ["2", "1"]


def test_sources_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file or folder"):
        expand_sources(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match="holds no passage files"):
        expand_sources(tmp_path)
    with pytest.raises(InputError, match="at least one"):
        expand_sources([])


def test_a_repeated_id_is_found_across_blocks(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": str(n % 2_500), "text": "x"}) + "\n" for n in range(4_000))
    passages, report = read(write(tmp_path / "p.jsonl", rows))
    assert len(passages) == 2_500
    assert report.reasons == (("duplicate id", 1_500),)
    assert report.problems[0].line == 2_501


def test_all_problems_are_counted_and_the_first_are_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "p.jsonl", "{\n" * 30 + ONE)
    reader = read_passages(path, max_problems=3)
    with caplog.at_level(logging.WARNING, logger="rag_frozen"):
        assert len(list(reader)) == 1
    assert reader.report.malformed == 30
    assert [problem.line for problem in reader.report.problems] == [1, 2, 3]
    assert reader.report.summary() == "1 passages kept, 30 rows left out (30 bad JSON)"
    assert "30 rows left out" in caplog.text


def test_strict_raises_at_the_first_problem_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", ONE + TWO + ONE + "{\n")
    with pytest.raises(DataFormatError, match="line 3: duplicate id"):
        list(read_passages(path, strict=True))


def test_an_empty_file_holds_no_passages(tmp_path: Path) -> None:
    assert read(write(tmp_path / "p.jsonl", ""))[0] == []
    assert read(write(tmp_path / "p.tsv", "id\ttext\ttitle\n"))[0] == []
