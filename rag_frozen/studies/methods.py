"""The methods of a study over one reader: what each writes for the same contexts.

Trained methods are trained by ``training``, whose finished artifacts are found again; everything
here only conditions the reader and lets it write.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rag_frozen.artifacts import ArtifactKind, load_manifest
from rag_frozen.errors import InputError
from rag_frozen.normalization import normalize_answer
from rag_frozen.prompting.ensemble import elect
from rag_frozen.prompting.loading import load_prompt
from rag_frozen.protocols import PromptGenerator
from rag_frozen.reader.make import make_reader
from rag_frozen.recipes.pipeline import PrefixReader, ReaderSettings
from rag_frozen.studies.settings import PromptStudy, StudyTask, TrainedMethod
from rag_frozen.training.prompt_data import PromptRow
from rag_frozen.training.prompt_settings import FullTuning, PromptTraining
from rag_frozen.training.prompt_task import TrainableReader
from rag_frozen.types import Context, Generation, Question

__all__ = [
    "Conditioned",
    "answer",
    "conditioned",
    "perplexity",
    "trained_parameters",
    "training_of",
    "voted",
    "with_shots",
    "with_text",
]

_CHECKPOINT_EVERY = 25
"""Steps of a training that a kill may cost."""
_SPARE = 8
"""Tokens that are left free when shots are put into the window."""


@dataclass(frozen=True, slots=True)
class Conditioned:
    """A reader with what conditions it."""

    reader: TrainableReader
    head: PromptGenerator | None


def training_of(
    method: TrainedMethod, study: PromptStudy, task: StudyTask, reader: tuple[str, ReaderSettings],
    *, seed: int,
) -> PromptTraining:  # fmt: skip
    """The recipe of one training: equal data, steps and batches for every method."""
    name, settings = reader
    data = task.data.model_copy(update={"path": study.data_path, "split_seed": study.split_seed})
    return PromptTraining(
        kind="prompt",
        name=f"{study.name}-{name}-{task.name}-{method.name}",
        seed=seed,
        reader=settings,
        head=method.head,
        template=study.template,
        data=data,
        optimiser=method.optimiser,
        steps=task.steps,
        batch_size=task.batch_size,
        max_source_tokens=task.max_source_tokens,
        max_target_tokens=task.max_target_tokens,
        validate_every=task.validate_every,
        checkpoint_every=min(task.validate_every, _CHECKPOINT_EVERY),
        early_stopping=task.early_stopping,
    )


def conditioned(
    method: TrainedMethod, folder: Path, reader: TrainableReader, settings: ReaderSettings
) -> Conditioned:
    """Load what a training wrote: a head for the reader, or the tuned reader itself.

    Prompts whose proof failed (no gain on validation, say) are taken too: a study reports them.
    """
    if isinstance(method.head, FullTuning):
        assert isinstance(settings, PrefixReader)  # training refuses others
        return Conditioned(make_reader(settings.model_copy(update={"model": str(folder)})), None)
    head = load_prompt(
        folder,
        reader_digest=reader.base_digest,
        device=reader.embedding_table.device,
        dtype=reader.embedding_table.dtype,
        accept_unproven=True,
    )
    return Conditioned(reader, head)


def trained_parameters(method: TrainedMethod, folder: Path) -> int:
    """How many parameters a training trained."""
    kind: ArtifactKind = "model" if isinstance(method.head, FullTuning) else "head"
    return load_manifest(folder, kind=kind).counts["trained_parameters"]


def answer(with_what: Conditioned, contexts: Sequence[Context]) -> list[Generation]:
    """Let the conditioned reader write; what conditioned it before is put back."""
    reader = with_what.reader
    before = reader.prompt_generator
    reader.prompt_generator = with_what.head
    try:
        return reader.generate(contexts)
    finally:
        reader.prompt_generator = before


def voted(members: Sequence[Sequence[Generation]], *, method: str = "majority") -> list[Generation]:
    """Put the members' answers to the vote, question by question.

    >>> one, other = Generation("Nile", -0.1, 1, "end"), Generation("the Nile", -0.3, 2, "end")
    >>> [chosen.text for chosen in voted([[one], [other]])]
    ['Nile']
    """
    return [
        elect(row, normalize=normalize_answer, method=method)[0]  # type: ignore[arg-type]
        for row in zip(*members, strict=True)
    ]


def with_text(contexts: Sequence[Context], text: str) -> list[Context]:
    """Put a written text before each prompt."""
    return [replace(context, prompt=f"{text}\n{context.prompt}") for context in contexts]


def with_shots(
    contexts: Sequence[Context],
    shots: Sequence[PromptRow],
    *,
    reader: TrainableReader,
    window: int,
    answer_tokens: int,
) -> list[Context]:
    """Put training rows with their answers before each prompt, as many as fit the window.

    Args:
        contexts: of the questions.
        shots: in order; the last ones are left out where not all fit.
        reader: counts the tokens.
        window: positions of the reader.
        answer_tokens: that are kept free for the answer.
    """
    texts = [f"{row.context.prompt}answer: {row.target}\n" for row in shots]
    lengths = [len(ids) for ids in reader.encode_prompts(texts)]
    own = [len(ids) for ids in reader.encode_prompts([one.prompt for one in contexts])]
    made = []
    for context, n_tokens in zip(contexts, own, strict=True):
        room = window - answer_tokens - _SPARE - n_tokens
        fitting = 0
        while fitting < len(texts) and lengths[fitting] <= room:
            room -= lengths[fitting]
            fitting += 1
        made.append(replace(context, prompt="".join(texts[:fitting]) + context.prompt))
    return made


@torch.inference_mode()
def perplexity(
    with_what: Conditioned, sources: Sequence[str], targets: Sequence[str], *, batch: int = 16
) -> tuple[float, list[float]]:
    """Perplexity a token of the targets given the sources, and each piece's mean log-probability.

    A prompt is left on, as where it was forgotten to take off: without it the model is the plain
    one. Tokens are the reader's; the end token is not counted.

    Raises:
        InputError: when there is nothing to score.
    """
    if not sources:
        raise InputError("There is no text to measure perplexity on.")
    reader, head = with_what.reader, with_what.head
    prompts = reader.encode_prompts(sources)
    answers = [ids[:-1] for ids in reader.encode_answers(targets)]
    contexts = [Context(Question(str(n), text), text, 0) for n, text in enumerate(sources)]
    total, count = 0.0, 0
    means = []
    for start in range(0, len(prompts), batch):
        rows = slice(start, start + batch)
        vectors = None if head is None else head.generate(contexts[rows])
        scored = reader.answer_logprobs(prompts[rows], answers[rows], vectors).double()
        sums = scored.sum(dim=1).tolist()
        for value, ids in zip(sums, answers[rows], strict=True):
            total += value
            count += len(ids)
            means.append(value / len(ids))
    return math.exp(-total / count), means
