"""Recipes of prompt studies (``eval/prompt-table.yaml``): readers x tasks x methods x seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rag_frozen.packing.template import PromptTemplate
from rag_frozen.recipes.pipeline import ReaderSettings
from rag_frozen.training.prompt_settings import (
    FullTuning,
    InputDependentPrompt,
    PromptData,
    ReadingTask,
    StaticPrompt,
    TextTask,
)
from rag_frozen.training.settings import EarlyStopping, OptimiserSettings

__all__ = [
    "Comparison",
    "EnsembleMethod",
    "EvaluationSettings",
    "FewShotMethod",
    "Method",
    "PerplexityEvaluation",
    "PlainMethod",
    "PromptStudy",
    "QuestionsEvaluation",
    "RowsEvaluation",
    "StudyTask",
    "TrainedMethod",
    "WrittenMethod",
]

_NAME = r"^[a-z0-9][a-z0-9._-]*$"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlainMethod(_Frozen):
    """The frozen reader as it is."""

    kind: Literal["plain"]
    name: str = Field(pattern=_NAME)


class WrittenMethod(_Frozen):
    """A text before the prompt; the one of ``texts`` that is best on the validation rows."""

    kind: Literal["written"]
    name: str = Field(pattern=_NAME)
    texts: tuple[str, ...] = Field(min_length=1)


class FewShotMethod(_Frozen):
    """``shots`` training rows with their answers before the prompt, as many as fit the window."""

    kind: Literal["few-shot"]
    name: str = Field(pattern=_NAME)
    shots: int = Field(3, ge=1)


class TrainedMethod(_Frozen):
    """A static prompt, an input-dependent one, or full tuning, each seed trained on its own."""

    kind: Literal["trained"]
    name: str = Field(pattern=_NAME)
    head: Annotated[StaticPrompt | InputDependentPrompt | FullTuning, Field(discriminator="kind")]
    optimiser: OptimiserSettings
    seeds: tuple[int, ...] | None = None
    """The study's seeds where it is None."""


class EnsembleMethod(_Frozen):
    """The vote of a trained method's prompts of several seeds."""

    kind: Literal["ensemble"]
    name: str = Field(pattern=_NAME)
    of: str
    vote: Literal["majority", "likelihood"] = "majority"


Method = Annotated[
    PlainMethod | WrittenMethod | FewShotMethod | TrainedMethod | EnsembleMethod,
    Field(discriminator="kind"),
]


class QuestionsEvaluation(_Frozen):
    """An evaluation recipe, its questions retrieved and packed by its pipeline."""

    kind: Literal["questions"]
    name: str = Field(pattern=_NAME)
    recipe: str
    overrides: tuple[str, ...] = ()
    """Of the evaluation recipe, such as ``data.path=FILE``."""
    pipeline: str | None = None
    """In place of the recipe's own."""


class RowsEvaluation(_Frozen):
    """Rows of a task's file: all of them, or the first ``limit`` in an order drawn by the seed."""

    kind: Literal["rows"]
    name: str = Field(pattern=_NAME)
    source: Annotated[ReadingTask | TextTask, Field(discriminator="kind")]
    limit: int | None = Field(None, ge=1)


class PerplexityEvaluation(_Frozen):
    """Perplexity of a text file: what forgetting looks like.

    The text's paragraphs are cut into pieces; of each the first ``source_words`` are given and the
    next ``target_words`` are scored. Only methods that change the model can change it.
    """

    kind: Literal["perplexity"]
    name: str = Field(pattern=_NAME)
    file: str
    source_words: int = Field(40, ge=1)
    target_words: int = Field(20, ge=1)
    limit: int = Field(400, ge=1)


EvaluationSettings = Annotated[
    QuestionsEvaluation | RowsEvaluation | PerplexityEvaluation, Field(discriminator="kind")
]


class StudyTask(_Frozen):
    """What all methods are trained on, alike, and what they are measured on."""

    name: str = Field(pattern=_NAME)
    data: PromptData
    evaluations: tuple[EvaluationSettings, ...] = Field(min_length=1)
    steps: int = Field(ge=1)
    batch_size: int = Field(32, ge=1)
    max_source_tokens: int = Field(512, ge=16)
    max_target_tokens: int = Field(32, ge=2)
    validate_every: int = Field(100, ge=1)
    early_stopping: EarlyStopping | None = None


class Comparison(_Frozen):
    """A difference to be tested: ``ours`` minus ``theirs``, two methods' names."""

    ours: str
    theirs: str


class PromptStudy(_Frozen):
    """The whole study.

    ``data_path`` is the folder below which the files of tasks and evaluations lie; ``limit`` cuts
    each evaluation to its first questions, for a trial.
    """

    kind: Literal["prompt-study"]
    name: str = Field(pattern=_NAME)
    data_path: Path | None = None
    limit: int | None = Field(None, ge=1)
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    split_seed: int = 0
    template: PromptTemplate
    readers: dict[str, Annotated[ReaderSettings, Field(discriminator="kind")]]
    tasks: tuple[StudyTask, ...] = Field(min_length=1)
    methods: tuple[Method, ...] = Field(min_length=1)
    comparisons: tuple[Comparison, ...] = ()
    upper: str | None = None
    """The method whose gain over ``lower`` is 100 % of the gap that others close."""
    lower: str | None = None

    @model_validator(mode="after")
    def _names_fit(self) -> PromptStudy:
        names = [method.name for method in self.methods]
        if len(set(names)) != len(names):
            raise ValueError(f"two methods have one name: {sorted(names)}")
        trained = {m.name for m in self.methods if isinstance(m, TrainedMethod)}
        for method in self.methods:
            if isinstance(method, EnsembleMethod) and method.of not in trained:
                raise ValueError(
                    f"the ensemble {method.name} is of {method.of!r}, which is no trained method "
                    f"({', '.join(sorted(trained)) or 'there is none'})"
                )
        named = {one for pair in self.comparisons for one in (pair.ours, pair.theirs)}
        named |= {one for one in (self.upper, self.lower) if one is not None}
        if unknown := named - set(names):
            raise ValueError(f"no method is called {sorted(unknown)}; there are {names}")
        return self
