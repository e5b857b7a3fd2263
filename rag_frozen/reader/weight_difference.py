"""Weights written as a difference to those of another model: three quarters of int8 on disk.

The base is a model whose matrices are int8 with one scale a row (``models/rounding.py``). A model
that was trained on from it moves little, so that each of its weights, rounded on the base's own
grid, is the base's integer plus a difference that fits six bits. Rows that moved further are
written whole, as int8 with a scale of their own; vectors are written as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rag_frozen.models.rounding import (
    SCALE_SUFFIX,
    dequantize_rows,
    quantize_rows,
    restore_rounded,
)

__all__ = ["add_difference", "pack_six_bits", "take_difference", "unpack_six_bits"]

_REACH = 31
"""The largest difference, in steps of the base's row, that six bits hold with their sign."""
_PACKED, _ROWS, _WHOLE = ".difference", ".whole_rows", ".whole_values"


def take_difference(model: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Write a model's tensors as differences to the rounded tensors of ``base``.

    Args:
        model: floating point, by name.
        base: as stored: int8 matrices with their row scales.

    Returns:
        tensors by name; what they restore is at most half a step of the row's grid away.
    """
    made: dict[str, Tensor] = {}
    for name, tensor in model.items():
        weights = tensor.detach().float().cpu().contiguous()
        grid, scale = base.get(name), base.get(name + SCALE_SUFFIX)
        if grid is None or scale is None or weights.dim() != 2 or weights.shape[1] % 4:
            made[name] = weights.clone()
            continue
        steps = (weights / scale[:, None]).round() - grid.float()
        far = steps.abs().amax(dim=1) > _REACH
        steps[far] = 0
        made[name + _PACKED] = pack_six_bits(steps.to(torch.int8))
        made[name + _ROWS] = far.nonzero()[:, 0].to(torch.int32)
        made[name + _WHOLE], made[name + SCALE_SUFFIX] = quantize_rows(weights[far])
    return made


def add_difference(written: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`take_difference`: fp32 tensors by the model's names.

    Raises:
        KeyError: when the base lacks a matrix that the difference was taken to.
        RuntimeError: when shapes do not fit.
    """
    restored: dict[str, Tensor] = {}
    plain = dict(written)
    for packed in [name for name in written if name.endswith(_PACKED)]:
        name = packed.removesuffix(_PACKED)
        grid = base[name].float() + unpack_six_bits(plain.pop(packed)).float()
        weights = dequantize_rows(grid, base[name + SCALE_SUFFIX])
        rows = plain.pop(name + _ROWS).long()
        values, scale = plain.pop(name + _WHOLE), plain.pop(name + SCALE_SUFFIX)
        weights[rows] = dequantize_rows(values, scale)
        restored[name] = weights
    return restored | restore_rounded(plain)


def pack_six_bits(values: Tensor) -> Tensor:
    """Pack integers of -32 to 31, four in three bytes.

    Args:
        values: ``[R, C]`` int8, C a multiple of four.

    Returns:
        ``[R, C * 3 / 4]`` uint8.

    >>> pack_six_bits(torch.tensor([[0, 1, -1, 31]], dtype=torch.int8)).tolist()
    [[64, 240, 127]]
    """
    four = (values.to(torch.int32) & 63).reshape(values.shape[0], -1, 4)
    word = four[..., 0] | four[..., 1] << 6 | four[..., 2] << 12 | four[..., 3] << 18
    three = torch.stack([word & 255, word >> 8 & 255, word >> 16], dim=-1)
    return three.to(torch.uint8).reshape(values.shape[0], -1)


def unpack_six_bits(packed: Tensor) -> Tensor:
    """Undo :func:`pack_six_bits`: ``[R, C]`` int8.

    >>> unpack_six_bits(torch.tensor([[64, 240, 127]], dtype=torch.uint8)).tolist()
    [[0, 1, -1, 31]]
    """
    three = packed.to(torch.int32).reshape(packed.shape[0], -1, 3)
    word = three[..., 0] | three[..., 1] << 8 | three[..., 2] << 16
    four = torch.stack([word >> shift & 63 for shift in (0, 6, 12, 18)], dim=-1)
    return ((four + 32) % 64 - 32).to(torch.int8).reshape(packed.shape[0], -1)
