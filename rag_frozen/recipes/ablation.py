"""Recipes of ablations (``eval/ablation-*.yaml``): a grid of pipelines over one data set.

Every axis may be left out: its setting is then the pipeline's own. What a grid's cells are is told
by ``rag_frozen.evaluation.ablation.grid``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from rag_frozen.recipes.evaluation import FileData, HubQuestions, PocketQuestions
from rag_frozen.recipes.pipeline import (
    Bm25Retrieval,
    DenseRetrieval,
    Fusion,
    ReadingSettings,
    ReplayRetrieval,
    RerankerSettings,
)

__all__ = ["CLOSED_BOOK", "AblationRecipe", "AxisName", "CellChange", "Level"]

AxisName = Literal["retriever", "reranker", "depth", "packed", "reading", "prompt"]
"""The axes, in the order in which a cell's name tells its levels."""
CLOSED_BOOK = "closed-book"
"""The retriever's level in the rows without passages."""

Level = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=30)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CellChange(_Frozen):
    """Something that some cells have of their own.

    ``where`` picks the cells: a level for some of the axes (numbers for ``depth`` and ``packed``);
    ``set`` changes the pipeline's recipe there, by dotted place, as ``--set`` would; ``skip``
    leaves these cells out.
    """

    where: Mapping[AxisName, str | int] = Field(min_length=1)
    set: Mapping[str, JsonValue] = {}
    skip: bool = False

    @model_validator(mode="after")
    def _does_something(self) -> CellChange:
        if bool(self.set) == self.skip:
            raise ValueError("give either set or skip: true")
        return self


class AblationRecipe(_Frozen):
    """A grid {retrievers} x {rerankers} x {depths} x {packed} x {readings} x {prompts}, and what it
    is compared with.

    ``retrievers``, ``rerankers`` and ``readings`` hold settings as a pipeline's recipe does, by
    name; ``depths`` is how many hits are reranked (or, without a reranker, offered) and then
    offered to packing, ``packed`` how many passages are read at most; ``prompts`` maps a name to
    the folder of a trained soft prompt, or to null for the plain reader. ``closed_book`` adds a
    row without passages for each prompt. ``baseline`` picks the cell that all others are compared
    with: a level of each axis that has several, the first one where it is not named; or
    ``closed-book``.
    """

    kind: Literal["ablation"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=40)
    pipeline: str
    data: Annotated[PocketQuestions | FileData | HubQuestions, Field(discriminator="kind")]
    limit: int | None = Field(None, ge=1)
    chunk_size: int = Field(64, ge=1)
    retrievers: (
        Mapping[
            Level,
            Annotated[
                Bm25Retrieval | DenseRetrieval | ReplayRetrieval | Fusion,
                Field(discriminator="kind"),
            ],
        ]
        | None
    ) = None
    rerankers: Mapping[Level, RerankerSettings] | None = None
    depths: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    packed: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    readings: Mapping[Level, ReadingSettings] | None = None
    prompts: Mapping[Level, Path | None] | None = None
    closed_book: bool = False
    baseline: Literal["closed-book"] | Mapping[AxisName, str | int] = {}
    cells: tuple[CellChange, ...] = ()

    @model_validator(mode="after")
    def _axes_have_different_levels(self) -> AblationRecipe:
        for name, levels in self.axes.items():
            if len(set(levels)) != len(levels):
                raise ValueError(f"the axis {name} names a level twice: {', '.join(levels)}")
        if CLOSED_BOOK in self.axes.get("retriever", ()):
            raise ValueError(f"no retriever can be named {CLOSED_BOOK}; set closed_book: true")
        return self

    @property
    def axes(self) -> dict[AxisName, tuple[str, ...]]:
        """The levels of each axis that the recipe names, in its order."""
        named: dict[AxisName, Any] = {  # Any: mappings and tuples
            "retriever": self.retrievers,
            "reranker": self.rerankers,
            "depth": self.depths,
            "packed": self.packed,
            "reading": self.readings,
            "prompt": self.prompts,
        }
        return {axis: tuple(map(str, levels)) for axis, levels in named.items() if levels}
