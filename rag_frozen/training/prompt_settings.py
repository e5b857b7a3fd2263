"""Recipes of prompt trainings (``pipelines/train/prompt-*.yaml``)."""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rag_frozen.packing.template import PromptTemplate
from rag_frozen.recipes.pipeline import ReaderSettings
from rag_frozen.training.settings import EarlyStopping, HubData, OptimiserSettings

__all__ = [
    "FullTuning",
    "InputDependentPrompt",
    "LabelsStart",
    "PromptData",
    "PromptTraining",
    "RandomStart",
    "ReadingTask",
    "SampledStart",
    "StaticPrompt",
    "TextStart",
    "TextTask",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RandomStart(_Frozen):
    """Uniform in [-0.5, 0.5]."""

    kind: Literal["random"]


class SampledStart(_Frozen):
    """Embeddings of tokens drawn from the ``most`` frequent ones of the training prompts."""

    kind: Literal["sampled"] = "sampled"
    most: int = Field(5_000, ge=1)


class LabelsStart(_Frozen):
    """Embeddings of the task's labels, then sampled ones."""

    kind: Literal["labels"]
    labels: tuple[str, ...] = Field(min_length=1)
    most: int = Field(5_000, ge=1)


class TextStart(_Frozen):
    """Embeddings of a written text, cut or repeated to the length."""

    kind: Literal["text"]
    text: str = Field(min_length=1)


Part = Literal["train", "test"]
"""Of a file without splits of its own every tenth block of 50 rows is the test part, the others are
the training part: neighbouring rows, which are often alike, stay together."""

Start = Annotated[RandomStart | SampledStart | LabelsStart | TextStart, Field(discriminator="kind")]


class StaticPrompt(_Frozen):
    """``length`` trained vectors (Lester et al. 2021: 100 by default, little gain past 20)."""

    kind: Literal["static"]
    length: int = Field(100, ge=1, le=500)
    start: Start = SampledStart()


class InputDependentPrompt(_Frozen):
    """A cross-attention generator; see :class:`rag_frozen.prompting.generator.GeneratorConfig`.

    ``reads`` is what the frozen encoder sees: the question, or the whole prompt.
    """

    kind: Literal["input-dependent"]
    encoder: str = "pocket/minilm"
    reads: Literal["question", "context"] = "question"
    max_tokens: int = Field(256, ge=8)
    n_queries: int = Field(20, ge=1)
    n_static: int = Field(0, ge=0)
    width: int = Field(128, ge=1)
    depth: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    inner: int = Field(256, ge=1)
    encoder_prompt: int = Field(0, ge=0)


class FullTuning(_Frozen):
    """No prompt: all weights of the reader but its word embeddings are trained. The upper
    reference that prompts are compared with; for the project's own reader alone."""

    kind: Literal["full"]


class ReadingTask(_Frozen):
    """Questions with a passage that answers them, and as many distractors as make ``n_passages``.

    ``file`` lies below ``data.path``; its rows hold question, answers, title and text.
    """

    kind: Literal["reading"]
    name: str
    file: str
    hub: HubData | None = None
    weight: float = Field(1.0, gt=0)
    part: Part | None = None
    """All rows where it is None."""
    n_passages: int = Field(1, ge=1)
    max_rank: int | None = None
    min_overlap: float | None = None


class TextTask(_Frozen):
    """Texts with a label or a target text.

    ``input`` is the prompt with the row's fields in braces (``"review: {text}"``), ``question``
    what of it a question-reading generator sees (the same by default); ``target`` names the field
    of the target, ``labels`` writes its values in words.
    """

    kind: Literal["text"]
    name: str
    file: str
    hub: HubData | None = None
    weight: float = Field(1.0, gt=0)
    part: Part | None = None
    """All rows where it is None."""
    input: str
    question: str | None = None
    target: str
    labels: dict[str, str] | None = None

    @field_validator("input", "question")
    @classmethod
    def _plain_fields(cls, value: str | None) -> str | None:
        for _, name, spec, conversion in Formatter().parse(value or ""):
            if name is not None and (not name.isidentifier() or spec or conversion):
                raise ValueError(
                    f"{value!r} may hold plain fields of a row, such as {{text}}, found "
                    f"{{{name}}}; write other braces twice"
                )
        return value


class PromptData(_Frozen):
    """Training and validation rows.

    ``validation_rows`` of the rows are held out (spread over the sources by their size), chosen by
    the seed; or ``validation`` names sources of their own.
    """

    path: Path | None = None
    sources: tuple[Annotated[ReadingTask | TextTask, Field(discriminator="kind")], ...] = Field(
        min_length=1
    )
    validation: tuple[Annotated[ReadingTask | TextTask, Field(discriminator="kind")], ...] = ()
    validation_rows: int = Field(200, ge=1)
    split_seed: int | None = None
    """Chooses the validation rows; the training's seed where it is None. Trainings that are to be
    compared over several seeds share one."""
    limit: int | None = Field(None, ge=1)
    """At most so many training rows, chosen by the seed."""


class PromptTraining(_Frozen):
    """Train a soft prompt, or a generator of them, around a frozen reader."""

    kind: Literal["prompt"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    seed: int = 0
    reader: Annotated[ReaderSettings, Field(discriminator="kind")]
    head: Annotated[StaticPrompt | InputDependentPrompt | FullTuning, Field(discriminator="kind")]
    template: PromptTemplate
    data: PromptData
    optimiser: OptimiserSettings
    steps: int = Field(ge=1)
    batch_size: int = Field(32, ge=1)
    max_source_tokens: int = Field(512, ge=16)
    max_target_tokens: int = Field(32, ge=2)
    validate_every: int = Field(100, ge=1)
    checkpoint_every: int = Field(100, ge=1)
    early_stopping: EarlyStopping | None = None
