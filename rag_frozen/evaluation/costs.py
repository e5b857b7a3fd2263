"""What a run cost: time and tokens a stage, memory, parameters and the work of each part."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_frozen.artifacts.provenance import describe_hardware
from rag_frozen.evaluation.flops import generation_flops, reading_flops, text_model
from rag_frozen.evaluation.prompt_costs import prompt_flops, prompts_in_use
from rag_frozen.evaluation.scoring import ScoredAnswer
from rag_frozen.pipeline import Pipeline

__all__ = [
    "PartCost",
    "TokensRead",
    "describe_costs",
    "describe_machine",
    "peak_memory",
    "trained_share",
]

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class PartCost:
    """One learned part.

    ``parameters`` counts all weights; ``trained`` those learned for this task, beside the frozen
    language model and encoders. ``tokens`` a question is what it reads and writes.
    ``flops_per_question`` is counted as ``rag_frozen.evaluation.flops`` says, attention included,
    for texts of equal length where only their sum is known; for a model of a form that is not known
    there, as 2 x weights x tokens, embedding tables left out. ``added`` says whether the part was
    added to the frozen reader for this task: a reranker, a soft prompt with its encoder.
    """

    part: str
    parameters: int
    trained: int
    tokens: float
    flops_per_question: float
    added: bool = False


@dataclass(frozen=True, slots=True)
class TokensRead:
    """Tokens that encoder and reranker have read."""

    encoder: int = 0
    reranker: int = 0

    @classmethod
    def so_far(cls, pipeline: Pipeline) -> TokensRead:
        """Read the counters of a pipeline's stages."""
        encoder = _encoder(pipeline.retriever)
        return cls(_tokens(encoder), _tokens(pipeline.reranker))

    def __add__(self, other: TokensRead) -> TokensRead:
        """Both together."""
        return TokensRead(self.encoder + other.encoder, self.reranker + other.reranker)

    def __sub__(self, other: TokensRead) -> TokensRead:
        """What was read since ``other``."""
        return TokensRead(self.encoder - other.encoder, self.reranker - other.reranker)


def describe_costs(
    pipeline: Pipeline,
    rows: Sequence[ScoredAnswer],
    seconds: Mapping[str, float],
    *,
    read: TokensRead,
) -> dict[str, Any]:  # Any: JSON values
    """Describe what a run cost, as plain JSON values.

    Args:
        pipeline: whose stages are asked for their parameters.
        rows: all answers of the run.
        seconds: a question by stage.
        read: by encoder and reranker, for all answers together.
    """
    parts = list(_parts(pipeline, rows, read))
    return {
        "seconds": {stage: round(spent, 6) for stage, spent in seconds.items()},
        "tokens": {
            "prompt": _mean([row.prompt_tokens for row in rows]),
            "answer": _mean([row.answer_tokens for row in rows]),
            **{part.part: round(part.tokens, 1) for part in parts if part.part != "reader"},
        },
        "peak_memory_mib": round(peak_memory() / _MIB, 1),
        "peak_device_memory_mib": _device_memory(),
        "machine": describe_machine(),
        "parameters": [
            {
                "part": part.part,
                "tokens": part.tokens,
                "flops_per_question": part.flops_per_question,
                "frozen": part.parameters - part.trained,
                "trained": part.trained,
            }
            for part in parts
        ],
        "trained_share": trained_share(parts),
    }


def trained_share(parts: Sequence[PartCost]) -> dict[str, Any] | None:  # Any: JSON values
    """What the parts that were added to the frozen reader add, in percent of it: to its parameters
    (the trained ones) and to its work a question, in all and part by part; None without a reader.

    >>> parts = [PartCost("reranker", 5, 5, 9.0, 10.0, True), PartCost("reader", 100, 0, 9.0, 80.0)]
    >>> trained_share(parts)
    {'parameters': 5.0, 'flops': 12.5, 'flops_of': {'reranker': 12.5}}
    """
    reader = next((part for part in parts if part.part == "reader"), None)
    if reader is None or not reader.parameters or not reader.flops_per_question:
        return None
    added = [part for part in parts if part.added]
    flops = {part.part: part.flops_per_question / reader.flops_per_question for part in added}
    return {
        "parameters": round(100 * sum(part.trained for part in added) / reader.parameters, 4),
        "flops": round(100 * sum(flops.values()), 4),
        "flops_of": {name: round(100 * share, 4) for name, share in flops.items()},
    }


