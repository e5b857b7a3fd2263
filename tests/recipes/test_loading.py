"""Recipes: a wrong one names its file, the place in it and the nearest valid field."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_frozen.errors import RecipeError
from rag_frozen.recipes.loading import find_recipe, load_recipe, read_recipe
from rag_frozen.recipes.pipeline import PipelineRecipe


def load(*overrides: str) -> PipelineRecipe:
    return load_recipe("pocket", PipelineRecipe, folder="pipelines", overrides=overrides)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("retrival.kind=bm25", "retrival: there is no such field; did you mean retrieval"),
        ("reranker.dept=3", r"reranker.*dept: .*did you mean depth"),
        ("retrieval.parts.0.kk=3", r"parts\.0.*kk: .*did you mean k"),
        ("reader.decoding.kind=gredy", "'gredy'"),
        ("packing.template.passage=x", "must hold {text} once"),
        ("retrieval.parts.7.k=3", "7 is no place in a list of 2"),
        ("name.x=3", "name is 'pocket' and has no fields"),
        ("no-equals-sign", "write it as a.b=c"),
        ("reader={kind: causal}", r"reader\.causal\.model: Field required"),
        ("retrieval.k=0", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_said(override: str, said: str):
    with pytest.raises(RecipeError, match=said):
        load(override)


def test_overrides_are_yaml_values():
    recipe = load("retrieval.parts.1.k=7", "reader.decoding.kind=beam", "packing.window=null")
    assert recipe.retrieval.parts[1].k == 7  # type: ignore[union-attr]
    assert recipe.reader.decoding.kind == "beam"
    assert recipe.packing.window is None


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(RecipeError, match="There are: pocket"):
        find_recipe("poket", "pipelines")
    with pytest.raises(RecipeError, match="no recipe file"):
        find_recipe("missing.yaml", "pipelines")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "stands twice"),
        ("a: [1\n", "not well-formed YAML"),
        ("- 1\n", "must be a mapping"),
        ("a: !!python/object:os.system {}\n", "not well-formed YAML"),
    ],
)
def test_yaml_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str):
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=said):
        read_recipe(path)
