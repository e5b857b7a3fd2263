"""Every recipe that ships loads, and names what exists."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rag_frozen.recipes.ablation import AblationRecipe
from rag_frozen.recipes.evaluation import EvalRecipe
from rag_frozen.recipes.index import IndexRecipe
from rag_frozen.recipes.loading import list_recipes, load_recipe
from rag_frozen.recipes.pipeline import ClosedBook, Fusion, PipelineRecipe
from rag_frozen.studies.settings import PromptStudy
from rag_frozen.training.prompt_settings import PromptTraining
from rag_frozen.training.reranker_settings import RerankerTraining
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.settings import ReaderTraining

ROOT = Path(__file__).parents[2]
EVALUATIONS = {"ablation": AblationRecipe, "eval": EvalRecipe}
TRAININGS = {
    "pocket-reader": ReaderTraining,
    "pocket-reranker": RerankerTraining,
    "pocket-retriever": RetrieverTraining,
    "prompt": PromptTraining,
}


def _kind(folder: str, name: str) -> str | None:
    path = ROOT / folder / f"{name}.yaml"
    kind: str | None = yaml.safe_load(path.read_text(encoding="utf-8")).get("kind")
    return kind


@pytest.mark.parametrize("name", list_recipes("indexes"))
def test_index_recipes_load(name: str):
    assert load_recipe(name, IndexRecipe, folder="indexes").name == name


@pytest.mark.parametrize("name", list_recipes("pipelines"))
def test_pipeline_recipes_load_and_name_an_index_with_what_they_search(name: str):
    recipe = load_recipe(name, PipelineRecipe, folder="pipelines")
    assert recipe.name == name
    if isinstance(recipe.retrieval, ClosedBook):
        return
    index = load_recipe(recipe.index or "", IndexRecipe, folder="indexes")
    retrieval = recipe.retrieval
    kinds = [p.kind for p in retrieval.parts] if isinstance(retrieval, Fusion) else [retrieval.kind]
    assert all(getattr(index, kind) is not None for kind in kinds)


@pytest.mark.parametrize("name", list_recipes("eval"))
def test_evaluation_recipes_load_and_name_a_pipeline(name: str):
    kind = _kind("eval", name)
    if kind == "prompt-study":
        assert load_recipe(name, PromptStudy, folder="eval").name == name
        return
    recipe = load_recipe(name, EVALUATIONS[kind], folder="eval")
    assert recipe.name == name
    assert recipe.pipeline in list_recipes("pipelines")


@pytest.mark.parametrize("name", list_recipes("pipelines/train"))
def test_training_recipes_load(name: str):
    settings = TRAININGS[_kind("pipelines/train", name)]
    assert load_recipe(name, settings, folder="pipelines/train").name == name


def test_the_pocket_pipeline_reads_as_it_was_trained():
    pipeline = load_recipe("pocket", PipelineRecipe, folder="pipelines")
    training = load_recipe("pocket-reader", ReaderTraining, folder="pipelines/train")
    assert pipeline.packing.template == training.template


def test_readers_of_the_hub_are_there_with_and_without_reranker_and_closed_book():
    names = list_recipes("pipelines")
    recipes = [load_recipe(name, PipelineRecipe, folder="pipelines") for name in names]
    models = " ".join(recipe.reader.model for recipe in recipes)
    assert all(family in models for family in ("Qwen2.5", "Qwen3", "Llama-3", "t5"))
    assert {recipe.reranker.kind for recipe in recipes} == {"none", "cross-encoder"}
    assert any(isinstance(recipe.retrieval, ClosedBook) for recipe in recipes)


def test_the_pocket_reranker_s_judge_reads_as_the_pocket_pipeline_does():
    pipeline = load_recipe("pocket", PipelineRecipe, folder="pipelines")
    training = load_recipe("pocket-reranker", RerankerTraining, folder="pipelines/train")
    assert training.likelihood is not None
    assert training.likelihood.template == pipeline.packing.template
    assert training.likelihood.reader.model == pipeline.reader.model
