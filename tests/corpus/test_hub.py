"""Data sets as passages, streamed: from folders of data files here, as from the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rag_frozen.corpus.hub import HubDataset, count_rows, read_dataset, resolve_revision
from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.types import Passage

ROWS = [
    {"id": "1", "title": "Ada", "text": "She wrote.", "embeddings": [0.5, 0.5]},
    {"id": "2", "title": "Mercury", "text": "A planet.", "embeddings": [0.5, 0.5]},
    {"id": "3", "title": "Empty", "text": " ", "embeddings": [0.5, 0.5]},
    {"id": "1", "title": "Again", "text": "The same id.", "embeddings": [0.5, 0.5]},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir()
    for part in range(2):
        table = pa.Table.from_pylist(ROWS[2 * part : 2 * part + 2])
        pq.write_table(table, data / f"train-{part:05d}-of-00002.parquet")
    return data


def test_parquet_files_are_streamed_in_order_and_bad_rows_told(folder: Path) -> None:
    reader = read_dataset(HubDataset(str(folder)))
    assert list(reader) == [Passage("1", "Ada", "She wrote."), Passage("2", "Mercury", "A planet.")]
    assert reader.report.reasons == (("empty text", 1), ("duplicate id", 1))
    assert [problem.line for problem in reader.report.problems] == [3, 4]
    assert str(reader.report.problems[0]).startswith(f"{folder}/train, row 3: empty text")
    with pytest.raises(DataFormatError, match="row 3: empty text"):
        list(read_dataset(HubDataset(str(folder)), strict=True))


def test_fields_of_other_names_can_be_named(tmp_path: Path) -> None:
    rows = [{"key": 7, "name": "Ada", "body": "She wrote.", "text": "not this"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = HubDataset(str(tmp_path), id_field="key", title_field="name", text_field="body")
    assert list(read_dataset(named)) == [Passage("7", "Ada", "She wrote.")]
    missing = read_dataset(HubDataset(str(tmp_path), id_field="nokey"))
    assert list(missing) == []
    assert missing.report.problems[0].detail == "no field nokey, found: key, name, body, text"


def test_a_data_set_that_cannot_be_reached_says_what_to_check(folder: Path) -> None:
    with pytest.raises(InputError, match=r"split test\) cannot be read"):
        list(read_dataset(HubDataset(str(folder), split="test")))
    with pytest.raises(InputError, match="HF_HUB_OFFLINE=1"):
        list(read_dataset(HubDataset("nobody/nothing-of-this-name")))
    with pytest.raises(InputError, match="Check its name"):
        resolve_revision(HubDataset("nobody/nothing-of-this-name", revision="main"))


def test_a_damaged_file_is_told_with_the_last_row_before_it(folder: Path) -> None:
    second = folder / "train-00001-of-00002.parquet"
    second.write_bytes(second.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"breaks off after row 2|cannot be read"):
        list(read_dataset(HubDataset(str(folder))))


def test_a_folder_has_no_revision_and_no_card(folder: Path) -> None:
    assert resolve_revision(HubDataset(str(folder))) is None
    assert count_rows(HubDataset(str(folder))) is None
