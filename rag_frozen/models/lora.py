"""Low-rank adapters on linear layers (LoRA, Hu et al. 2021): attach, take out, merge.

PEFT attaches them for training. What is stored are the two matrices of each layer; a model is
loaded by adding their product to the layer's weight, for which PEFT is not needed, and a merged
model is as fast as one without adapters.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rag_frozen.errors import ArtifactMismatchError, MissingPackageError

__all__ = ["attach_lora", "lora_weights", "merge_lora", "restore_lora"]

_A, _B = ".lora_A", ".lora_B"
_ADAPTER = ".default.weight"
"""What PEFT puts behind the name of a layer's matrix."""


def attach_lora(module: nn.Module, *, rank: int, alpha: float, leave: tuple[str, ...] = ()) -> None:
    """Put adapters on all linear layers, in place; nothing else of the module stays trainable.

    The first matrix is drawn from torch's global generator, the second is zero: the module
    computes what it did before.

    Args:
        module: its ``nn.Linear`` layers are wrapped.
        rank: of the change.
        alpha: the change is multiplied by alpha / rank.
        leave: layers whose names end so get none.

    Raises:
        MissingPackageError: when PEFT is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingPackageError(
            "Training adapters (lora: in the recipe) needs PEFT. Install it with: "
            "pip install 'rag-frozen[train]'"
        ) from error
    names = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and not name.endswith(leave)
    ]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=0.0)
    inject_adapter_in_model(config, module)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(f"{_A}." in name or f"{_B}." in name)


def lora_weights(module: nn.Module) -> dict[str, Tensor]:
    """The adapters' matrices: ``<layer>.lora_A: [r, in]`` and ``<layer>.lora_B: [out, r]``."""
    return {
        name.removesuffix(_ADAPTER): parameter.detach()
        for name, parameter in module.named_parameters()
        if name.endswith((_A + _ADAPTER, _B + _ADAPTER))
    }


def restore_lora(module: nn.Module, adapter: Mapping[str, Tensor]) -> None:
    """Copy stored matrices into a module that has adapters of the same form.

    Raises:
        ArtifactMismatchError: when layers or ranks differ.
    """
    ours = lora_weights(module)
    wrong = sorted(ours.keys() ^ adapter.keys()) or [
        name for name, tensor in ours.items() if tensor.shape != adapter[name].shape
    ]
    if wrong:
        raise ArtifactMismatchError(
            f"The adapters do not fit the model: {wrong[0]} and {len(wrong) - 1} more. Train with "
            "the rank and the encoder of the adapters that training starts from."
        )
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(adapter[name])


def merge_lora(
    weights: Mapping[str, Tensor], adapter: Mapping[str, Tensor], *, scale: float
) -> dict[str, Tensor]:
    """Add the adapters to the weights of their layers, in fp32.

    Args:
        weights: a state dict; ``<layer>.weight: [out, in]``.
        adapter: as :func:`lora_weights` returns it.
        scale: alpha / rank.

    Returns:
        All of ``weights``, those of the adapters' layers changed.

    Raises:
        ArtifactMismatchError: when a layer or half of an adapter is missing, or sizes differ.

    >>> adapter = {"x.lora_A": torch.tensor([[1.0, 0.0]]), "x.lora_B": torch.tensor([[2.0], [3.0]])}
    >>> merge_lora({"x.weight": torch.zeros(2, 2)}, adapter, scale=2)["x.weight"].tolist()
    [[4.0, 0.0], [6.0, 0.0]]
    """
    merged = dict(weights)
    for layer in sorted({name.rsplit(".", 1)[0] for name in adapter}):
        try:
            change = adapter[layer + _B].float() @ adapter[layer + _A].float()
            merged[f"{layer}.weight"] = weights[f"{layer}.weight"].float() + scale * change
        except (KeyError, RuntimeError) as error:
            raise ArtifactMismatchError(
                f"The adapter of layer {layer} does not fit the encoder: {error}. Use the encoder "
                "that the adapter was trained over."
            ) from error
    return merged
