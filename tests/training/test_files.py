"""Files of rows and of ids: what is wrong in one is told with its line and what to do."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.training.files import read_ids, read_json_lines


def test_rows_are_read_plain_and_compressed_without_empty_lines(tmp_path: Path):
    text = '{"a": 1}\n\n{"a": 2}\n'
    (tmp_path / "a.jsonl").write_text(text)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.jsonl", "a.jsonl.gz"):
        assert [row["a"] for row in read_json_lines(tmp_path / name, fields=("a",))] == [1, 2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"[2]", "line 2: not a JSON object"),
        (b'{"a": ', "line 2: a line is not JSON"),
        (b'{"a": "\xe9"}', r"line 2: not UTF-8 \(byte 0xe9\).*iconv"),
        (b'{"b": 1, "c": 2}', r"line 2: the field a is missing \(there are: b, c\)"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, said: str):
    (tmp_path / "bad.jsonl").write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(DataFormatError, match=said):
        list(read_json_lines(tmp_path / "bad.jsonl", fields=("a",)))


def test_a_file_that_is_missing_cut_off_or_a_folder_is_told(tmp_path: Path):
    whole = gzip.compress(b'{"a": 1}\n' * 1000)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-12])
    (tmp_path / "plain.jsonl.gz").write_bytes(b'{"a": 1}\n')
    for name in ("cut.jsonl.gz", "plain.jsonl.gz", "missing.jsonl", ""):
        with pytest.raises(InputError, match=r"cannot be read: .*Check the path"):
            list(read_json_lines(tmp_path / name))


def test_ids_are_read_line_by_line_and_a_missing_file_is_told(tmp_path: Path):
    (tmp_path / "out.txt").write_text("a:1\n\n gold:* \n")
    assert read_ids(tmp_path / "out.txt") == ["a:1", "gold:*"]
    for name in ("none.txt", ""):
        with pytest.raises(InputError, match=r"cannot be read as a list .* one id a line"):
            read_ids(tmp_path / name)
