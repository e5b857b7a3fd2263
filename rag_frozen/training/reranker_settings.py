"""The recipe of a reranker's training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rag_frozen.training.settings import OptimiserSettings, PassageSource, ReadingSource

__all__ = ["RerankerData", "RerankerTraining"]


class RerankerData(BaseModel):
    """Questions with a passage that answers each, and passages to search for negatives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path | None = None
    passages: PassageSource
    questions: tuple[ReadingSource, ...]
    validation_titles: int = Field(4, ge=1)
    validation_source: str
    validation_rows: int = Field(500, ge=1)
    validation_seed: int = 13
    """The reader's seed, so that the rows held out there are held out here."""
    mined: int = Field(30, ge=1)
    """BM25 hits from which negatives are drawn."""


class RerankerTraining(BaseModel):
    """Train a cross-encoder: softmax over one positive and several hard negatives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pocket-reranker"]
    name: str
    seed: int = 0
    encoder: str = "pocket/minilm"
    data: RerankerData
    optimiser: OptimiserSettings = OptimiserSettings(learning_rate=5e-5, warmup_steps=30)
    examples: int = Field(ge=1)
    """Questions that are trained on, drawn by the sources' weights."""
    batch_size: int = Field(16, ge=1)
    """Questions a step."""
    negatives: int = Field(4, ge=1)
    max_length: int = Field(192, ge=16)
    validate_every: int = Field(50, ge=1)
    checkpoint_every: int = Field(25, ge=1)
    validation_limit: int = Field(200, ge=1)
    validation_depth: int = Field(20, ge=2)
