"""Recipes of evaluations (``eval/*.yaml``): what to measure, and what is expected of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = [
    "EvalRecipe",
    "FileData",
    "HubQuestions",
    "MetricName",
    "MetricSettings",
    "PocketQuestions",
    "TextRows",
]

_FIELD = re.compile(r"[A-Za-z_]\w*(\[\d+\])?")

QuestionFormat = Literal[
    "jsonl",
    "dpr-tsv",
    "dpr-json",
    "kilt",
    "squad",
    "triviaqa",
    "webquestions",
    "curatedtrec",
    "popqa",
    "beir",
]

MetricName = Literal[
    "exact_match",
    "f1",
    "answer_recall@1",
    "answer_recall@5",
    "answer_recall@20",
    "answer_recall@100",
    "substring_recall@1",
    "substring_recall@5",
    "substring_recall@20",
    "substring_recall@100",
    "answer_in_prompt",
    "gold_in_prompt",
    "ndcg@10",
    "mrr@10",
    "passage_recall@1",
    "passage_recall@5",
    "passage_recall@20",
    "passage_recall@100",
    "accuracy",
    "macro_f1",
    "rouge1",
    "rouge2",
    "rouge_l",
    "bleu",
    "efficientqa_match",
    "gold_in_output",
    "regex_match",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PocketQuestions(_Frozen):
    """The questions of the embedded encyclopedia; ``path`` names a local file of their form that is
    read in their place."""

    kind: Literal["pocket"]
    path: Path | None = None


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


class TextRows(_Frozen):
    """Rows of a task in texts: what the reader reads, and what it should write.

    A local file of JSON objects, one a line; named with ``--set data.path=FILE``. ``input`` is
    written with the row's fields in braces (``"review: {text}"``; ``{choices[0]}`` for an entry of
    a list, a whole list is written with semicolons); ``target`` names the field of what should be
    written, ``labels`` says its values in words, ``choices`` names a list of which the target is
    the place (from 0). A target that is a list of texts accepts each of them. ``group`` makes one
    example, with all their targets, of rows of the same input. ``tags`` are fields by which the
    scores are broken down.
    """

    kind: Literal["text"]
    path: Path | None = None
    input: str
    target: str
    labels: Mapping[str, str] | None = None
    choices: str | None = None
    group: bool = False
    tags: tuple[str, ...] = ()

    @field_validator("input")
    @classmethod
    def _plain_fields(cls, value: str) -> str:
        for _, name, spec, conversion in Formatter().parse(value):
            if name is not None and (not _FIELD.fullmatch(name) or spec or conversion):
                raise ValueError(
                    f"{value!r} may hold plain fields of a row, such as {{text}} or "
                    f"{{choices[0]}}, found {{{name}}}; write other braces twice"
                )
        return value

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> TextRows:
        if self.labels is not None and self.choices is not None:
            raise ValueError("give labels or choices, not both")
        return self


class HubQuestions(_Frozen):
    """A hub data set; ``path`` names a local file that is read in its place (in ``format``)."""

    kind: Literal["hub"]
    name: str
    config: str | None = None
    split: str
    revision: str | None = None
    path: Path | None = None
    format: QuestionFormat | None = None


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
    what would be retrieved: the bound that the reader sets. ``expected_data`` is the SHA-256 of the
    data, whole, that the expected scores were measured on; ``--check`` refuses any other.
    """

    kind: Literal["eval"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)
    pipeline: str
    data: Annotated[
        PocketQuestions | FileData | HubQuestions | TextRows, Field(discriminator="kind")
    ]
    passages: Literal["retrieved", "gold"] = "retrieved"
    limit: int | None = Field(None, ge=1)
    chunk_size: int = Field(64, ge=1)
    overlap: bool = False
    search_corpus: bool = False
    expected_data: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    metrics: Mapping[MetricName, MetricSettings] = {}
