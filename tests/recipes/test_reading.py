"""How a recipe says that passages are read, and which scores it may read them by."""

from __future__ import annotations

import pytest

from rag_frozen.build import joined_scores
from rag_frozen.errors import RecipeError
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.recipes.pipeline import EachReading, PackedReading, PipelineRecipe, score_stages
from rag_frozen.rerank.interpolation import JoinedScores

PACKED = "reading={kind: packed}"


def recipe(*overrides: str) -> PipelineRecipe:
    return load_recipe("pocket", PipelineRecipe, folder="pipelines", overrides=overrides)


def test_a_recipe_that_says_nothing_packs():
    assert PipelineRecipe.model_fields["reading"].default == PackedReading()
    assert recipe(PACKED).reading == PackedReading()


@pytest.mark.parametrize("scores", ["retrieve", "bm25", "dense", "rerank"])
def test_a_fused_and_reranked_pipeline_reads_by_any_of_its_stages(scores: str):
    reading = recipe(f"reading={{kind: each, scores: {scores}, weight: 3}}").reading
    assert isinstance(reading, EachReading)
    assert (reading.scores, reading.weight, reading.never_empty) == (scores, 3.0, True)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("reranker={kind: none}", "reading={kind: each, scores: rerank}"),
         r"reading\.scores is rerank.*are: retrieve, bm25, dense\."),
        (("retrieval={kind: bm25}", "reading={kind: each, scores: dense}"),
         r"reading\.scores is dense.*are: retrieve, bm25, rerank\."),
        (("retrieval={kind: replay, run: a.trec}", "reading={kind: each, scores: bm25}"),
         r"are: retrieve, replay, rerank\. Name one"),
        (("reading={kind: each, weight: -1}",), "weight"),
        (("reading={kind: each, weight: .inf}",), "weight"),
        (("reading={kind: packed, weight: 1}",), "weight"),
        (("reading={kind: each, scores: lucene}",), "scores"),
    ],
)  # fmt: skip
def test_scores_that_are_not_there_are_told_with_those_that_are(
    overrides: tuple[str, ...], said: str
):
    with pytest.raises(RecipeError, match=said):
        recipe(*overrides)


def test_a_reranker_joins_scores_that_its_retrieval_has():
    joined = "reranker={kind: cross-encoder, model: m, retrieval_weight: 1, retrieval_scores: %s}"
    settings = recipe(joined % "dense")
    assert joined_scores(settings) == JoinedScores(1.0, "dense")
    alone = recipe("retrieval={kind: dense}", joined % "dense", PACKED)
    assert joined_scores(alone) == JoinedScores(1.0, "retrieve")
    for other in ("{kind: bm25}", "{kind: closed-book}"):  # a weight belongs to one kind of score
        assert (
            joined_scores(recipe(f"retrieval={other}", joined % "dense", PACKED)) == JoinedScores()
        )
    assert joined_scores(recipe("reranker={kind: none}", PACKED)) == JoinedScores()


def test_a_retrieval_alone_goes_by_its_kind_and_a_stored_one_by_what_it_was_made_from():
    alone = recipe("retrieval={kind: dense}", "reading={kind: each, scores: dense}")
    assert score_stages(alone.retrieval, alone.reranker)["dense"] == "retrieve"
    stored = "{kind: replay, run: a.trec, scores: {dense: b.trec}}"
    replay = recipe(f"retrieval={stored}", "reading={kind: each, scores: dense}")
    assert score_stages(replay.retrieval, replay.reranker)["dense"] == "dense"


def test_closed_book_needs_no_scores():
    book = recipe("retrieval={kind: closed-book}", "reading={kind: each, scores: dense}")
    assert score_stages(book.retrieval, book.reranker) == {}
