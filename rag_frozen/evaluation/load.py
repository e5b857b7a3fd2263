"""Load the questions that an evaluation recipe names."""

from __future__ import annotations

from dataclasses import replace

from rag_frozen.errors import RecipeError
from rag_frozen.evaluation.datasets import read_examples, read_hub_examples, read_pocket_examples
from rag_frozen.evaluation.examples import ExampleSet
from rag_frozen.evaluation.text_rows import read_text_rows
from rag_frozen.recipes.ablation import AblationRecipe
from rag_frozen.recipes.evaluation import (
    EvalRecipe,
    FileData,
    HubQuestions,
    PocketQuestions,
    TextRows,
)

__all__ = ["load_examples"]


def load_examples(recipe: EvalRecipe | AblationRecipe) -> ExampleSet:
    """Read the recipe's data set, under the recipe's name, cut to its limit.

    Raises:
        RecipeError: when a file is to be named and is not.
        InputError, DataFormatError, ModelMissingError: when it cannot be read.
    """
    data = replace(_all_examples(recipe), name=recipe.name)
    return data if recipe.limit is None else data.first(recipe.limit)


def _all_examples(recipe: EvalRecipe | AblationRecipe) -> ExampleSet:
    match recipe.data:
        case FileData(path=None) | TextRows(path=None):
            raise RecipeError(
                f"The evaluation {recipe.name} reads a local file. Name it with: "
                "--set data.path=FILE"
            )
        case FileData(path=path) as file if path is not None:
            return read_examples(
                path,
                form=file.format,
                split=file.split,
                allow_unanswerable=file.unanswerable,
                patterns=file.patterns,
            )
        case TextRows(path=path) as rows if path is not None:
            return read_text_rows(rows, path)
        case HubQuestions(path=path) as hub if path is not None:
            return read_examples(path, form=hub.format)
        case HubQuestions() as hub:
            return read_hub_examples(
                hub.name, config=hub.config, split=hub.split, revision=hub.revision
            )
        case PocketQuestions(path=path) if path is not None:
            return read_examples(path, allow_unanswerable=True)
        case _:
            return read_pocket_examples()
