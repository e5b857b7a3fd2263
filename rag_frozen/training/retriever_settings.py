"""The recipe of a dense retriever's training."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rag_frozen.training.ranking_settings import LoraSettings, RankingData
from rag_frozen.training.settings import EarlyStopping, OptimiserSettings, ReadingSource

__all__ = ["BankSettings", "RetrieverTraining"]


class BankSettings(BaseModel):
    """A built dense index against whose vectors a question encoder is trained.

    Every ``mine_every`` steps the questions of the next so many steps are searched for with the
    encoder as it then is; of the first ``depth`` hits those that hold no answer are negatives.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str
    """Its recipe, by name or path; built below the artifacts' root."""
    mine_every: int = Field(50, ge=1)
    depth: int = Field(100, ge=1)
    pool: int = Field(30, ge=1)
    """Negatives of a question that are kept, the nearest first; each step draws among them."""
    questions: ReadingSource | None = None
    """Questions with answers, of which ``n_questions`` are held out and measured, too."""
    n_questions: int = Field(1_000, ge=1)


class RetrieverTraining(BaseModel):
    """Train adapters over a sentence encoder by DPR's loss (Karpukhin et al. 2020, section 3.2).

    ``towers: shared``: questions and passages share encoder, adapters and pooling.
    ``towers: question``: questions alone have adapters; passages keep the vectors of ``bank``, and
    its index is used as it stands. Other than DPR's inner product, vectors have length 1 as
    MiniLM's own have, and their products are multiplied by ``scale`` (1 / temperature).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pocket-retriever"]
    name: str
    seed: int = 0
    encoder: str = "pocket/minilm"
    towers: Literal["shared", "question"] = "shared"
    bank: BankSettings | None = None
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

    @model_validator(mode="after")
    def _has_a_bank(self) -> RetrieverTraining:
        if (self.towers == "question") != (self.bank is not None):
            raise ValueError(
                "towers: question and bank: {index: RECIPE} go together: a question encoder is "
                "trained against the stored vectors of an index"
            )
        if self.bank is not None and self.negatives > self.bank.pool:
            raise ValueError(f"negatives is {self.negatives}, bank.pool only {self.bank.pool}")
        return self
