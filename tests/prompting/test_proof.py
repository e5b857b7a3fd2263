"""A proof has four parts, and each can fail alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rag_frozen.prompting.heads import StaticHead
from rag_frozen.prompting.proof import PromptProof, prove_head, time_head
from rag_frozen.prompting.soft_prompt import SoftPrompt
from rag_frozen.types import Context, Question
from tests.contracts.test_reader import prefix_reader

GOOD = PromptProof("a", "a", 0.5, True, 0.0, 20.0, 40.0, 0.001, 200)
CONTEXTS = [Context(Question("0", "who"), "question: who wrote hamlet", 0)]


def test_a_good_prompt_has_no_fault():
    assert GOOD.faults() == []
    assert GOOD.to_json()["faults"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base_after": "b"}, "weights changed"),
        ({"largest_difference": 0.0}, "does not change what the reader writes"),
        ({"largest_difference": float("nan")}, "does not change what the reader writes"),
        ({"bitwise_after_loading": False}, "not the same after saving and loading"),
        ({"difference_after_loading": 1e-7}, "not the same after saving and loading"),
        ({"conditioned": 20.0}, "no gain over the plain reader"),
        ({"p": 0.06}, "no gain over the plain reader"),
    ],
)
def test_each_part_that_fails_is_told_alone(changes, said):
    [fault] = replace(GOOD, **changes).faults()
    assert said in fault


def test_a_prompt_is_compared_with_none_and_with_itself_as_loaded(tmp_path: Path):
    from rag_frozen.reader.decoding import Decoding

    reader = prefix_reader(tmp_path, decoding=Decoding())
    torch.manual_seed(0)
    head = StaticHead(SoftPrompt(torch.randn(3, 32)))
    difference, same, after = prove_head(reader, head, head, CONTEXTS, ["hamlet"])
    assert difference > 1e-3
    assert same
    assert after == 0
    other = StaticHead(SoftPrompt(torch.randn(3, 32)))
    difference, same, after = prove_head(reader, head, other, CONTEXTS, ["hamlet"])
    assert not same
    assert after > 0
    without, with_it = time_head(reader, head, CONTEXTS, ["hamlet"])
    assert without > 0
    assert with_it > 0
