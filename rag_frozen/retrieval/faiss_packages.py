"""Which distribution of faiss is installed.

``faiss-cpu`` and ``faiss-gpu-cu12`` install the same module over each other, so one of them may be
there, not both. Nothing is imported to find out.
"""

from __future__ import annotations

import importlib.metadata

from rag_frozen.errors import MissingPackageError

__all__ = ["check_faiss_packages", "faiss_packages"]

_PACKAGES = ("faiss-cpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu")


def faiss_packages() -> dict[str, str]:
    """Return the installed distributions of faiss and their versions."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def check_faiss_packages(found: dict[str, str]) -> None:
    """Refuse two distributions of faiss beside each other, and none.

    >>> check_faiss_packages({"faiss-cpu": "1.15.1"})

    Raises:
        MissingPackageError: with the pip command that puts it right.
    """
    if not found:
        raise MissingPackageError(
            "Dense retrieval needs faiss, which is not installed. Type: pip install "
            "'rag-frozen[cpu]', or 'rag-frozen[gpu]' beside CUDA 12."
        )
    if len(found) > 1:
        named = " and ".join(f"{name} {version}" for name, version in found.items())
        raise MissingPackageError(
            f"{named} are both installed; they overwrite each other's files, and which of them is "
            f"loaded is a matter of chance. Type: pip uninstall -y {' '.join(found)}, then: pip "
            "install 'rag-frozen[cpu]', or 'rag-frozen[gpu]' beside CUDA 12."
        )
