"""What every ``PassageStore`` keeps to. A further store joins by one line in ``STORES``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_frozen.corpus import ArrowPassageStore
from rag_frozen.corpus.store_writing import write_store
from rag_frozen.errors import UnknownPassageError
from rag_frozen.protocols import PassageStore
from rag_frozen.retrieval.lucene_build import build_lucene
from rag_frozen.retrieval.lucene_contents import LucenePassages
from rag_frozen.types import Passage
from tests.lucene import INSTALLED

Make = Callable[[Path, Sequence[Passage]], PassageStore]

PASSAGES = [Passage(f"p{n}", f"Title {n % 7}", f"Text {n} — naïve, \t“quoted”") for n in range(50)]


def arrow(folder: Path, passages: Sequence[Passage]) -> PassageStore:
    write_store(folder, passages)
    return ArrowPassageStore(folder)


def lucene(folder: Path, passages: Sequence[Passage]) -> PassageStore:
    build_lucene(folder / "index", passages, store_contents=True, threads=2)
    return LucenePassages(folder / "index")


# Without Lucene there is one less; the tests of Lucene itself say so.
STORES: dict[str, Make] = {"arrow": arrow, **({"lucene": lucene} if INSTALLED else {})}


@pytest.fixture(params=sorted(STORES))
def make(request: pytest.FixtureRequest) -> Make:
    return STORES[request.param]


@pytest.fixture
def store(make: Make, tmp_path: Path) -> PassageStore:
    return make(tmp_path, PASSAGES)


def test_it_is_a_passage_store_of_all_passages(store: PassageStore) -> None:
    assert isinstance(store, PassageStore)
    assert len(store) == len(PASSAGES)


@settings(max_examples=30)
@given(asked=st.lists(st.integers(0, len(PASSAGES) - 1), max_size=120))
def test_passages_come_in_the_order_asked_repeated_ones_too(
    tmp_path_factory: pytest.TempPathFactory, asked: list[int]
) -> None:
    for number, make in enumerate(STORES.values()):
        folder = tmp_path_factory.mktemp(f"store{number}")
        got = make(folder, PASSAGES).get([PASSAGES[n].id for n in asked])
        assert got == [PASSAGES[n] for n in asked]


def test_a_batch_of_n_gives_what_n_batches_of_one_give(store: PassageStore) -> None:
    ids = [passage.id for passage in reversed(PASSAGES)]
    assert store.get(ids) == [store.get([one])[0] for one in ids]


def test_no_ids_give_no_passages(store: PassageStore) -> None:
    assert store.get([]) == []


def test_unknown_ids_are_an_error_that_names_them(store: PassageStore) -> None:
    with pytest.raises(UnknownPassageError, match="'nobody'"):
        store.get(["p0", "nobody", "p1"])
    with pytest.raises(UnknownPassageError, match="and 35 more"):
        store.get([f"q{n}" for n in range(40)])


@pytest.mark.parametrize("near", ["", "P0", "p0 ", "p", "p00", "p0\0"])
def test_only_the_exact_id_is_known(store: PassageStore, near: str) -> None:
    with pytest.raises(UnknownPassageError):
        store.get([near])


def test_an_empty_store_holds_nothing(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path, [])
    assert len(store) == 0
    assert store.get([]) == []
    with pytest.raises(UnknownPassageError):
        store.get(["p0"])
