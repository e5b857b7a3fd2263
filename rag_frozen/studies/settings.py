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
    "MostFrequentMethod",
    "PerplexityEvaluation",
    "PlainMethod",
    "PromptStudy",
    "QuestionsEvaluation",
    "RatesFrom",
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


class MostFrequentMethod(_Frozen):
    """The answer that is most frequent in the training rows, whatever is asked: what a method that
    has learned the labels alone would write. Nothing is read."""

    kind: Literal["most-frequent"]
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
    """A static prompt, an input-dependent one, or full tuning, each seed trained on its own.

    Of ``learning_rates`` (the optimiser's own where there are none) the one whose training with
    the first seed answers the most validation rows is used for all seeds, the first of equals.
    """

    kind: Literal["trained"]
    name: str = Field(pattern=_NAME)
    head: Annotated[StaticPrompt | InputDependentPrompt | FullTuning, Field(discriminator="kind")]
    optimiser: OptimiserSettings
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = ()
    seeds: tuple[int, ...] | None = Field(None, min_length=1)
    """The study's seeds where it is None."""


class EnsembleMethod(_Frozen):
    """The vote of a trained method's prompts of several seeds."""

    kind: Literal["ensemble"]
    name: str = Field(pattern=_NAME)
    of: str
    vote: Literal["majority", "likelihood"] = "majority"


Method = Annotated[
    PlainMethod
    | MostFrequentMethod
    | WrittenMethod
    | FewShotMethod
    | TrainedMethod
    | EnsembleMethod,
    Field(discriminator="kind"),
]


class QuestionsEvaluation(_Frozen):
    """An evaluation recipe, its questions retrieved and packed by its pipeline."""

    kind: Literal["questions"]
    name: str = Field(pattern=_NAME)
    recipe: str
    file: str | None = None
    """Below the study's ``data_path``: the evaluation recipe's ``data.path``."""
    overrides: tuple[str, ...] = ()
    """Of the evaluation recipe."""
    pipeline: str | None = None
    """In place of the recipe's own."""
    pipeline_overrides: tuple[str, ...] = ()
    """Of the pipeline's recipe, such as ``index=NAME``."""
    limit: int | None = Field(None, ge=1)
    """The first so many questions."""


class RowsEvaluation(_Frozen):
    """Rows of a task's file: all of them, or the first ``limit`` in an order drawn by the seed."""

    kind: Literal["rows"]
    name: str = Field(pattern=_NAME)
    source: Annotated[ReadingTask | TextTask, Field(discriminator="kind")]
    limit: int | None = Field(None, ge=1)


class PerplexityEvaluation(_Frozen):
    """Perplexity of a text file: what forgetting looks like.

    The text's paragraphs are cut into pieces; of each the first ``source_words`` are given and the
    next ``target_words`` are scored. Written prompts are left out; a trained one is left on, for
    without it the model is the plain one, bit by bit.
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


class RatesFrom(_Frozen):
    """Where learning rates are taken from: an earlier search over ``task`` (and ``reader``, the
    same one where it is None)."""

    task: str
    reader: str | None = None


class StudyTask(_Frozen):
    """What all methods are trained on, alike, and what they are measured on.

    ``readers`` and ``methods`` name those of the study that are compared on this task (all where
    they are None); ``texts`` are tried by written methods in place of their own; ``rates_from``
    takes over learning rates that were chosen elsewhere, in place of a search here; ``lower`` takes
    the place of the study's, ``seeds`` that of the study's and the methods'.
    """

    name: str = Field(pattern=_NAME)
    readers: tuple[str, ...] | None = Field(None, min_length=1)
    methods: tuple[str, ...] | None = Field(None, min_length=1)
    texts: tuple[str, ...] | None = Field(None, min_length=1)
    rates_from: RatesFrom | None = None
    lower: str | None = None
    seeds: tuple[int, ...] | None = Field(None, min_length=1)
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
        named |= {one for task in self.tasks for one in task.methods or ()}
        named |= {task.lower for task in self.tasks if task.lower is not None}
        if unknown := named - set(names):
            raise ValueError(f"no method is called {sorted(unknown)}; there are {names}")
        return self

    @model_validator(mode="after")
    def _tasks_fit(self) -> PromptStudy:
        tasks = {task.name: task for task in self.tasks}
        if len(tasks) != len(self.tasks):
            raise ValueError(f"two tasks have one name: {sorted(one.name for one in self.tasks)}")
        for task in self.tasks:
            readers = set(task.readers or ())
            source = task.rates_from
            if source is not None:
                readers |= {source.reader} if source.reader else set()
                if source.task not in tasks or tasks[source.task].rates_from is not None:
                    raise ValueError(
                        f"the task {task.name} takes its rates from {source.task!r}, which is no "
                        "task that searches for its own"
                    )
            if unknown := readers - set(self.readers):
                raise ValueError(
                    f"the task {task.name} names readers {sorted(unknown)}; there are "
                    f"{sorted(self.readers)}"
                )
            methods = self.methods_of(task)
            if task.lower is not None and task.lower not in {one.name for one in methods}:
                raise ValueError(
                    f"the task {task.name} has the lower bound {task.lower!r}, which is none of "
                    "its methods"
                )
            for method in methods:
                if isinstance(method, EnsembleMethod) and method.of not in {
                    one.name for one in methods
                }:
                    raise ValueError(
                        f"the task {task.name} has the ensemble {method.name} without {method.of}"
                    )
        return self

    def methods_of(self, task: StudyTask) -> tuple[Method, ...]:
        """The methods that are compared on a task, in the study's order."""
        wanted = task.methods
        return tuple(one for one in self.methods if wanted is None or one.name in wanted)

    def seeds_of(self, method: TrainedMethod, task: StudyTask) -> tuple[int, ...]:
        """The seeds of a trained method on a task: the task's, the method's or the study's."""
        return task.seeds or method.seeds or self.seeds

    def trained(self, name: str) -> TrainedMethod:
        """A trained method by its name, which must be there."""
        [found] = [m for m in self.methods if isinstance(m, TrainedMethod) and m.name == name]
        return found
