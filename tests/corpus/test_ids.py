from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.corpus.ids import SeenIds, hash_ids, ids_digest, update_ids_digest

WIKI_1 = 17729687461708491944  # stored in every corpus: a change of hash needs a new schema
ids = st.text(st.characters(codec="utf-8"), max_size=4)


def test_a_hash_is_the_same_on_every_machine_and_in_every_release() -> None:
    assert hash_ids(["wiki:1", ""]).tolist() == [
        int.from_bytes(hashlib.blake2b(one, digest_size=8).digest(), "little")
        for one in (b"wiki:1", b"")
    ]
    assert hash_ids(["wiki:1"]).tolist() == [WIKI_1]
    assert hash_ids([]).shape == (0,)


@given(st.lists(st.lists(ids, max_size=30), max_size=12))
def test_seen_ids_agree_with_a_set(blocks: list[list[str]]) -> None:
    seen, known = SeenIds(), set[str]()
    for block in blocks:
        expected = []
        for one in block:
            expected.append(one not in known)
            known.add(one)
        assert seen.add(block) == expected
    assert len(seen) == len(known)


def test_many_blocks_make_few_runs() -> None:
    seen = SeenIds()
    for start in range(0, 20_000, 100):
        assert all(seen.add([str(n) for n in range(start, start + 100)]))
    assert not any(seen.add([str(n) for n in range(20_000)]))
    assert len(seen) == 20_000
    assert len(seen._runs) < 12


@given(st.lists(ids, max_size=20), st.integers(0, 20))
def test_a_digest_of_ids_is_the_same_in_one_block_or_two(all_ids: list[str], cut: int) -> None:
    running = hashlib.sha256()
    update_ids_digest(running, all_ids[:cut])
    update_ids_digest(running, all_ids[cut:])
    assert running.hexdigest() == ids_digest(all_ids)


def test_a_digest_of_ids_knows_their_order_and_their_ends() -> None:
    assert ids_digest(["a", "b"]) != ids_digest(["b", "a"])
    assert ids_digest(["ab"]) != ids_digest(["a", "b"])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_hashes_are_64_bits(count: int) -> None:
    assert hash_ids([str(n) for n in range(count)]).dtype == np.uint64