def describe_machine() -> dict[str, Any]:  # Any: JSON values
    """The machine: processor, cores, memory (GiB) and accelerator."""
    machine = describe_hardware()
    return {
        "cpu": machine.cpu,
        "cores": machine.cores,
        "memory_gib": round((machine.memory_bytes or 0) / 2**30, 1),
        "device": machine.accelerator or "cpu",
    }


def peak_memory() -> int:
    """The most resident memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1_024


def _device_memory() -> float | None:
    """The most memory of a CUDA device that this process has held, in MiB; None without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return round(float(torch.cuda.max_memory_allocated()) / _MIB, 1)


def _parts(
    pipeline: Pipeline, rows: Sequence[ScoredAnswer], read: TokensRead
) -> Iterator[PartCost]:
    questions = max(1, len(rows))
    encoder = _encoder(pipeline.retriever)
    if found := _counts(encoder):
        tokens = read.encoder / questions
        yield PartCost("encoder", found[0], 0, tokens, _reading(encoder, tokens, 1.0, found[1]))
    if found := _counts(pipeline.reranker):
        tokens = read.reranker / questions
        pairs = sum(row.reranked for row in rows) / questions
        work = _reading(pipeline.reranker, tokens, pairs, found[1])
        yield PartCost("reranker", found[0], found[0], tokens, work, added=True)
    yield from _reader_parts(pipeline, rows)


def _reader_parts(pipeline: Pipeline, rows: Sequence[ScoredAnswer]) -> Iterator[PartCost]:
    reader, copies = _plain_reader(pipeline.reader)
    found = _counts(reader)
    if found is None:
        return
    work = copies * _generation(reader, rows, 0, found[1])
    prompts = prompts_in_use(pipeline.reader)
    if prompts:
        longest = max(prompt.length for prompt in prompts)
        longer = copies * _generation(reader, rows, longest, found[1]) - work
        costs = [prompt_flops(prompt, rows) for prompt in prompts]
        frozen = {id(cost.encoder): cost.encoder_parameters for cost in costs if cost.encoder}
        trained = sum(cost.trained for cost in costs)
        yield PartCost(
            "soft prompt",
            sum(frozen.values()) + trained,
            trained,
            sum(cost.tokens for cost in costs),
            sum(cost.flops for cost in costs) + longer,
            added=True,
        )
    read = _mean([row.prompt_tokens + row.answer_tokens for row in rows])
    yield PartCost("reader", found[0], 0, copies * read, work)


def _plain_reader(reader: object) -> tuple[object, int]:
    """The reader in its wrappers, and how often it reads a question: once for each member of an
    ensemble."""
    copies = 1
    while (inner := getattr(reader, "reader", None)) is not None:
        copies *= max(1, len(getattr(reader, "names", ())))
        reader = inner
    return reader, copies


def _counts(stage: object | None) -> tuple[int, int] | None:
    counts = getattr(stage, "parameter_counts", None)
    return None if counts is None else counts()


def _reading(stage: object, tokens: float, texts: float, used: int) -> float:
    """Work of a stage that reads ``tokens`` a question in ``texts`` texts."""
    sizes = _sizes(stage)
    if sizes is None or texts <= 0:
        return 2.0 * used * tokens
    return reading_flops(sizes.reader, tokens / texts, texts=texts) if tokens else 0.0


def _generation(reader: object, rows: Sequence[ScoredAnswer], prompt: int, used: int) -> float:
    """Mean work of an answer, with ``prompt`` vectors before each prompt; of passages that are
    read one by one, each takes its equal part of the tokens."""
    sizes = _sizes(reader)
    work = 0.0
    for row in rows:
        if not row.answer_tokens:
            continue
        times = row.readings
        source, written = row.prompt_tokens / times + prompt, row.answer_tokens / times
        if sizes is None:
            work += times * 2.0 * used * (source + written)
        else:
            work += times * generation_flops(sizes, source, written)
    return work / max(1, len(rows))


def _sizes(stage: object) -> Any:  # Any: TextModel or None
    from torch import nn

    model = getattr(stage, "model", None)
    return text_model(model) if isinstance(model, nn.Module) else None


def _encoder(retriever: object) -> object | None:
    """The question encoder of a retriever, or of the first part of a fusion that has one."""
    parts = getattr(retriever, "parts", None)
    if parts is not None:
        found = (_encoder(part) for _, part, _ in parts)
        return next((one for one in found if one is not None), None)
    return getattr(retriever, "encoder", None)


def _tokens(stage: object | None) -> int:
    return int(getattr(stage, "tokens_read", 0))


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / max(1, len(values)), 1)
