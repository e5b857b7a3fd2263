"""What a prompt's training leaves: the head (or tuned model) written, loaded back, and proven."""

from __future__ import annotations

from typing import Any

from rag_frozen.artifacts import Draft
from rag_frozen.errors import FrozenWeightsChangedError
from rag_frozen.evaluation.statistics import mcnemar_p
from rag_frozen.models.source import resolve_model
from rag_frozen.prompting.heads import Head, load_head, save_head
from rag_frozen.prompting.input_encoder import InputEncoder
from rag_frozen.prompting.proof import PromptProof, prove_head, time_head
from rag_frozen.reader.freezing import weights_digest
from rag_frozen.reader.prefix_lm_weights import load_prefix_lm, save_trained
from rag_frozen.reader.prefix_reader import PrefixLMReader
from rag_frozen.recipes.pipeline import PrefixReader
from rag_frozen.training.prompt_data import PromptRows
from rag_frozen.training.prompt_settings import PromptTraining
from rag_frozen.training.prompt_task import TrainableReader, score_rows

__all__ = ["write_proven", "write_tuned"]

_PROVEN_ON = 16
"""Validation rows on which the proof compares log-probabilities."""


def write_proven(
    draft: Draft,
    reader: TrainableReader,
    head: Head,
    encoder: InputEncoder | None,
    rows: PromptRows,
    plain: list[bool],
) -> dict[str, Any]:
    """Write a head, load it, and compare what was loaded with the plain reader.

    Returns:
        The proof as JSON values, with the times of a question without and with the head.

    Raises:
        FrozenWeightsChangedError: when the reader's weights are not what they were at load.
    """
    head.module.eval().requires_grad_(False)
    device = reader.embedding_table.device
    base = reader.base_digest
    save_head(draft.folder, head, reader=reader.name, reader_digest=base)
    loaded = load_head(draft.folder, reader_digest=base, encoder=encoder, device=device)
    shown = rows.validation[:_PROVEN_ON]
    difference, same, after_loading = prove_head(
        reader, head, loaded, [row.context for row in shown], [row.target for row in shown]
    )
    matched, _ = score_rows(reader, loaded, rows.validation)
    after = weights_digest(reader.model)
    if after != reader.digest:
        raise FrozenWeightsChangedError(
            f"The frozen reader's weights changed in the training ({reader.digest[:16]} to "
            f"{after[:16]}). Nothing was saved. This is a fault of rag-frozen; please report it."
        )
    proof = PromptProof(
        base_before=reader.digest,
        base_after=after,
        largest_difference=difference,
        bitwise_after_loading=same,
        difference_after_loading=after_loading,
        plain=100 * sum(plain) / len(plain),
        conditioned=100 * sum(matched) / len(matched),
        p=mcnemar_p(matched, plain),
        validation_rows=len(plain),
    )
    draft.digests |= {"reader_before": proof.base_before, "reader_after": proof.base_after}
    without, with_it = time_head(
        reader, loaded, [row.context for row in shown], [row.target for row in shown]
    )
    times = {"plain_milliseconds": 1_000 * without, "conditioned_milliseconds": 1_000 * with_it}
    return {**proof.to_json(), **times}


def write_tuned(
    draft: Draft,
    reader: TrainableReader,
    settings: PromptTraining,
    rows: PromptRows,
    plain: list[bool],
) -> dict[str, Any]:
    """Write a tuned model, load it, and measure what was written; faults are never found."""
    assert isinstance(reader, PrefixLMReader)
    assert isinstance(settings.reader, PrefixReader)
    save_trained(reader.model, draft.folder, int8=False)
    loaded = load_prefix_lm(draft.folder, resolve_model(settings.reader.encoder).path)
    reader.model.load_state_dict(loaded.state_dict())
    matched, _ = score_rows(reader, None, rows.validation)
    return {
        "base_before": reader.digest,
        "base_after": weights_digest(reader.model),
        "plain": 100 * sum(plain) / len(plain),
        "conditioned": 100 * sum(matched) / len(matched),
        "p": mcnemar_p(matched, plain),
        "validation_rows": len(plain),
        "faults": [],
    }
