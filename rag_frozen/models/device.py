"""Where a model runs and in what precision."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import torch

from rag_frozen.errors import InputError

__all__ = ["DtypeName", "bf16_pays", "choose_device", "choose_dtype", "instruction_sets"]

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

_CPU_INFO = Path("/proc/cpuinfo")
_WITH_BF16 = frozenset({"amx_bf16", "avx512_bf16"})


def choose_device(name: str | None = None) -> torch.device:
    """Return the named device, or the best at hand: cuda, mps, cpu.

    Raises:
        InputError: for a device that torch does not know or that is not there.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"Device {name!r} cannot be used: {str(error).splitlines()[0]}. "
            "Leave it out, or use cpu."
        ) from error
    return device


def choose_dtype(device: torch.device, name: DtypeName = "auto") -> torch.dtype:
    """Return the named dtype, or for ``auto`` bf16 where it pays and fp32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if bf16_pays(device) else torch.float32
    return {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }[name]


def bf16_pays(device: torch.device) -> bool:
    """True where matrix products in bf16 are faster than in fp32.

    On a CPU that takes AMX or AVX512_BF16: with the latter alone a 4096 x 384 x 1536 product ran
    at 430 GFLOP/s against 140 to 200 in fp32 on two cores; without either bf16 is the slower one.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(_WITH_BF16 & instruction_sets())


@cache
def instruction_sets() -> frozenset[str]:
    """The CPU's flags as Linux names them; empty where the system does not tell."""
    try:
        lines = _CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    return frozenset(flags.split(":", 1)[1].split())
