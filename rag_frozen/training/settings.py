"""Recipes of trainings (``pipelines/train/*.yaml``) as frozen models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rag_frozen.packing.template import PromptTemplate

__all__ = [
    "Distillation",
    "EarlyStopping",
    "HubData",
    "MixtureSettings",
    "OptimiserSettings",
    "PassageSource",
    "ReaderTraining",
    "ReadingSource",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HubData(_Frozen):
    """A data set by its public name, read through ``datasets``."""

    name: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None


class PassageSource(_Frozen):
    """Passages to read: files below ``data.path`` (glob patterns), or the hub data set."""

    files: tuple[str, ...]
    hub: HubData | None = None
    exclude: str | None = None
    """A file below ``data.path`` of passage ids, one a line, that are left out."""


class ReadingSource(_Frozen):
    """Questions with passages: a file below ``data.path``, or the hub data set (a source without
    one is left out, with a warning, when no ``data.path`` is given).

    ``max_rank`` and ``min_overlap`` keep rows of distant supervision whose passage was found at a
    rank below it and whose question shares at least that part of its words with the passage.
    """

    name: str
    file: str
    hub: HubData | None = None
    weight: float = Field(1.0, gt=0)
    max_rank: int | None = None
    min_overlap: float | None = None


class DataSettings(_Frozen):
    """What a reader is trained and validated on."""

    path: Path | None = None
    """A folder with the files named below; without it the hub data sets are used."""
    passages: PassageSource
    reading: tuple[ReadingSource, ...]
    yes_no: ReadingSource | None = None
    closed_book: ReadingSource | None = None
    validation_titles: int = Field(8, ge=1)
    """So many titles of the first reading source are held out for validation."""
    validation_rows: int = Field(500, ge=1)
    """So many rows of ``validation_source`` are held out for validation."""
    validation_source: str
    split_seed: int | None = None
    """Chooses what is held out; the training's seed where it is None. A training that goes on from
    another one with another seed needs that one's, or it is validated on rows that were learned."""


class MixtureSettings(_Frozen):
    """See :class:`rag_frozen.training.reading_data.Mixture`."""

    cloze_start: float = Field(0.9, ge=0, le=1)
    cloze_end: float = Field(0.15, ge=0, le=1)
    cloze_until: float = Field(0.6, gt=0, le=1)
    language_model: float = Field(0.03, ge=0, le=1)
    closed_book: float = Field(0.02, ge=0, le=1)
    yes_no: float = Field(0.03, ge=0, le=1)
    several: float = Field(0.4, ge=0, le=1)
    several_from: float = Field(0.4, ge=0, lt=1)
    no_answer: float = Field(0.0, ge=0, le=1)
    no_answer_alone: float = Field(0.0, ge=0, le=1)
    n_passages: int = Field(3, ge=2)
    crop: float = Field(0.5, ge=0, le=1)
    substitute: float = Field(0.0, ge=0, le=1)


class OptimiserSettings(_Frozen):
    """Optimiser and schedule: warm-up, then a linear fall to zero or a constant rate."""

    kind: Literal["adamw", "adafactor"] = "adamw"
    schedule: Literal["linear", "constant"] = "linear"
    learning_rate: float = Field(4e-4, gt=0)
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    max_gradient_norm: float = Field(1.0, gt=0)


class EarlyStopping(_Frozen):
    """Stop when a validation metric (higher is better) did not rise ``patience`` times in a row;
    the best weights are kept."""

    metric: str
    patience: int = Field(5, ge=1)


class Distillation(_Frozen):
    """Learn from another reader's probabilities, too (Hinton et al. 2015, arXiv 1503.02531): the
    loss is ``(1 - weight)`` of the answers' own and ``weight`` of the divergence between both
    readers' next words at ``temperature``, times its square."""

    teacher: str
    """A prefix language model over the same encoder, by its name or folder; it stays frozen."""
    weight: float = Field(0.5, gt=0, le=1)
    temperature: float = Field(2.0, gt=0)


class ReaderTraining(_Frozen):
    """Train the pocket reader, beginning from an encoder's layers."""

    kind: Literal["pocket-reader"]
    name: str
    seed: int = 0
    encoder: str = "pocket/minilm"
    start_from: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """A prefix language model that was trained before (``pocket-lm``, by its folder), in place of
    the encoder's layers; or several of one size that came of one start, whose weights are averaged
    (model soups, Wortsman et al. 2022, arXiv 2203.05482)."""
    max_position_embeddings: int = Field(1_024, ge=64)
    layers: int | None = Field(None, ge=1)
    """So many of the encoder's layers, its first ones; all of them where it is None. Models of
    several sizes are trained by one recipe: ``--set layers=2 --set name=pocket-lm-2``. More than
    the encoder or ``start_from`` has, at most twice as many: each of the last ones then begins as
    two equal ones (depth up-scaling, Kim et al. 2023, arXiv 2312.15166)."""
    distillation: Distillation | None = None
    dropout: float = Field(0.0, ge=0, lt=1)
    """While training, so many of the numbers behind embeddings, attention and feed-forward parts
    are left out."""
    template: PromptTemplate
    data: DataSettings
    mixture: MixtureSettings = MixtureSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    examples: int = Field(ge=0)
    """To be drawn; 0 trains nothing: what ``start_from`` averages is measured and written."""
    batch_size: int = Field(32, ge=1)
    max_source_tokens: int = Field(640, ge=16)
    max_target_tokens: int = Field(32, ge=2)
    validate_every: int = Field(200, ge=1)
    """Steps between validations."""
    checkpoint_every: int = Field(100, ge=1)
    """Steps between checkpoints."""
    validation_limit: int = Field(200, ge=1)
    """Rows of each validation set that are read at each validation."""
    validation_min_new_tokens: int = Field(0, ge=0, le=24)
    """1 makes the reader say something at each, as pipelines do that never take silence for an
    answer; 0 counts a silent answer as it is."""
    early_stopping: EarlyStopping | None = None
    int8: bool = True
    """Write the weights rounded to int8."""
    difference_to: str | None = None
    """Write them as a difference to this model's, which are int8: a smaller file that is loaded
    only beside that model."""

    @model_validator(mode="after")
    def _trains_or_averages(self) -> ReaderTraining:
        if not self.examples and (self.start_from is None or isinstance(self.start_from, str)):
            raise ValueError(
                "examples is 0, which trains nothing, and start_from names no models to average. "
                "Set examples, or start_from=[A, B]"
            )
        return self
