"""What a run cost: time and tokens a stage, memory, parameters and the work of each part."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rag_frozen.artifacts.provenance import describe_hardware
from rag_frozen.evaluation.scoring import ScoredAnswer
from rag_frozen.pipeline import Pipeline

__all__ = ["PartCost", "TokensRead", "describe_costs", "describe_machine", "peak_memory"]

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class PartCost:
    """One learned part.

    ``parameters`` counts all weights; ``trained`` says whether they were learned for this task,
    beside the frozen language model and encoder. ``tokens`` a question is what it reads and writes.
    ``flops_per_question`` is estimated as 2 x weights x tokens, weights of embedding tables left
    out (Kaplan et al. 2020, section 2.1, without the attention term).
    """

    part: str
    parameters: int
    trained: bool
    tokens: float
    flops_per_question: float


@dataclass(frozen=True, slots=True)
class TokensRead:
    """Tokens that encoder and reranker had read when a run began."""

    encoder: int
    reranker: int

    @classmethod
    def so_far(cls, pipeline: Pipeline) -> TokensRead:
        """Read the counters of a pipeline's stages."""
        encoder = _encoder(pipeline.retriever)
        return cls(_tokens(encoder), _tokens(pipeline.reranker))


def describe_costs(
    pipeline: Pipeline,
    rows: Sequence[ScoredAnswer],
    seconds: Mapping[str, float],
    *,
    before: TokensRead,
    questions: int,
) -> dict[str, Any]:  # Any: JSON values
    """Describe what a run cost, as plain JSON values.

    Args:
        pipeline: whose stages are asked for their parameters.
        rows: all answers of the run.
        seconds: a question by stage.
        before: the counters when this process began to answer.
        questions: so many were answered by this process.
    """
    parts = list(_parts(pipeline, rows, before, max(1, questions)))
    return {
        "seconds": {stage: round(spent, 6) for stage, spent in seconds.items()},
        "tokens": {
            "prompt": _mean([row.prompt_tokens for row in rows]),
            "answer": _mean([row.answer_tokens for row in rows]),
            **{part.part: round(part.tokens, 1) for part in parts if part.part != "reader"},
        },
        "peak_memory_mib": round(peak_memory() / _MIB, 1),
        "machine": describe_machine(),
        "parameters": [
            {
                **{k: v for k, v in asdict(part).items() if k not in ("parameters", "trained")},
                "frozen": 0 if part.trained else part.parameters,
                "trained": part.parameters if part.trained else 0,
            }
            for part in parts
        ],
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


def _parts(
    pipeline: Pipeline, rows: Sequence[ScoredAnswer], before: TokensRead, questions: int
) -> Iterator[PartCost]:
    now = TokensRead.so_far(pipeline)
    read = _mean([row.prompt_tokens + row.answer_tokens for row in rows])
    encoder = _encoder(pipeline.retriever)
    for name, stage, trained, tokens in (
        ("encoder", encoder, False, (now.encoder - before.encoder) / questions),
        ("reranker", pipeline.reranker, True, (now.reranker - before.reranker) / questions),
        ("reader", pipeline.reader, False, read),
    ):
        counts = getattr(stage, "parameter_counts", None)
        if counts is None:
            continue
        total, used = counts()
        yield PartCost(name, total, trained, tokens, 2.0 * used * tokens)


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
