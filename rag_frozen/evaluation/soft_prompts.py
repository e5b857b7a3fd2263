"""What the soft prompts of a run look like, for its report: each vector's nearest tokens."""

from __future__ import annotations

from typing import Any

from rag_frozen.pipeline import Pipeline
from rag_frozen.prompting.bank import PromptBank
from rag_frozen.prompting.heads import StaticHead
from rag_frozen.prompting.nearest import nearest_tokens

__all__ = ["describe_prompts"]

_NEAREST = 5


def describe_prompts(pipeline: Pipeline) -> list[dict[str, Any]]:  # Any: JSON values
    """Name each loaded prompt and, of a static one, the tokens nearest to its vectors.

    Returns:
        Rows of ``name``, ``kind`` (static or input-dependent), ``length`` and ``vectors``: for each
        vector its norm and (token, cosine) pairs, nearest first; empty for an input-dependent
        prompt, whose vectors differ from question to question.
    """
    reader: Any = pipeline.reader
    while (inner := getattr(reader, "reader", None)) is not None:  # an ensemble's own
        reader = inner
    bank = getattr(reader, "prompt_generator", None)
    if not isinstance(bank, PromptBank):
        return []
    found = []
    for name in bank.names:
        prompt = bank.get(name)
        vectors = []
        if isinstance(prompt, StaticHead):
            made = prompt.module(1)[0]
            rows = nearest_tokens(made, reader.embedding_table, token=reader.token_text, k=_NEAREST)
            vectors = [
                {
                    "norm": round(float(vector.norm()), 3),
                    "nearest": [(one.token, round(one.cosine, 3)) for one in row],
                }
                for vector, row in zip(made, rows, strict=True)
            ]
        kind = "static" if isinstance(prompt, StaticHead) else "input-dependent"
        found.append({"name": name, "kind": kind, "length": prompt.length, "vectors": vectors})
    return found
