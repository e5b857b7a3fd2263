"""Load the questions that an evaluation recipe names."""

from __future__ import annotations

from rag_frozen.errors import RecipeError
from rag_frozen.evaluation.datasets import read_examples, read_hub_examples, read_pocket_examples
from rag_frozen.evaluation.examples import ExampleSet
from rag_frozen.recipes.evaluation import EvalRecipe, FileData, HubQuestions

__all__ = ["load_examples"]


def load_examples(recipe: EvalRecipe) -> ExampleSet:
    """Read the recipe's data set.

    Raises:
        RecipeError: when a file is to be named and is not.
        InputError, DataFormatError, ModelMissingError: when it cannot be read.
    """
    match recipe.data:
        case FileData(path=None):
            raise RecipeError(
                f"The evaluation {recipe.name} reads a local file. Name it with: "
                "--set data.path=FILE"
            )
        case FileData(path=path) | HubQuestions(path=path) if path is not None:
            return read_examples(path, name=recipe.name)
        case HubQuestions() as hub:
            return read_hub_examples(
                hub.name, config=hub.config, split=hub.split, revision=hub.revision
            )
        case _:
            return read_pocket_examples()
