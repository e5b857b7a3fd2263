"""Answers that are quoted, through the whole embedded pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_frozen.build import load_pipeline
from rag_frozen.errors import RecipeError
from rag_frozen.pipeline import Pipeline
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.recipes.pipeline import FreeAnswers, PipelineRecipe, QuotedAnswers
from rag_frozen.types import Answer

SMALL = ["reranker={kind: none}", "retrieval={kind: bm25, k: 3}", "dtype=float32"]
QUESTIONS = [
    "how deep is lake baikal",
    "who drew the border between india and pakistan",
    "what did the purple zeppelin of mr krumholtz sing",
    "lingual lipase phosphorylation of the zygomaticus",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


def ask(root: Path, *overrides: str) -> tuple[Pipeline, list[Answer]]:
    pipeline = load_pipeline("pocket", root=root, overrides=[*SMALL, *overrides])
    return pipeline, pipeline.answer(QUESTIONS)


@pytest.mark.parametrize(
    "reading", ["{kind: packed}", "{kind: each, scores: retrieve, weight: 0.1}"]
)
def test_every_answer_stands_in_a_passage_that_was_read(root: Path, reading: str):
    _, answers = ask(root, "answers={kind: quoted, also: []}", f"reading={reading}")
    for answer in answers:
        read = [one.passage for one in answer.evidence]
        texts = [" ".join(text.split()) for one in read for text in (one.title, one.text)]
        assert answer.text
        assert any(answer.text in text for text in texts), answer
        assert answer.confidence < 1


def test_where_answers_are_free_the_reader_may_write_what_stands_nowhere(root: Path):
    pipeline, free = ask(root, "answers={kind: free}")
    assert all(one.context is not None and one.context.quotable is None for one in free)
    _, quoted = ask(root, "answers={kind: quoted}")
    for ours, theirs in zip(quoted, free, strict=True):
        assert ours.context is not None
        assert theirs.context is not None
        assert ours.context.prompt == theirs.context.prompt
        assert ours.context.quotable is not None
        assert ours.context.quotable.also == ("yes", "no")
    assert pipeline.recipe["answers"] == {"kind": "free"}


def test_recipes_say_whether_answers_are_quoted():
    def recipe(*overrides: str) -> PipelineRecipe:
        return load_recipe("pocket", PipelineRecipe, folder="pipelines", overrides=overrides)

    assert PipelineRecipe.model_fields["answers"].default == FreeAnswers()
    assert recipe().answers == QuotedAnswers(kind="quoted")
    assert recipe("answers={kind: quoted, also: [unknown]}").answers == QuotedAnswers(
        kind="quoted", also=("unknown",)
    )
    with pytest.raises(RecipeError, match="answers"):
        recipe("answers={kind: copied}")
