"""What a prompt training begins with: a fresh soft prompt or generator, and the encoder it reads
with."""

from __future__ import annotations

from collections import Counter

import torch

from rag_frozen.errors import RecipeError
from rag_frozen.models.device import choose_dtype
from rag_frozen.models.source import resolve_model
from rag_frozen.prompting.generator import CrossAttentionGenerator, GeneratorConfig
from rag_frozen.prompting.heads import DependentHead, Head, StaticHead
from rag_frozen.prompting.input_encoder import InputEncoder
from rag_frozen.prompting.soft_prompt import (
    SoftPrompt,
    from_labels,
    from_tokens,
    random_vectors,
    sampled,
)
from rag_frozen.training.prompt_data import PromptRows
from rag_frozen.training.prompt_settings import (
    FullTuning,
    InputDependentPrompt,
    LabelsStart,
    PromptTraining,
    RandomStart,
    SampledStart,
    StaticPrompt,
    TextStart,
)
from rag_frozen.training.prompt_task import TrainableReader

__all__ = ["begin_head", "input_encoder"]

_COUNTED = 20_000
"""Training examples in which tokens are counted for a sampled start."""


def input_encoder(head: object, device: torch.device) -> InputEncoder | None:
    """The frozen encoder that an input-dependent head reads with; None for any other head."""
    if not isinstance(head, InputDependentPrompt):
        return None
    return InputEncoder(
        resolve_model(head.encoder),
        device=device,
        dtype=choose_dtype(device),
        max_tokens=head.max_tokens,
    )


def begin_head(
    settings: PromptTraining,
    reader: TrainableReader,
    encoder: InputEncoder | None,
    rows: PromptRows,
) -> Head | None:
    """A fresh head, its random parts drawn from the recipe's seed."""
    chance = torch.Generator().manual_seed(settings.seed)
    table = reader.embedding_table
    match settings.head:
        case FullTuning():
            return None
        case StaticPrompt(length=length, start=start):
            return StaticHead(SoftPrompt(_start(start, length, reader, rows, settings, chance)))
        case InputDependentPrompt() as wanted:
            assert encoder is not None
            config = GeneratorConfig(
                encoder.width,
                int(table.shape[1]),
                n_queries=wanted.n_queries,
                n_static=wanted.n_static,
                width=wanted.width,
                depth=wanted.depth,
                heads=wanted.heads,
                inner=wanted.inner,
                encoder_prompt=wanted.encoder_prompt,
            )
            static = None
            if wanted.n_static:
                start = SampledStart()
                static = _start(start, wanted.n_static, reader, rows, settings, chance)
            norm = float(table.detach().float().norm(dim=1).mean())
            module = CrossAttentionGenerator(config, reader_norm=norm, static=static)
            return DependentHead(module, encoder, reads=wanted.reads)


def _start(
    start: object,
    length: int,
    reader: TrainableReader,
    rows: PromptRows,
    settings: PromptTraining,
    chance: torch.Generator,
) -> torch.Tensor:
    table = reader.embedding_table
    match start:
        case RandomStart():
            return random_vectors(length, int(table.shape[1]), generator=chance)
        case SampledStart(most=most):
            ids = _frequent(reader, rows, settings.seed, most)
            return sampled(table, ids, length, generator=chance)
        case LabelsStart(labels=labels, most=most):
            words = [ids[:-1] for ids in reader.encode_answers(labels)]
            ids = _frequent(reader, rows, settings.seed, most)
            return from_labels(table, words, length, fill=ids, generator=chance)
        case TextStart(text=text):
            [written] = reader.encode_answers([text])
            return from_tokens(table, written[:-1], length)
        case _:
            raise RecipeError(f"{start!r} is no way to begin a prompt.")


def _frequent(reader: TrainableReader, rows: PromptRows, seed: int, most: int) -> list[int]:
    """The most frequent tokens of training prompts, equal counts by id."""
    texts = [rows.pick(number, seed).context.prompt for number in range(_sample_size(rows))]
    counts: Counter[int] = Counter()
    for ids in reader.encode_prompts(texts):
        counts.update(ids)
    return sorted(counts, key=lambda token: (-counts[token], token))[:most]


def _sample_size(rows: PromptRows) -> int:
    return min(_COUNTED, sum(len(of_one) for _, of_one in rows.training))
