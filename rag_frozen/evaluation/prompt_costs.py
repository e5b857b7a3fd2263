"""What soft prompts cost: their trained weights, and the work of making them for a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag_frozen.evaluation.flops import reading_flops, text_model
from rag_frozen.evaluation.scoring import ScoredAnswer
from rag_frozen.prompting.bank import PromptBank
from rag_frozen.prompting.generator import CrossAttentionGenerator
from rag_frozen.prompting.heads import DependentHead, Head, StaticHead
from rag_frozen.prompting.input_encoder import InputEncoder

__all__ = ["PromptCost", "generator_flops", "prompt_flops", "prompts_in_use"]


@dataclass(frozen=True, slots=True)
class PromptCost:
    """One soft prompt: its trained weights, its frozen encoder with its weights (None and 0 for a
    static one), and for a question the tokens that the encoder reads and the work of both."""

    trained: int
    encoder: InputEncoder | None
    encoder_parameters: int
    tokens: float
    flops: float


def prompts_in_use(reader: object) -> tuple[Head, ...]:
    """The soft prompts that condition a reader by its recipe: one, an ensemble's, or none."""
    names: Sequence[str] = ()
    while (inner := getattr(reader, "reader", None)) is not None:
        names = names or getattr(reader, "names", ())
        reader = inner
    bank = getattr(reader, "prompt_generator", None)
    if not isinstance(bank, PromptBank):
        return ()
    if not names and bank.default is not None:
        names = (bank.default,)
    found = [bank.get(name) for name in names]
    return tuple(one for one in found if isinstance(one, StaticHead | DependentHead))


def prompt_flops(head: Head, rows: Sequence[ScoredAnswer]) -> PromptCost:
    """Count what a prompt cost in a run.

    An encoder whose states were those of the dense retriever's question encoder has read nothing
    itself. Where it reads the whole prompt its tokens are taken as the reader's, up to its window.
    """
    trained = sum(weight.numel() for weight in head.module.parameters())
    if isinstance(head, StaticHead):
        return PromptCost(trained, None, 0, 0.0, 0.0)
    encoder, n = head.encoder, max(1, len(rows))
    if head.reads == "question":
        of_row = [float(len(encoder.tokens(row.question))) for row in rows]
    else:
        of_row = [min(row.prompt_tokens / row.readings, encoder.max_tokens) for row in rows]
    lengths = [
        length for length, row in zip(of_row, rows, strict=True) for _ in range(row.readings)
    ]
    learned = head.module.config.encoder_prompt
    work = sum(generator_flops(head.module, length + learned) for length in lengths) / n
    tokens = 0.0
    sizes = text_model(encoder.model)
    if encoder.texts_encoded and sizes is not None:
        tokens = sum(lengths) / n
        work += sum(reading_flops(sizes.reader, length + learned) for length in lengths) / n
    return PromptCost(trained, encoder, encoder.parameter_counts()[0], tokens, work)


def generator_flops(module: CrossAttentionGenerator, states: float) -> float:
    """Operations of a generator over ``states`` encoder states: each linear layer over what passes
    it, and each block's queries looking at all states."""
    config = module.config
    width, queries = config.width, config.n_queries
    over_states = config.encoder_width * width + config.depth * 2 * width * width
    over_queries = config.depth * 2 * (width * width + width * config.inner)
    over_queries += width * config.reader_width
    looked = config.depth * width * queries * states
    return 2.0 * (over_states * states + over_queries * queries) + 4.0 * looked
