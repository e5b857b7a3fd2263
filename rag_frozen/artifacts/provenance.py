"""What an artifact was made with: package versions, the project's commit, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import rag_frozen
from rag_frozen.artifacts.manifest import Hardware

__all__ = ["PACKAGES", "describe_hardware", "package_versions", "project_commit"]

PACKAGES = (
    "faiss-cpu",
    "faiss-gpu-cu12",
    "mwparserfromhell",
    "mwxml",
    "numpy",
    "pyarrow",
    "safetensors",
    "selectolax",
    "sentence-transformers",
    "tantivy",
    "tokenizers",
    "torch",
    "transformers",
)


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python, of this package and of those ``packages`` installed here."""
    versions = {"python": platform.python_version(), "rag-frozen": rag_frozen.__version__}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return dict(sorted(versions.items()))


def project_commit() -> str | None:
    """Return the commit of the checkout this package runs from, ``-dirty`` when it was changed.

    None when the package is installed, or git is not at hand.
    """
    checkout = Path(rag_frozen.__file__).resolve().parent.parent
    if not ((checkout / ".git").exists() and (checkout / "pyproject.toml").is_file()):
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command,
            cwd=checkout,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def describe_hardware() -> Hardware:
    """Return this machine's processor, usable cores, memory in bytes and accelerator.

    The accelerator is looked up only where torch is loaded already: an artifact made without torch
    used none.
    """
    return Hardware(
        cpu=_cpu_model(),
        cores=_usable_cores(),
        memory_bytes=_memory_bytes(),
        accelerator=_accelerator(),
    )


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as handle:
            for line in handle:
                key, _, value = line.partition(":")
                if key.strip() == "model name" and value.strip():
                    return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "unknown"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _accelerator() -> str | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    mps = getattr(torch.backends, "mps", None)
    return "Apple MPS" if mps is not None and mps.is_available() else None
