"""Recipes of evaluations (``eval/*.yaml``): what to measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["EvalRecipe", "ExpectedScores", "FileData", "HubQuestions", "PocketQuestions"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PocketQuestions(_Frozen):
    """The questions of the embedded encyclopedia."""

    kind: Literal["pocket"]


class FileData(_Frozen):
    """A local file of questions with answers; named with ``--set data.path=FILE``."""

    kind: Literal["file"]
    path: Path | None = None


class HubQuestions(_Frozen):
    """A hub data set; ``path`` names a local file that is read in its place."""

    kind: Literal["hub"]
    name: str
    config: str | None = None
    split: str
    revision: str | None = None
    path: Path | None = None


class ExpectedScores(_Frozen):
    """Scores of a run that was made, in percent; none where it was not made yet."""

    exact_match: float | None = None
    f1: float | None = None
    tolerance: float = Field(0.5, ge=0)


class EvalRecipe(_Frozen):
    """A data set, a pipeline, and what is expected. ``published`` names scores of papers."""

    kind: Literal["eval"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    pipeline: str
    data: Annotated[PocketQuestions | FileData | HubQuestions, Field(discriminator="kind")]
    chunk_size: int = Field(64, ge=1)
    expected: ExpectedScores = ExpectedScores()
    published: dict[str, float] = {}
