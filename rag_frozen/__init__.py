"""Retrieval-augmented open-domain question answering around a frozen language model.

>>> import rag_frozen
>>> rag_frozen.ask("who painted the mona lisa").text  # doctest: +SKIP
'Leonardo da Vinci'

Importing this package loads no model and no network; :func:`ask` does, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rag_frozen.errors import RagFrozenError
from rag_frozen.types import Answer, Context, Evidence, Generation, Hit, Passage, Question

if TYPE_CHECKING:
    from rag_frozen.pipeline import Pipeline

__all__ = [
    "Answer",
    "Context",
    "Evidence",
    "Generation",
    "Hit",
    "Passage",
    "Question",
    "RagFrozenError",
    "__version__",
    "ask",
    "load_pipeline",
]

__version__ = "0.1.0"


def ask(question: str) -> Answer:
    """Answer one question with the embedded pipeline, which is loaded at the first call and kept.

    For another pipeline: ``load_pipeline("NAME").ask(question)``.

    Raises:
        InputError: when the question is empty, too long, or no text.
    """
    return _pocket().ask(question)


def load_pipeline(
    recipe: str | Path = "pocket", *, root: Path | None = None, overrides: Sequence[str] = ()
) -> Pipeline:
    """Make a pipeline from a recipe's name or path; it has ``.ask(text)`` and ``.answer(list)``.

    Args:
        recipe: ``pocket``, another name under ``pipelines/``, or the path of a YAML file.
        root: folder of artifacts; ``RAG_FROZEN_HOME``, else the user's cache, by default.
        overrides: ``a.b=c`` settings.

    Raises:
        RagFrozenError: when the recipe, an artifact or a model cannot be used.
    """
    from rag_frozen.build import load_pipeline as load

    return load(recipe, root=root, overrides=overrides)


@lru_cache(maxsize=1)
def _pocket() -> Pipeline:
    return load_pipeline("pocket")
