"""From the encoder that a recipe names to the encoder."""

from __future__ import annotations

from rag_frozen.models.source import resolve_model
from rag_frozen.recipes.index import DprEncoderSettings, EncoderSettings
from rag_frozen.retrieval.dense_encoders import DprEncoder, Encoder, SentenceEncoder

__all__ = ["make_encoder"]


def make_encoder(settings: EncoderSettings, *, device: str | None = None) -> Encoder:
    """Make the encoder that a recipe names."""
    match settings:
        case DprEncoderSettings():
            return DprEncoder(
                resolve_model(settings.question_model, revision=settings.question_revision),
                resolve_model(settings.passage_model, revision=settings.passage_revision),
                device=device,
            )
        case _:
            return SentenceEncoder(
                resolve_model(settings.model, revision=settings.revision), device=device
            )
