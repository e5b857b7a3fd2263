"""Begin a prefix language model from MiniLM, and save and load what was trained of it.

The word embeddings are MiniLM's and stay as they are; they are never written. What was trained
is written as safetensors, matrices as int8 with one scale a row (a quarter of fp32) or as they
are; or as a difference to another such model (``weight_difference.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rag_frozen.artifacts import file_sha256
from rag_frozen.errors import ArtifactDamagedError, ModelError
from rag_frozen.models.averaging import mean_state
from rag_frozen.models.rounding import restore_rounded, round_matrices
from rag_frozen.models.source import resolve_model
from rag_frozen.reader.prefix_lm import PrefixLM, PrefixLMConfig
from rag_frozen.reader.weight_difference import add_difference, take_difference

__all__ = ["as_bert", "averaged", "begin_from_minilm", "deepened", "load_prefix_lm", "save_trained"]

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_WORDS = "word_embeddings.weight"
_QKV = ("query", "key", "value")
_LAYER = {
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
"""Our names of a layer's parts, and transformers'."""


def begin_from_minilm(minilm: Path, config: PrefixLMConfig | None = None) -> PrefixLM:
    """Make a prefix language model whose layers are those of a BERT-shaped encoder.

    The head begins as the identity, so that at the start a state predicts the word whose embedding
    it is nearest to; positions past the encoder's table repeat it from its beginning.

    Args:
        minilm: a folder with ``model.safetensors`` in transformers' BERT naming.
        config: sizes; must fit the encoder's.

    Raises:
        ModelError: when the folder's tensors do not fit ``config``.
    """
    config = config or PrefixLMConfig()
    model = PrefixLM(config)
    try:
        with safe_open(str(minilm / _WEIGHTS), framework="pt") as tensors:
            source = {
                name.removeprefix("bert."): tensors.get_tensor(name)
                for name in tensors.keys()  # noqa: SIM118
            }
        state = _from_bert(source, config)
        width = config.hidden_size
        state |= {
            "head.weight": torch.eye(width),
            "head.bias": torch.zeros(width),
            "head_norm.weight": torch.ones(width),
            "head_norm.bias": torch.zeros(width),
            "head_bias": torch.zeros(config.vocab_size),
        }
        model.load_state_dict(state)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{minilm} cannot begin a prefix language model of {config}: {error}. "
            "Name a folder with a BERT-shaped encoder of these sizes."
        ) from error
    return model


def _from_bert(source: dict[str, Tensor], config: PrefixLMConfig) -> dict[str, Tensor]:
    positions = source["embeddings.position_embeddings.weight"]
    repeats = -(-config.max_position_embeddings // positions.shape[0])
    state = {
        _WORDS: source["embeddings.word_embeddings.weight"],
        "position_embeddings.weight": positions.repeat(repeats, 1)[
            : config.max_position_embeddings
        ],
        "type_embeddings.weight": source["embeddings.token_type_embeddings.weight"],
        "embedding_norm.weight": source["embeddings.LayerNorm.weight"],
        "embedding_norm.bias": source["embeddings.LayerNorm.bias"],
    }
    for index in range(config.num_hidden_layers):
        theirs, ours = f"encoder.layer.{index}.", f"layers.{index}."
        for part in ("weight", "bias"):
            heads = [source[f"{theirs}attention.self.{which}.{part}"] for which in _QKV]
            state[f"{ours}qkv.{part}"] = torch.cat(heads)
            for our_name, their_name in _LAYER.items():
                state[f"{ours}{our_name}.{part}"] = source[f"{theirs}{their_name}.{part}"]
    return state


def deepened(model: PrefixLM, n_layers: int) -> PrefixLM:
    """The model with more layers: each of its last ones stands twice, one after the other (depth
    up-scaling, Kim et al. 2023, arXiv 2312.15166). The model itself where it has so many.

    Raises:
        ModelError: when it has more layers, or fewer than half.
    """
    found = model.config.num_hidden_layers
    if n_layers == found:
        return model
    if not found < n_layers <= 2 * found:
        raise ModelError(
            f"A model of {found} layers can begin one of {found} to {2 * found}, not of {n_layers}."
        )
    deeper = PrefixLM(replace(model.config, num_hidden_layers=n_layers))
    once = 2 * found - n_layers  # the first layers, which stand once
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("layers.")}
    for place in range(n_layers):
        source = place if place < once else once + (place - once) // 2
        layer = model.layers[source].state_dict()
        state |= {f"layers.{place}.{name}": tensor for name, tensor in layer.items()}
    deeper.load_state_dict(state)
    return deeper


def averaged(models: Sequence[PrefixLM]) -> PrefixLM:
    """A model whose weights are the mean of those of ``models``; the model itself where it is one.

    Tensors that are equal in all of them, as the frozen word embeddings are, stay what they are to
    the bit.

    Raises:
        ModelError: when they are not of one size.
    """
    first = models[0]
    if len(models) == 1:
        return first
    if any(model.config != first.config for model in models):
        sizes = "; ".join(str(model.config) for model in models)
        raise ModelError(f"Only models of one size have an average, and these are: {sizes}")
    made = PrefixLM(first.config)
    made.load_state_dict(mean_state([model.state_dict() for model in models]))
    return made


def as_bert(model: PrefixLM) -> dict[str, Tensor]:
    """The layers of a prefix language model in transformers' naming of ``BertModel``, so that an
    encoder can begin from what it has learned. Its head is left out; there is no pooler.

    Returns:
        tensors by name, sharing the model's memory where their form is the same.
    """
    state = model.state_dict()
    bert = {
        "embeddings.word_embeddings.weight": state[_WORDS],
        "embeddings.position_embeddings.weight": state["position_embeddings.weight"],
        "embeddings.token_type_embeddings.weight": state["type_embeddings.weight"],
        "embeddings.LayerNorm.weight": state["embedding_norm.weight"],
        "embeddings.LayerNorm.bias": state["embedding_norm.bias"],
    }
    for index in range(model.config.num_hidden_layers):
        theirs, ours = f"encoder.layer.{index}.", f"layers.{index}."
        for part in ("weight", "bias"):
            heads = state[f"{ours}qkv.{part}"].chunk(3)
            for which, tensor in zip(_QKV, heads, strict=True):
                bert[f"{theirs}attention.self.{which}.{part}"] = tensor
            for our_name, their_name in _LAYER.items():
                bert[f"{theirs}{their_name}.{part}"] = state[f"{ours}{our_name}.{part}"]
    return bert


def save_trained(
    model: PrefixLM, folder: Path, *, int8: bool, difference_to: str | None = None
) -> None:
    """Write ``config.json`` and ``model.safetensors`` into ``folder``, word embeddings left out.

    Args:
        model: to be written.
        folder: made where it is not there.
        int8: round matrices.
        difference_to: name of a model whose matrices are int8: write what differs from it.

    Raises:
        ModelError: when the other model's matrices are not int8.
    """
    trained = {name: t for name, t in model.state_dict().items() if name != _WORDS}
    described: dict[str, object] = {"kind": "prefix-lm", **model.config.to_dict()}
    if difference_to is not None:
        base = resolve_model(difference_to).path / _WEIGHTS
        stored = load_file(str(base))
        if not any(tensor.dtype == torch.int8 for tensor in stored.values()):
            raise ModelError(
                f"The weights of {difference_to} are not int8, and a difference can only be "
                "written to a model that is. Train it with: int8: true"
            )
        tensors = take_difference(trained, stored)
        described["difference_to"] = {"model": difference_to, "sha256": file_sha256(base)}
    else:
        tensors = round_matrices(trained) if int8 else {n: _plain(t) for n, t in trained.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / _WEIGHTS), metadata={"format": "pt"})
    text = json.dumps(described, indent=2)
    (folder / _CONFIG).write_text(text + "\n", encoding="utf-8")


def load_prefix_lm(folder: Path, minilm: Path) -> PrefixLM:
    """Load a trained prefix language model, in fp32.

    Args:
        folder: what :func:`save_trained` wrote.
        minilm: the folder of the encoder that it began from, for its word embeddings.

    Raises:
        ArtifactDamagedError: when a file is missing, truncated or does not fit.
    """
    try:
        settings = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        if settings.pop("kind", None) != "prefix-lm":
            raise ValueError("config.json is not that of a prefix language model")
        base = settings.pop("difference_to", None)
        config = PrefixLMConfig(**settings)
        tensors = load_file(str(folder / _WEIGHTS))
        with safe_open(str(minilm / _WEIGHTS), framework="pt") as source:
            name = next(n for n in source.keys() if n.endswith(_WORDS))  # noqa: SIM118
            state = {_WORDS: source.get_tensor(name)}
        state |= restore_rounded(tensors) if base is None else _with_base(tensors, **base)
        with torch.device("meta"):
            model = PrefixLM(config)
        model.load_state_dict(state, assign=True)
    except (
        OSError, ValueError, TypeError, KeyError, RuntimeError, StopIteration, SafetensorError,
    ) as error:  # fmt: skip
        raise ArtifactDamagedError(
            f"The prefix language model in {folder} cannot be loaded: {error}. "
            "Install the package again, or train it again with: "
            "rag-frozen train pipelines/train/pocket-reader.yaml"
        ) from error
    return _unshared(model)


def _with_base(tensors: dict[str, Tensor], *, model: str, sha256: str) -> dict[str, Tensor]:
    """Add a written difference to the model that it was taken to, which must be the very same."""
    base = resolve_model(model).path / _WEIGHTS
    if (found := file_sha256(base)) != sha256:
        raise ValueError(
            f"it is a difference to {model} with SHA-256 {sha256}, and {base} has {found}"
        )
    return add_difference(tensors, load_file(str(base)))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().contiguous().clone()


def _unshared(model: PrefixLM) -> PrefixLM:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    module: nn.Module = model.eval()
    assert isinstance(module, PrefixLM)
    return module
