"""Public collections as they are laid out: BEIR's folders, KILT's articles, Pyserini's rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rag_frozen.corpus import read_passages
from rag_frozen.corpus.rows import record_passage, tsv_header
from rag_frozen.errors import DataFormatError
from rag_frozen.types import Passage


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_of_a_beir_folder_the_passages_are_read_and_the_queries_are_not(
    tmp_path: Path, ending: str
) -> None:
    def write(name: str, rows: list[dict[str, object]]) -> None:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (tmp_path / (name + ending)).write_bytes(gzip.compress(content) if ending else content)

    write("corpus.jsonl", [{"_id": "d1", "title": "A", "text": "one", "metadata": {}}])
    write("queries.jsonl", [{"_id": "q1", "text": "what is one"}])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    assert list(read_passages(tmp_path)) == [Passage("d1", "A", "one")]


def test_a_kilt_article_is_its_paragraphs_without_title_and_headings(tmp_path: Path) -> None:
    row = {
        "_id": "290",
        "wikipedia_id": "290",
        "wikipedia_title": "A",
        "text": [
            "A\n",
            "A is a letter.\n",
            "Section::::History.\n",
            "It is old.\n",
            "BULLET::::- an item\n",
        ],
        "anchors": [{"href": "Letter"}],
    }
    path = tmp_path / "kilt_knowledgesource.json"
    path.write_text(json.dumps(row) + "\n")
    expected = Passage("290", "A", "A is a letter.\nIt is old.\nan item")
    assert list(read_passages(path)) == [expected]
    on_hub = {**row, "text": {"paragraph_id": [0, 1, 2, 3, 4], "paragraph": row["text"]}}
    assert record_passage(on_hub) == expected
    broken = read_passages(path, strict=True)
    path.write_text(json.dumps({**row, "text": [1, 2]}) + "\n")
    with pytest.raises(DataFormatError, match="line 1: wrong type: text must be text"):
        list(broken)


def test_kilts_and_dprs_tables_of_passages_are_read_by_their_headers(tmp_path: Path) -> None:
    path = tmp_path / "kilt_w100_title.tsv"
    path.write_text("id\ttext\ttitle\n1\tone\tA\n")
    assert list(read_passages(path)) == [Passage("1", "A", "one")]
    path.write_text("pid\tpassage\n7\tan unnamed one\n")
    assert list(read_passages(path)) == [Passage("7", "", "an unnamed one")]
    assert tsv_header(["docid", "contents", "title"]) == ("id", "text", "title")
