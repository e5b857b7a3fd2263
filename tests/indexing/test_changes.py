"""A changed index is what building it anew would give, while only what was added is encoded."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rag_frozen.artifacts import verify
from rag_frozen.corpus import store_files, store_writing
from rag_frozen.errors import ArtifactMissingError, InputError, UnknownPassageError
from rag_frozen.indexing import build as building
from rag_frozen.indexing import changes, encoders, gathering, opening, parts
from rag_frozen.retrieval.dense_encoders import Vectors
from rag_frozen.types import Passage, Question
from tests.contracts.test_retriever import HashEncoder
from tests.indexing.test_build import Counting, recipe

NEW = [Passage(f"n{n}", f"N{n}", f"new passage {n} of the mountain river") for n in range(20)]
QUESTIONS = [Question(str(n), f"passage {n} of the river and mountain") for n in range(12)]
ENCODER = {"kind": "sentence-transformers", "model": "any"}


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    Counting.encoded = 0
    monkeypatch.setattr(encoders, "make_encoder", lambda settings, device=None: Counting())


def rankings(built: parts.BuiltIndex, role: str, k: int = 10):
    if role == "bm25":
        return opening.open_bm25(built).retrieve(QUESTIONS, k=k)
    return opening.open_dense(built, HashEncoder()).retrieve(QUESTIONS, k=k)


def ids(found) -> list[list[str]]:
    return [[hit.passage_id for hit in ranking] for ranking in found]


@pytest.mark.parametrize("kind", ["flat", "scalar-fp16", "hnsw", "exact-torch"])
def test_added_passages_are_found_as_after_a_new_build_and_they_alone_are_encoded(
    tmp_path: Path, kind: str
):
    dense = {"kind": kind, "encoder": ENCODER, "shard_size": 16}
    settings = recipe(tmp_path, dense=dense)
    before = building.build_index(settings, root=tmp_path)
    old = {part.role: rankings(before, part.role) for part in before.parts[1:]}
    Counting.encoded = 0
    changed = changes.change_index(settings, add=NEW, root=tmp_path)
    assert Counting.encoded == len(NEW)
    assert [p.id for batch in opening.open_store(changed).iter_passages() for p in batch][40:] == [
        p.id for p in NEW
    ]
    (tmp_path / "rows.jsonl").open("a").writelines(
        f'{{"id": "{p.id}", "title": "{p.title}", "text": "{p.text}"}}\n' for p in NEW
    )
    fresh = building.build_index(settings, root=tmp_path / "fresh")
    for role in ("bm25", "dense"):
        assert ids(rankings(changed, role)) == ids(rankings(fresh, role)), role
        assert rankings(before, role) == old[role], "the old index changed"
    for part in (*before.parts, *changed.parts):
        verify(part.folder)
        opening.check_agreement(changed if part in changed.parts else before, part)


@pytest.mark.parametrize("kind", ["flat", "scalar-int8", "ivf-pq-fastscan"])
def test_deleted_passages_are_gone_and_the_others_keep_their_order(tmp_path: Path, kind: str):
    tuned = {} if kind == "flat" else {"recall": 0.9, "tuning": {"n": 16}}
    if kind == "ivf-pq-fastscan":
        tuned["lists"] = 4
    settings = recipe(tmp_path, dense={"kind": kind, "encoder": ENCODER, "shard_size": 16, **tuned})
    before = building.build_index(settings, root=tmp_path)
    everything = {role: ids(rankings(before, role, k=40)) for role in ("bm25", "dense")}
    gone = [f"p{n}" for n in range(0, 40, 2)]
    changed = changes.change_index(settings, delete=gone, root=tmp_path)
    assert len(opening.open_store(changed)) == 20
    assert len(opening.open_bm25(changed)) == 20
    assert len(opening.open_dense(changed, HashEncoder())) == 20
    for role in ("bm25", "dense"):
        for found, all_of_them in zip(
            ids(rankings(changed, role, k=5)), everything[role], strict=True
        ):
            left = [one for one in all_of_them if one not in gone]
            assert len(found) == 5
            assert set(found).isdisjoint(gone)
            if kind == "flat" or role == "bm25":
                assert found == left[:5]
    with pytest.raises(UnknownPassageError, match="'p0'"):
        opening.open_store(changed).get(["p0"])


class Blank(HashEncoder):
    """The same vector for every passage, at once."""

    def encode_passages(self, passages: list[Passage]) -> Vectors:
        return np.ones((len(passages), self.width), dtype=np.float32)


def test_memory_does_not_grow_with_what_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoders, "make_encoder", lambda settings, device=None: Blank())
    for module in (gathering, store_files, store_writing):
        monkeypatch.setattr(module, "BATCH", 128)
    settings = recipe(tmp_path, dense={"kind": "flat", "encoder": ENCODER, "shard_size": 128})

    def passages(n: int) -> Iterator[Passage]:
        for number in range(n):
            words = " ".join(f"w{(number + place) % 90:040}" for place in range(60))
            yield Passage(f"new-{number}", f"New {number}", words)

    def held(n: int) -> int:
        """Most bytes held while ``n`` passages of 2.5 kB are added."""
        root = tmp_path / str(n)
        building.build_index(settings, root=root)
        gc.collect()
        tracemalloc.start()
        changed = changes.change_index(settings, add=passages(n), root=root)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert changed.part("dense").n_passages == changed.part("bm25").n_passages == 40 + n
        return highest

    held(10)  # what is set up once
    assert held(2_500) < held(1_000) + 2**20


def test_added_passages_take_the_place_of_those_that_are_there_where_that_is_asked(tmp_path: Path):
    settings = recipe(tmp_path)
    building.build_index(settings, root=tmp_path)
    new = [Passage("p7", "Volcano", "lava and ash"), NEW[0], Passage("p9", "Glacier", "old ice")]
    with pytest.raises(InputError, match=r"ids already: 'p7', 'p9'\. To replace"):
        changes.change_index(settings, add=iter(new), root=tmp_path)
    changed = changes.change_index(settings, add=iter(new), replace=True, root=tmp_path)
    assert [part.n_passages for part in changed.parts] == [41, 41, 41]
    assert opening.open_store(changed).get(["p9", "n0", "p7"]) == [new[2], new[1], new[0]]
    assert not list((tmp_path / "corpora" / "tiny").glob(".tmp-*"))


def test_the_changed_index_is_the_current_one_until_the_old_one_is_built_again(tmp_path: Path):
    settings = recipe(tmp_path)
    before = building.build_index(settings, root=tmp_path)
    changed = changes.change_index(settings, add=NEW, delete=["p3"], root=tmp_path)
    assert parts.index_parts(settings, root=tmp_path).part("corpus").n_passages == 59
    again = changes.change_index(settings, delete=["n4"], root=tmp_path)
    assert again.part("dense").n_passages == 58
    found = parts.index_parts(settings, root=tmp_path)
    assert [part.folder for part in found.parts] == [part.folder for part in again.parts]
    history = (again.part("corpus").folder / "changes.txt").read_text().splitlines()
    assert [line.split(" from ")[0] for line in history] == [
        "20 passages added to and 1 deleted",
        "0 passages added to and 1 deleted",
    ]
    rebuilt = building.build_index(settings, root=tmp_path)
    assert [part.folder for part in rebuilt.parts] == [part.folder for part in before.parts]
    found = parts.index_parts(settings, root=tmp_path)
    assert [part.folder for part in found.parts] == [part.folder for part in before.parts]
    repeated = changes.change_index(settings, add=NEW, delete=["p3"], root=tmp_path)
    assert [part.folder for part in repeated.parts] == [part.folder for part in changed.parts]
    assert Counting.encoded == 60


def test_a_replaced_passage_is_found_by_its_new_text_alone(tmp_path: Path):
    settings = recipe(tmp_path)
    building.build_index(settings, root=tmp_path)
    new = Passage("p7", "Volcano", "lava and ash")
    changed = changes.change_index(settings, add=[new], delete=["p7"], root=tmp_path)
    assert opening.open_store(changed).get(["p7"]) == [new]
    bm25 = opening.open_bm25(changed)
    assert ids(bm25.retrieve([Question("0", "lava ash")], k=3)) == [["p7"]]
    assert "p7" not in ids(bm25.retrieve([Question("0", "passage of the river")], k=100))[0]
    assert len(changed.part("dense").folder.joinpath("ids.arrow").read_bytes()) > 0


def test_a_change_that_dies_is_continued_without_encoding_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = recipe(tmp_path)
    building.build_index(settings, root=tmp_path)
    whole = changes.change_index(settings, add=NEW, root=tmp_path)
    wanted = rankings(whole, "dense")
    other = tmp_path / "other"
    building.build_index(settings, root=other)
    Counting.encoded = 0
    real = changes.build_search

    def dies(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(changes, "build_search", dies)
    with pytest.raises(KeyboardInterrupt):
        changes.change_index(settings, add=NEW, root=other)
    assert parts.index_parts(settings, root=other).part("corpus").n_passages == 40
    monkeypatch.setattr(changes, "build_search", real)
    continued = changes.change_index(settings, add=NEW, root=other)
    assert Counting.encoded == len(NEW)
    assert rankings(continued, "dense") == wanted
    files = [verify(built.part("dense").folder).files for built in (whole, continued)]
    assert files[0] == files[1]


def test_what_cannot_be_changed_is_told_and_nothing_is_written(tmp_path: Path):
    settings = recipe(tmp_path)
    with pytest.raises(ArtifactMissingError, match="is not built"):
        changes.change_index(settings, add=NEW, root=tmp_path)
    building.build_index(settings, root=tmp_path)
    before = sorted(tmp_path.rglob("*"))
    wrong = [
        (InputError, "Nothing is to be", {}),
        (UnknownPassageError, "Nothing was changed: .* holds no 'nobody'", {"delete": ["nobody"]}),
        (InputError, "'p1'.*--replace", {"add": [Passage("p1", "t", "x")]}),
        (InputError, "come twice.*'n1'", {"add": [NEW[1], NEW[1]]}),
        (InputError, "without text.*'e'", {"add": [Passage("e", "t", " ")]}),
        (InputError, "Nothing would be left", {"delete": [f"p{n}" for n in range(40)]}),
    ]
    for error, message, change in wrong:
        with pytest.raises(error, match=message):
            changes.change_index(settings, root=tmp_path, **change)
    assert sorted(tmp_path.rglob("*")) == before
