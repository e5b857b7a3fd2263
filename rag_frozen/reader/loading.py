"""Load language models of transformers: from safetensors only, complete, and with no own code."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch

from rag_frozen.errors import ModelError
from rag_frozen.models.source import ModelFolder

__all__ = [
    "accepts",
    "clean_generation",
    "decoder_start",
    "end_ids",
    "load_language_model",
    "model_window",
]

_LIMITS = ("max_encoder_position_embeddings", "max_position_embeddings")
"""Hard: a position beyond it does not exist."""
_HINTS = ("n_positions", "seq_length")
"""What relative positions were trained with (T5); longer inputs can be read."""
_UNBOUNDED = 10_000_000
_DEFAULT_WINDOW = 2_048


def load_language_model(
    model: ModelFolder, *, kind: Literal["causal", "seq2seq"], dtype: torch.dtype
) -> tuple[Any, Any]:
    """Load a model of transformers and its tokenizer onto the CPU.

    Args:
        model: a folder with safetensors, one file or sharded.
        kind: decoder-only or encoder-decoder.
        dtype: of the weights in memory.

    Returns:
        The model and the tokenizer (not typed by transformers).

    Raises:
        ModelError: when a file is missing, damaged or of another kind, when weights are missing
            (transformers would make them up at random), or when the model needs its own code.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSeq2SeqLM
    folder = str(model.path)
    try:
        loaded, info = auto.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # damaged tokenizers and safetensors raise bare exceptions
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{model.name} cannot be loaded as a {kind} reader: {reason} "
            "Name a model with config.json, a tokenizer and safetensors, of kind causal "
            "(decoder-only) or seq2seq (encoder-decoder)."
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{model.name} lacks {len(missing)} of the weights of a {kind} reader, such as "
            f"{missing[0]}: it is another kind of model. Name a language model of kind causal "
            "(decoder-only) or seq2seq (encoder-decoder)."
        )
    return loaded, tokenizer


def clean_generation(model: Any, *, pad_id: int, end_ids: list[int]) -> Any:
    """Make generation settings that hold nothing of what the model's authors like to sample with
    (penalties, temperatures): the reader's decoding says how answers are written."""
    from transformers import GenerationConfig

    return GenerationConfig(
        pad_token_id=pad_id,
        eos_token_id=end_ids or None,
        bos_token_id=model.generation_config.bos_token_id,
        decoder_start_token_id=model.generation_config.decoder_start_token_id,
    )


def decoder_start(model: Any, pad_id: int) -> list[int]:
    """The tokens that an encoder-decoder's answer begins with, a forced first token included."""
    settings = model.generation_config
    start = settings.decoder_start_token_id
    if start is None:
        start = getattr(model.config, "decoder_start_token_id", None)
    if start is None:
        start = pad_id if settings.bos_token_id is None else settings.bos_token_id
    forced = settings.forced_bos_token_id
    return [int(start)] if forced is None else [int(start), int(forced)]


def end_ids(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end an answer: the model's (one or several) and the tokenizer's."""
    ends = model.generation_config.eos_token_id
    named = ends if isinstance(ends, list) else [ends]
    return {int(end) for end in [*named, tokenizer.eos_token_id] if end is not None}


def model_window(config: Any, wished: int | None) -> int:
    """Tokens that the model can read: its hard limit, or what was wished for below it.

    >>> from types import SimpleNamespace as Config
    >>> model_window(Config(max_position_embeddings=1_024), None)
    1024
    >>> model_window(Config(max_position_embeddings=1_024), 2_048)
    1024
    >>> model_window(Config(n_positions=512), 2_048), model_window(Config(n_positions=512), None)
    (2048, 512)
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limit = _first(text, _LIMITS)
    if limit is None:
        return wished or _first(text, _HINTS) or _DEFAULT_WINDOW
    return min(wished or limit, limit)


def _first(config: Any, names: tuple[str, ...]) -> int | None:
    for name in names:
        found = getattr(config, name, None)
        if isinstance(found, int) and 0 < found < _UNBOUNDED:
            return found
    return None


def accepts(model: Any, name: str) -> bool:
    """True where the model's forward pass takes a parameter of that name."""
    return name in inspect.signature(model.forward).parameters
