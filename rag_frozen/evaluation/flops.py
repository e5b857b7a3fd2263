"""Floating point operations of a question, counted from a model's sizes, attention included.

A multiplication and an addition are two operations. With W the weights of the matrices that every
token passes through, L layers, A the width of attention (heads x head width) and V the weights of
the output head, n tokens that are read at once cost

    2 W n + 4 L A n²                                     (each token looks at n keys: q·k and a·v)

and an answer of m tokens after a source of n, written with kept keys and values, costs

    reading     2 W n + 4 L A n²
    writing     2 W s + 4 L A (n s + s (s + 1) / 2)      s steps of one token each
    the head    2 V m

A decoder-only model takes its first token from the source's last state, so that s = m - 1; the
prefix language model begins with a start token of its own, s = m. In an encoder-decoder the source
passes the encoder, its states once the decoder's cross keys and values, and each of the s = m steps
looks at the steps before it and at all of the source.

These are the matrix products that torch.utils.flop_counter counts (Kaplan et al. 2020, section 2.1,
with the attention term): masked keys count, padding does not; norms, activations and embeddings are
left out. Of a mixture of experts all experts that are plain layers count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Stack", "TextModel", "generation_flops", "reading_flops", "text_model"]

_ONCE = ("pooler", "classifier", "pre_classifier", "score")
"""Modules that a sequence passes once, not token by token."""
_CROSS = ("EncDecAttention", "encoder_attn", "crossattention")
_CROSS_STATES = ("k", "v", "k_proj", "v_proj", "key", "value")


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack of layers: its matrices' weights, layers, width of attention, and the weights that a
    sequence passes once, and that another stack's states pass once a token (cross attention)."""

    weights: int
    layers: int
    attention: int
    once: int = 0
    cross: int = 0


@dataclass(frozen=True, slots=True)
class TextModel:
    """What a model's operations are counted from: ``reader`` is the stack that reads, ``writer``
    the decoder beside it where there are two; ``head`` the weights of the output head; ``starts``
    whether writing begins with a token of its own."""

    reader: Stack
    writer: Stack | None = None
    head: int = 0
    starts: bool = False


def reading_flops(stack: Stack, tokens: float, *, texts: float = 1.0) -> float:
    """Operations of reading ``texts`` texts of ``tokens`` tokens each.

    >>> reading_flops(Stack(weights=10, layers=1, attention=2), 3)
    132.0
    """
    each = 2.0 * stack.weights * tokens + 4.0 * stack.layers * stack.attention * tokens**2
    return texts * (each + 2.0 * stack.once)


def generation_flops(model: TextModel, source: float, written: float) -> float:
    """Operations of one answer.

    Args:
        model: its sizes.
        source: tokens that are read, a soft prompt's vectors among them.
        written: tokens of the answer, the end token among them.

    >>> one = TextModel(Stack(weights=10, layers=1, attention=2), head=5)
    >>> generation_flops(one, 3, 2)  # reading 132, one step 20 + 4 * 2 * 4, the head 20
    204.0
    """
    read = reading_flops(model.reader, source)
    head = 2.0 * model.head * written
    if model.writer is None:
        steps = max(written if model.starts else written - 1, 0.0)
        stack = model.reader
        looked = source * steps + steps * (steps + 1) / 2
        return (
            read
            + head
            + 2.0 * stack.weights * steps
            + 4.0 * stack.layers * stack.attention * looked
        )
    stack, steps = model.writer, written
    looked = source * steps + steps * (steps + 1) / 2
    states = 2.0 * stack.cross * source
    write = 2.0 * stack.weights * steps + 4.0 * stack.layers * stack.attention * looked
    return read + states + write + head


def text_model(module: nn.Module) -> TextModel | None:
    """Find a model's sizes; None for a form that is not known.

    Args:
        module: the project's prefix language model, or a model of transformers.
    """
    from rag_frozen.reader.prefix_lm import PrefixLM

    config = _config(module)
    if config is None:
        return None
    if isinstance(module, PrefixLM):
        head = int(module.head.weight.numel() + module.word_embeddings.weight.numel())
        reader = _stack(module, config, leave_out=module.head)
        return TextModel(reader, head=head, starts=True)
    output = getattr(module, "get_output_embeddings", lambda: None)()
    head = 0 if output is None else int(output.weight.numel())
    if getattr(config, "is_encoder_decoder", False):
        encoder, decoder = module.get_encoder(), module.get_decoder()  # type: ignore[operator]
        writer = _stack(decoder, config, decoder=True)
        return TextModel(_stack(encoder, config), writer, head)
    return TextModel(_stack(module, config, leave_out=output), head=head)


def _config(module: nn.Module) -> Any | None:  # Any: of transformers, or the prefix LM's
    """The first configuration in a model that names layers: wrappers hold the model itself."""
    for part in module.modules():
        config = getattr(part, "config", None)
        if config is not None and _layers(config, decoder=False) is not None:
            return config
    return None


def _layers(config: Any, *, decoder: bool) -> int | None:
    names: tuple[str, ...] = ("num_hidden_layers", "encoder_layers", "num_layers", "n_layer")
    if decoder:
        names = ("num_decoder_layers", "decoder_layers", *names)
    return next((int(getattr(config, one)) for one in names if getattr(config, one, None)), None)


def _attention(config: Any) -> int:
    """Heads x head width."""
    names = ("num_attention_heads", "num_heads", "n_head", "encoder_attention_heads")
    heads = next(int(getattr(config, one)) for one in names if getattr(config, one, None))
    each = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
    if each:
        return heads * int(each)
    width = getattr(config, "hidden_size", None) or getattr(config, "d_model", None)
    return int(width or 0)


def _stack(
    module: nn.Module, config: Any, *, leave_out: Any = None, decoder: bool = False
) -> Stack:
    weights = once = cross = 0
    for name, part in module.named_modules():
        weight = getattr(part, "weight", None)
        if part is leave_out or type(part).__name__ not in ("Linear", "Conv1D") or weight is None:
            continue
        parts, size = name.split("."), int(weight.numel())
        if any(one in _ONCE for one in parts):
            once += size
        elif parts[-1] in _CROSS_STATES and any(one in _CROSS for one in parts):
            cross += size
        else:
            weights += size
    layers = _layers(config, decoder=decoder) or 0
    return Stack(weights, layers, _attention(config), once, cross)
