"""Tuning climbs stated steps to the first that reaches the recall, or says the best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import CheckFailedError
from rag_frozen.retrieval.dense_tuning import Neighbours, exact_neighbours, recall, tune
from tests.retrieval.clustered import clustered, questions, store


class Ladder:
    """Finds ``breadth`` of ten neighbours, each behind three others that are none."""

    width, refine, breadth = 4, 1, 1
    breadth_name = "lists"

    def __init__(self, breadths: tuple[int, ...], refinements: tuple[int, ...]) -> None:
        self.breadths, self.refinements = breadths, refinements
        self.asked: list[int] = []

    def candidates(self, queries, *, n, breadth):
        self.asked.append(breadth)
        rows = np.full((len(queries), n), -1, dtype=np.int64)
        for number in range(min(breadth, 10)):
            if 4 * number + 3 < n:
                rows[:, 4 * number + 3] = number
        return rows

    def search(self, queries, *, k):
        raise AssertionError("tuning asks for candidates")

    def __len__(self) -> int:
        return 100


TRUTH = Neighbours(np.tile(np.arange(10), (3, 1)), 10)
QUERIES = np.zeros((3, 4), dtype=np.float32)


def test_the_first_steps_that_reach_the_recall_are_taken():
    engine = Ladder((1, 4, 8, 9, 10), (1, 2, 3, 4))
    found = tune(engine, QUERIES, TRUTH, target=0.8)
    # 8 lists reach 0.8 but not 0.85; with 9 it takes 32 candidates for 8 of 10, so 4 times k
    assert (found.breadth, found.refine, found.recall) == (9, 4, 0.9)
    assert engine.asked == [1, 4, 8, 9]


def test_the_target_alone_is_enough_where_no_step_leaves_slack():
    found = tune(Ladder((1, 8), (1, 4)), QUERIES, TRUTH, target=0.8)
    assert (found.breadth, found.refine, found.recall) == (8, 4, 0.8)


def test_one_ladder_is_climbed_without_slack():
    found = tune(Ladder((2, 6, 7, 10), (4,)), QUERIES, TRUTH, target=0.7)
    assert (found.breadth, found.refine, found.recall) == (7, 4, 0.7)


def test_a_recall_that_cannot_be_reached_is_an_error_with_the_best():
    with pytest.raises(
        CheckFailedError, match=r"recall@10 0\.95.*3 queries is 0\.9000, with lists 9, cand"
    ):
        tune(Ladder((1, 4, 9), (1, 4)), QUERIES, TRUTH, target=0.95)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True), st.integers(1, 8))
def test_recall_is_a_share_that_grows_with_what_is_found(found, k):
    truth = Neighbours(np.arange(k)[None], k)
    recalls = [recall(np.array([found[:n]]), truth) for n in range(1, len(found) + 1)]
    assert recalls == sorted(recalls)
    assert recalls[-1] == pytest.approx(len(set(found) & set(range(k))) / k)


def test_true_neighbours_are_those_of_a_full_sort_and_ties_all_count(tmp_path: Path):
    made = clustered(900)
    made[700:] = made[3]  # two hundred that tie with one another
    stored = store(tmp_path, made, dtype="float32", shard_size=128)
    asked = np.vstack((questions(20), made[3:4]))
    truth = exact_neighbours(stored, asked, k=10)
    order = np.argsort(-(asked @ made.T), axis=1, kind="stable")[:, :10]
    for place in range(20):
        wanted = truth.rows[place][truth.rows[place] >= 0]
        if not set(wanted) & set(range(700, 900)):
            assert set(wanted) == set(order[place])
    tied = truth.rows[20][truth.rows[20] >= 0]
    assert len(tied) == 54
    assert set(tied) <= {3, *range(700, 900)}
    assert recall(np.array([tied[20:30]]), Neighbours(truth.rows[20:], 10)) == 1.0


def test_fewer_vectors_than_neighbours_are_all_wanted(tmp_path: Path):
    truth = exact_neighbours(store(tmp_path, clustered(5)), questions(3), k=20)
    assert truth.k == 5
    assert sorted(truth.rows[0]) == [0, 1, 2, 3, 4]
