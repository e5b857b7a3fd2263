"""The frozen reader that a recipe names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_frozen.models.device import DtypeName, choose_device, choose_dtype
from rag_frozen.models.source import resolve_model
from rag_frozen.recipes.pipeline import CausalReader, PrefixReader, ReaderSettings, Seq2SeqReader

if TYPE_CHECKING:
    from rag_frozen.protocols import PromptGenerator
    from rag_frozen.reader.prefix_reader import PrefixLMReader
    from rag_frozen.reader.transformers_reader import TransformersReader

__all__ = ["make_reader"]


def make_reader(
    settings: ReaderSettings,
    *,
    device: str | None = None,
    dtype: DtypeName = "auto",
    prompt_generator: PromptGenerator | None = None,
) -> PrefixLMReader | TransformersReader:
    """Load, freeze and hash a reader.

    Raises:
        ModelError: when it is not at hand or cannot be loaded.
    """
    from rag_frozen.reader.decoding import Decoding

    place = choose_device(device)
    precision = choose_dtype(place, dtype)
    decoding = Decoding(**settings.decoding.model_dump())
    if isinstance(settings, PrefixReader):
        from rag_frozen.reader.prefix_reader import PrefixLMReader

        return PrefixLMReader.from_folder(
            resolve_model(settings.model).path,
            resolve_model(settings.encoder).path,
            decoding=decoding,
            name=settings.model,
            device=place,
            dtype=precision,
            prompt_generator=prompt_generator,
        )
    from rag_frozen.reader.transformers_reader import TransformersReader

    return TransformersReader(
        resolve_model(settings.model, revision=settings.revision),
        kind=settings.kind,
        decoding=decoding,
        device=place,
        dtype=precision,
        chat_template=isinstance(settings, CausalReader) and settings.chat_template,
        window=settings.window if isinstance(settings, Seq2SeqReader) else None,
        prompt_generator=prompt_generator,
    )
