"""Prompt templates are checked when they are loaded."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rag_frozen.packing.template import PromptTemplate
from rag_frozen.types import Passage, Question


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("with_passages", "{passages} only", "must hold {question} once"),
        ("with_passages", "{passages}{question}{question}", "must hold {question} once, found 2"),
        ("with_passages", "{passages}{question}{answer}", "found \\['answer'\\]"),
        ("passage", "{title}", "must hold {text} once"),
        ("passage", "{text!r}", "a format"),
        ("passage", "{text.__class__}", "found"),
        ("closed_book", "{question", "not well formed"),
    ],
)
def test_a_wrong_template_is_refused_with_the_reason(field, value, said):
    with pytest.raises(ValidationError, match=said):
        PromptTemplate(**{field: value})


def test_braces_in_a_passage_or_a_question_are_plain_text():
    prompt = PromptTemplate().write(
        Question("q", "what is {x}?"), [Passage("1", "{title}", "a {text} b")]
    )
    assert "what is {x}?" in prompt
    assert "{title}\n\na {text} b" in prompt


def test_passages_can_be_numbered():
    template = PromptTemplate(passage="[{number}] {text}\n")
    prompt = template.write(Question("q", "?"), [Passage("1", "", "one"), Passage("2", "", "two")])
    assert "[1] one\n[2] two\n" in prompt
