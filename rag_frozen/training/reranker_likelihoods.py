"""How likely the frozen reader finds each answer after each passage: In-Context RALM's p_LM.

Computed once before the training of a reranker and kept beside it, in files of some hundred rows,
so that a killed computation goes on where it was. The reader's weights do not change, nor do the
numbers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rag_frozen.models.batching import token_budget_batches
from rag_frozen.packing.template import PromptTemplate
from rag_frozen.training.prompt_task import TrainableReader
from rag_frozen.training.ranking_rows import RankingRow, RankingSource
from rag_frozen.types import Passage, Question

__all__ = ["judge_sources", "judged_rows", "target_answer"]

_LOG = logging.getLogger(__name__)
_PART = 128
"""Rows of a file."""
_TOKEN_BUDGET = 4_096
"""Prompt tokens a batch, padding included."""


def judge_sources(
    sources: Sequence[RankingSource],
    reader: TrainableReader,
    template: PromptTemplate,
    *,
    depth: int,
    cache: Path,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[RankingSource]:
    """Give every row the log-likelihoods of its first candidates.

    Args:
        sources: of the training.
        reader: frozen.
        template: writes a question with one passage.
        depth: candidates of a row that are judged.
        cache: folder of the files; those of other rows, readers or templates are not read.
        report: is told (rows done, of how many) after each file.
    """
    rows = [row for source in sources for row in source.rows]
    judged = iter(judged_rows(rows, reader, template, depth=depth, cache=cache, report=report))
    return [
        RankingSource(source.weight, tuple(next(judged) for _ in source.rows)) for source in sources
    ]


def judged_rows(
    rows: Sequence[RankingRow],
    reader: TrainableReader,
    template: PromptTemplate,
    *,
    depth: int,
    cache: Path,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[RankingRow]:
    """The rows with ``log_likelihoods`` of their first ``depth`` candidates, in their order."""
    made: list[RankingRow] = []
    cache.mkdir(parents=True, exist_ok=True)
    told = f"{reader.digest}\0{template.model_dump_json()}\0{depth}\0"
    for start in range(0, len(rows), _PART):
        part = rows[start : start + _PART]
        file = cache / f"{_name(told, part)}.safetensors"
        if not file.exists():
            values = _judge(part, reader, template, depth)
            _write(file, values)
            report(start + len(part), len(rows))
        stored = load_file(str(file))["log_likelihoods"].tolist()
        for row, numbers in zip(part, stored, strict=True):
            n = min(depth, len(row.candidates))
            made.append(replace(row, log_likelihoods=tuple(numbers[:n])))
    return made


def target_answer(row: RankingRow) -> str:
    """The answer whose likelihood is asked for: the first that stands in a positive as it is
    written, else the first.

    >>> from rag_frozen.types import Passage
    >>> hamlet = Passage("1", "Hamlet", "A play by William Shakespeare.")
    >>> target_answer(RankingRow("who?", ("Shakspere", "Shakespeare"), (hamlet,), ()))
    'Shakespeare'
    """
    texts = [passage.text for passage in row.positives]
    standing = (answer for text in texts for answer in row.answers if answer and answer in text)
    return next(standing, row.answers[0])


def _name(told: str, rows: Sequence[RankingRow]) -> str:
    """A file's name: digest of the reader, the template and the texts that were judged."""
    total = hashlib.sha256(told.encode())
    for row in rows:
        passages = [(p.title, p.text) for p in row.candidates]
        total.update(json.dumps([row.question, target_answer(row), passages]).encode())
    return total.hexdigest()[:32]


@torch.inference_mode()
def _judge(
    rows: Sequence[RankingRow], reader: TrainableReader, template: PromptTemplate, depth: int
) -> Tensor:
    """``[R, depth]`` fp32: the sum over the answer's tokens, its end included; rows of fewer
    candidates end in zeros."""
    values = torch.zeros(len(rows), depth)
    places: list[tuple[int, int]] = []
    asked: list[tuple[str, Passage]] = []
    answers: list[list[int]] = []
    targets = reader.encode_answers([target_answer(row) for row in rows])
    for at, row in enumerate(rows):
        for column, passage in enumerate(row.candidates[:depth]):
            places.append((at, column))
            asked.append((row.question, passage))
            answers.append(targets[at])
    encoded = _prompts(asked, reader, template, room=reader.window - max(map(len, targets)) - 1)
    lengths = [len(ids) + len(answers[place]) for place, ids in enumerate(encoded)]
    for batch in token_budget_batches(lengths, budget=_TOKEN_BUDGET):
        logprobs = reader.answer_logprobs(
            [encoded[place] for place in batch], [answers[place] for place in batch]
        )
        for place, total in zip(batch, logprobs.float().sum(dim=1).tolist(), strict=True):
            values[places[place]] = total
    return values


def _prompts(
    asked: Sequence[tuple[str, Passage]],
    reader: TrainableReader,
    template: PromptTemplate,
    *,
    room: int,
) -> list[list[int]]:
    """Token ids of a prompt for each question and passage; a passage that is too long for the
    reader is cut at a word."""
    encoded = reader.encode_prompts([template.write(Question("", q), [p]) for q, p in asked])
    for place, (question, passage) in enumerate(asked):
        words = passage.text.split()
        while len(encoded[place]) > room and len(words) > 1:
            words = words[: max(1, min(len(words) - 1, len(words) * room // len(encoded[place])))]
            cut = replace(passage, text=" ".join(words))
            [encoded[place]] = reader.encode_prompts(
                [template.write(Question("", question), [cut])]
            )
    return encoded


def _write(file: Path, values: Tensor) -> None:
    fresh = file.with_suffix(".partial")
    save_file({"log_likelihoods": values}, str(fresh))
    os.replace(fresh, file)
