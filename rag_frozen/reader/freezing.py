"""Freeze a language model, and prove that it stayed frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

from rag_frozen.errors import FrozenWeightsChangedError
from rag_frozen.models.digest import module_digest

__all__ = ["freeze", "frozen", "verify_frozen", "weights_digest"]

Module = TypeVar("Module", bound=nn.Module)


def freeze(module: Module) -> Module:
    """Put a module into evaluation mode, without gradients; return it."""
    module.eval()
    module.requires_grad_(False)
    return module


@contextmanager
def frozen(module: nn.Module) -> Iterator[str]:
    """Freeze a module, and check at the end that what ran in between did not change it.

    For trainings around a frozen model. An error inside passes through unchecked.

    Yields:
        The digest of the weights.

    Raises:
        FrozenWeightsChangedError: at the end, when they changed.
    """
    digest = weights_digest(freeze(module))
    yield digest
    verify_frozen(module, digest)


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over the module's tensors in the order of their names."""
    return module_digest(module)


def verify_frozen(module: nn.Module, digest: str) -> None:
    """Check that the weights are those whose digest was taken.

    Raises:
        FrozenWeightsChangedError: when a tensor, its name, type or shape differs, or when a
            parameter would be trained.
    """
    trainable = [name for name, p in module.named_parameters() if p.requires_grad]
    if trainable:
        raise FrozenWeightsChangedError(
            f"The frozen model has parameters that would be trained, such as {trainable[0]}. "
            "Freeze it before use."
        )
    found = weights_digest(module)
    if found != digest:
        raise FrozenWeightsChangedError(
            f"The frozen weights changed: digest {found[:16]}, at load it was {digest[:16]}. "
            "Something wrote to them; load the model again and do not use this result."
        )
