"""Recipes of evaluations (``eval/*.yaml``): what to measure, and what is expected of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "EvalRecipe",
    "FileData",
    "HubQuestions",
    "MetricName",
    "MetricSettings",
    "PocketQuestions",
]

QuestionFormat = Literal[
    "jsonl", "dpr-tsv", "dpr-json", "kilt", "squad", "triviaqa", "webquestions", "beir"
]

MetricName = Literal[
    "exact_match",
    "f1",
    "answer_recall@1",
    "answer_recall@5",
    "answer_recall@20",
    "answer_recall@100",
    "answer_in_prompt",
    "gold_in_prompt",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PocketQuestions(_Frozen):
    """The questions of the embedded encyclopedia."""

    kind: Literal["pocket"]


class FileData(_Frozen):
    """A local file of questions with answers; named with ``--set data.path=FILE``.

    ``unanswerable`` takes rows whose list of answers is empty as questions that the corpus cannot
    answer; without it they are an error. ``format`` is told by the file where it is not given;
    ``split`` is that of a BEIR folder; ``patterns`` takes answers as regular expressions.
    """

    kind: Literal["file"]
    path: Path | None = None
    format: QuestionFormat | None = None
    split: str = "test"
    unanswerable: bool = False
    patterns: bool = False


class HubQuestions(_Frozen):
    """A hub data set; ``path`` names a local file that is read in its place."""

    kind: Literal["hub"]
    name: str
    config: str | None = None
    split: str
    revision: str | None = None
    path: Path | None = None


class MetricSettings(_Frozen):
    """One metric, in percent.

    ``expected`` is the score of a run that was made, None where none was made yet; a run passes
    ``--check`` when it is within ``tolerance`` points of it. ``published`` are others' scores.
    """

    expected: float | None = Field(None, ge=0, le=100)
    tolerance: float = Field(0.5, ge=0)
    published: Mapping[str, float] = {}


class EvalRecipe(_Frozen):
    """A data set, a pipeline, and what is expected.

    ``overlap`` prepares the next chunk while one is read; ``search_corpus`` looks through the whole
    corpus for the answers that retrieval missed, for the error funnel. ``limit`` takes the first so
    many questions. ``passages: gold`` gives the reader each question's gold passage in place of
    what would be retrieved: the bound that the reader sets.
    """

    kind: Literal["eval"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)
    pipeline: str
    data: Annotated[PocketQuestions | FileData | HubQuestions, Field(discriminator="kind")]
    passages: Literal["retrieved", "gold"] = "retrieved"
    limit: int | None = Field(None, ge=1)
    chunk_size: int = Field(64, ge=1)
    overlap: bool = False
    search_corpus: bool = False
    metrics: Mapping[MetricName, MetricSettings] = {}
