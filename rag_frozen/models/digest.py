"""One digest of a model's weights, whether they are in memory or on disk.

SHA-256 over the tensors in the order of their names: name, dtype, shape, bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor

from rag_frozen.errors import ModelMissingError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["folder_digest", "module_digest", "tensors_digest"]


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Digest tensors by name: 64 hexadecimal digits.

    >>> tensors_digest({"a": torch.zeros(2)}) == tensors_digest({"a": torch.zeros(2)})
    True
    >>> tensors_digest({"a": torch.zeros(2)}) == tensors_digest({"a": torch.zeros(1, 2)})
    False
    """
    return _digest(sorted(tensors), lambda name: tensors[name])


def module_digest(module: nn.Module) -> str:
    """Digest a module's state dict (parameters and persistent buffers)."""
    return tensors_digest(module.state_dict())


def folder_digest(folder: Path) -> str:
    """Digest a model folder's safetensors, sharded or not, one tensor in memory at a time.

    Raises:
        ModelMissingError: when the folder holds no safetensors.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelMissingError(
            f"{folder} holds no safetensors. Models are read from safetensors only; convert the "
            "weights, or name a model that has them."
        )
    handles: list[Any] = [safe_open(str(file), framework="pt") for file in files]
    where = {name: handle for handle in handles for name in handle.keys()}  # noqa: SIM118
    return _digest(sorted(where), lambda name: where[name].get_tensor(name))


def _digest(names: Iterable[str], tensor_of: Callable[[str], Tensor]) -> str:
    total = hashlib.sha256()
    for name in names:
        tensor = tensor_of(name).detach().cpu().contiguous()
        header = f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{list(tensor.shape)}\0"
        total.update(header.encode())
        if tensor.numel():
            total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
