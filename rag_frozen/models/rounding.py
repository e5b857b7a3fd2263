"""Round weights to int8 with one scale a row: a quarter of fp32 on disk, restored at load."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["SCALE_SUFFIX", "dequantize_rows", "quantize_rows", "restore_rounded", "round_matrices"]

SCALE_SUFFIX = ".row_scale"


def quantize_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to int8 with one scale a row.

    Args:
        matrix: ``[R, C]``.

    Returns:
        ``[R, C]`` int8 in [-127, 127] and ``[R]`` fp32 scales; the product is at most half a
        scale away from the matrix.
    """
    scale = matrix.float().abs().amax(dim=1).clamp(min=1e-12) / 127.0
    return (matrix.float() / scale[:, None]).round().to(torch.int8), scale


def dequantize_rows(rounded: Tensor, scale: Tensor) -> Tensor:
    """Undo :func:`quantize_rows`: ``[R, C]`` fp32."""
    return rounded.float() * scale[:, None]


def round_matrices(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round every matrix; other tensors become fp32. The scales stand beside, by name."""
    rounded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = tensor.detach().float().cpu().contiguous()
        if whole.dim() == 2:
            rounded[name], rounded[name + SCALE_SUFFIX] = quantize_rows(whole)
        else:
            rounded[name] = whole.clone()
    return rounded


def restore_rounded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`round_matrices`; tensors without a scale stay as they are."""
    restored = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        scale = tensors.get(name + SCALE_SUFFIX)
        restored[name] = tensor if scale is None else dequantize_rows(tensor, scale)
    return restored
