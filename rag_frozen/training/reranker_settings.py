"""The recipe of a reranker's training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rag_frozen.packing.template import PromptTemplate
from rag_frozen.recipes.pipeline import CausalReader, PrefixReader, Seq2SeqReader
from rag_frozen.training.ranking_settings import LoraSettings, RankingData
from rag_frozen.training.settings import EarlyStopping, OptimiserSettings

__all__ = ["LikelihoodSettings", "RerankerTraining"]


class LikelihoodSettings(BaseModel):
    """The frozen reader that judges the passages: how likely the answer is after each alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reader: Annotated[PrefixReader | CausalReader | Seq2SeqReader, Field(discriminator="kind")] = (
        PrefixReader(kind="prefix-lm")
    )
    template: PromptTemplate
    """How question and one passage are written for the reader: that of its pipeline."""
    depth: int = Field(12, ge=2)
    """Passages of a question that are judged, its positives first."""


class RerankerTraining(BaseModel):
    """Train a cross-encoder on lists of one passage that answers and several that do not.

    ``loss``: ``bce`` is binary cross-entropy of each pair; ``softmax`` the cross-entropy of the
    positive among its list; ``residual`` the same by the sum of the reranker's score and
    ``retrieval_weight`` times the retriever's, which mined rows bring; ``ralm`` In-Context RALM's,
    for which ``likelihood`` names the reader (other losses do not ask it).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pocket-reranker"]
    name: str
    seed: int = 0
    encoder: str = "pocket/minilm"
    start_from: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """A reranker that was trained before, by its folder, in place of the encoder's layers; or
    several of one base, whose weights are averaged (model soups, Wortsman et al. 2022,
    arXiv 2203.05482)."""
    base: str | None = None
    """A prefix language model, such as ``pocket/reader``, whose layers it begins from and beside
    which it is loaded."""
    data: RankingData
    loss: Literal["bce", "softmax", "residual", "ralm"] = "softmax"
    retrieval_weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Of the retriever's score in the sum that ranks, in validation and for the loss ``residual``.
    The pipeline's reranker takes the same number."""
    likelihood: LikelihoodSettings | None = None
    lora: LoraSettings | None = None
    """Train and ship adapters alone; without it all weights but the embedding tables."""
    optimiser: OptimiserSettings = OptimiserSettings(learning_rate=5e-5, warmup_steps=30)
    dropout: bool = False
    """Use the encoder's own dropout. For trainings of several epochs."""
    examples: int = Field(ge=0)
    """Questions that are trained on, drawn by the sources' weights; 0 trains nothing: what
    ``start_from`` averages is measured and written."""
    batch_size: int = Field(16, ge=1)
    """Questions a step."""
    negatives: int = Field(4, ge=1)
    max_length: int = Field(192, ge=16)
    validate_every: int = Field(50, ge=1)
    checkpoint_every: int = Field(25, ge=1)
    early_stopping: EarlyStopping | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> RerankerTraining:
        if not self.examples and (self.start_from is None or isinstance(self.start_from, str)):
            raise ValueError(
                "examples is 0, which trains nothing, and start_from names no models to average. "
                "Set examples, or start_from=[A, B]"
            )
        if self.loss == "ralm" and self.likelihood is None:
            raise ValueError(
                "the loss ralm needs a reader that judges the passages: likelihood: {template: …}"
            )
        if self.loss == "residual" and self.retrieval_weight == 0:
            raise ValueError(
                "the loss residual is softmax where retrieval_weight is 0: set that, or the other"
            )
        return self
