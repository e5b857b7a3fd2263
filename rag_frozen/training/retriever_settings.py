"""The recipe of a dense retriever's training."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rag_frozen.training.ranking_settings import LoraSettings, RankingData
from rag_frozen.training.settings import EarlyStopping, OptimiserSettings

__all__ = ["RetrieverTraining"]


class RetrieverTraining(BaseModel):
    """Train adapters over a sentence encoder by DPR's loss (Karpukhin et al. 2020, section 3.2).

    Questions and passages share the encoder, the adapters and the pooling. Other than DPR's inner
    product, vectors have length 1 as MiniLM's own have, and their products are multiplied by
    ``scale`` (1 / temperature).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pocket-retriever"]
    name: str
    seed: int = 0
    encoder: str = "pocket/minilm"
    start_from: str | None = None
    """Adapters of an earlier round, by their folder; ``data.harder`` names what they mined."""
    data: RankingData
    lora: LoraSettings = LoraSettings(rank=32, alpha=64.0)
    optimiser: OptimiserSettings = OptimiserSettings(learning_rate=2e-4, warmup_steps=50)
    dropout: bool = False
    """Use the encoder's own dropout. For trainings of several epochs."""
    scale: float = Field(20.0, gt=0)
    examples: int = Field(ge=1)
    """Questions that are trained on, drawn by the sources' weights."""
    batch_size: int = Field(64, ge=2)
    """Questions a step; each one's passages are negatives of the others."""
    negatives: int = Field(1, ge=0)
    """Hard negatives of a question; only questions that have so many are trained on."""
    max_question_tokens: int = Field(64, ge=8)
    max_passage_tokens: int = Field(192, ge=16)
    validate_every: int = Field(50, ge=1)
    checkpoint_every: int = Field(25, ge=1)
    early_stopping: EarlyStopping | None = None
