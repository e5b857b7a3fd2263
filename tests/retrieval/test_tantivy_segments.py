"""tantivy indexes written in parts: one segment in the end, and the same rankings."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.retrieval.bm25_tantivy import TantivyRetriever, build_tantivy
from rag_frozen.retrieval.tantivy_segments import SegmentPlan, plan_segments
from rag_frozen.types import Passage, Question

WORDS = [f"word{n}" for n in range(400)]
SMALLEST = 15 * 2**20


def passages(n: int, *, words: int) -> list[Passage]:
    chance = random.Random(n)
    return [Passage(f"p{row}", "T", " ".join(chance.choices(WORDS, k=words))) for row in range(n)]


def sizes(folder: Path) -> list[int]:
    told = json.loads((folder / "tantivy" / "meta.json").read_text())
    return [segment["max_doc"] for segment in told["segments"]]


def in_parts(n: int, parts: int, heap: int = SMALLEST) -> SegmentPlan:
    return SegmentPlan(n, parts, 0, heap, 1, True)


def test_eight_parts_become_one_segment_with_the_rankings_of_one_part(tmp_path: Path):
    for n in (9, 2_003):
        rows = passages(n, words=12)
        for parts in (1, 8):
            build_tantivy(tmp_path / f"{n}-{parts}", rows, plan=in_parts(n, parts))
            assert sizes(tmp_path / f"{n}-{parts}") == [n]
        questions = [Question(word, f"{word} word7") for word in WORDS[:20]]
        one, eight = (TantivyRetriever(tmp_path / f"{n}-{parts}") for parts in (1, 8))
        assert one.segments == eight.segments == 1
        assert eight.retrieve(questions, k=10) == one.retrieve(questions, k=10)


@pytest.mark.soak
def test_sixty_four_parts_become_one_segment(tmp_path: Path):
    n = 64 * 2_300
    counted, _ = build_tantivy(tmp_path / "i", passages(n, words=1), plan=in_parts(n, 64))
    assert (counted, sizes(tmp_path / "i")) == (n, [n])


def test_a_writer_without_memory_for_its_part_leaves_segments_and_one_with_parts_none(
    tmp_path: Path,
):
    chance = random.Random(0)
    odd = [
        Passage(str(row), "T", " ".join(f"{chance.randrange(10**9):x}" for _ in range(100)))
        for row in range(900)
    ]
    build_tantivy(tmp_path / "short", odd, plan=in_parts(len(odd), 1))
    assert len(sizes(tmp_path / "short")) > 1
    build_tantivy(tmp_path / "long", odd, plan=in_parts(len(odd), 1, 64 * 2**20))
    build_tantivy(tmp_path / "parts", odd, plan=in_parts(len(odd), 8))
    assert sizes(tmp_path / "long") == sizes(tmp_path / "parts") == [900]


@given(
    n=st.integers(1, 100_000_000),
    each=st.integers(1, 20_000),
    heap=st.integers(16, 4_095),
)
def test_a_plan_keeps_each_part_within_its_memory(n: int, each: int, heap: int):
    plan = plan_segments(n, n * each, heap_mb=heap)
    assert plan.parts == 8**plan.merges
    assert plan.memory <= plan.heap_bytes == heap * 2**20
    if plan.parts > 8:  # smaller ones would be merged with what eight of them became
        assert n // plan.parts >= 4_096
    assert plan.one_segment or n > 80_000_000
    ends = [plan.part(row) for row in (0, n // 2, n - 1, n + 5)]
    assert ends == sorted(ends)
    assert ends[0] == 0
    assert ends[-1] <= plan.parts - 1


def test_parts_are_alike_in_size():
    for n, parts in ((1_000, 8), (1_001, 8), (9, 8), (70_001, 64)):
        plan = in_parts(n, parts)
        of = [0] * parts
        for row in range(n):
            of[plan.part(row)] += 1
        assert max(of) - min(of) <= 1
