"""How an answer looks in a terminal and as JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from rag_frozen.cli.display import answer_json, print_answer
from rag_frozen.types import Answer, Evidence, Generation
from tests.test_pipeline import Echo, pipeline, reading_each


def shown(answer: Answer) -> str:
    out = io.StringIO()
    print_answer(answer, console=Console(file=out, highlight=False, width=200))
    return out.getvalue()


def test_each_passage_that_was_read_alone_shows_its_own_answer_and_what_it_counts():
    text = shown(reading_each().ask("which city"))
    first, second = text.index("alone: Paris"), text.index("alone: Rome")
    assert first < second
    assert "log-probability -0.50   counts 0.88" in text
    assert "log-probability -0.50   counts 0.12" in text
    assert "alone:" not in shown(pipeline().ask("which city"))


def test_silence_and_control_characters_of_one_passage_are_shown_as_such():
    answer = reading_each().ask("which city")
    [own, other] = (one.own for one in answer.evidence)
    assert own is not None
    assert other is not None
    silent = replace(own, generation=Generation("", -1.0, 1, "end"))
    steering = replace(other, generation=Generation("a\x1b[2Jb", float("-inf"), 1, "end"))
    changed: tuple[Evidence, ...] = tuple(
        replace(one, own=read)
        for one, read in zip(answer.evidence, (silent, steering), strict=True)
    )
    text = shown(replace(answer, evidence=changed))
    assert "alone: (no answer)" in text
    assert "alone: a [2Jb" in text
    assert answer_json(replace(answer, evidence=changed))["evidence"][1]["alone"]["logprob"] is None


def test_the_json_of_an_answer_holds_what_each_passage_said():
    found = json.loads(json.dumps(answer_json(reading_each().ask("which city")), allow_nan=False))
    own = [one["alone"] for one in found["evidence"]]
    assert [one["answer"] for one in own] == ["Paris", "Rome"]
    assert [one["logprob"] for one in own] == [-0.5, -0.5]
    assert sum(one["prior"] for one in own) == pytest.approx(1.0, abs=1e-12)
    plain = answer_json(pipeline(reader=Echo()).ask("which city"))
    assert all("alone" not in one for one in plain["evidence"])
