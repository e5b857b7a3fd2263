"""Stored runs: written and read without loss, and wrong ones told with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.corpus.store import ArrowPassageStore
from rag_frozen.corpus.store_writing import write_store
from rag_frozen.errors import DataFormatError, InputError, UnknownPassageError
from rag_frozen.retrieval.replay import ReplayRetriever, read_trec_run, write_trec_run
from rag_frozen.types import Hit, Passage, Question, sort_hits

ids = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)
floats = st.floats(allow_nan=False, allow_infinity=False)
rankings = st.dictionaries(
    ids,
    st.dictionaries(ids, floats, min_size=1, max_size=6).map(
        lambda found: sort_hits(Hit(name, score) for name, score in found.items())
    ),
    max_size=4,
)


@given(rankings)
def test_a_run_written_and_read_is_the_same(tmp_path_factory, of):
    path = tmp_path_factory.mktemp("run") / "run.trec"
    write_trec_run(path, of.items(), tag="t")
    assert read_trec_run(path) == of


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("q Q0 p 1 2.0", "5 fields"),
        ("q Q0 p 1 high tag", "no number"),
        ("q Q0 p 1 nan tag", "not finite"),
        ("q Q0 a 2 1.0 tag", "twice"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, said: str):
    path = tmp_path / "run.trec"
    path.write_text(f"q Q0 a 1 2.0 tag\n{line}\n", encoding="utf-8")
    with pytest.raises(DataFormatError, match=f"line 2: .*{said}"):
        read_trec_run(path)


def test_a_run_over_another_corpus_or_of_other_questions_is_refused(tmp_path: Path):
    write_store(tmp_path, [Passage("a", "t", "x")])
    store = ArrowPassageStore(tmp_path)
    with pytest.raises(UnknownPassageError, match="not over this corpus"):
        ReplayRetriever({"q": (Hit("zz", 1.0),)}, name="r", store=store)
    replay = ReplayRetriever({"q": (Hit("a", 1.0),)}, name="r", store=store)
    with pytest.raises(InputError, match="no ranking for 1 of 1"):
        replay.retrieve([Question("other", "x")], k=1)


def test_ids_with_white_space_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="white space"):
        write_trec_run(tmp_path / "r", [("q 1", (Hit("a", 1.0),))], tag="t")
