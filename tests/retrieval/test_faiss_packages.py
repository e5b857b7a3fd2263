"""One distribution of faiss may be installed; two are refused before anything is searched."""

from __future__ import annotations

import importlib.metadata

import pytest

from rag_frozen.errors import MissingPackageError
from rag_frozen.retrieval.dense_faiss import load_faiss
from rag_frozen.retrieval.faiss_packages import faiss_packages


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(name: str) -> str:
        try:
            return versions[name.replace("-", "_")]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_two_distributions_are_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch):
    installed(monkeypatch, faiss_cpu="1.15.1", faiss_gpu_cu12="1.14.1")
    with pytest.raises(
        MissingPackageError,
        match=r"faiss-cpu 1\.15\.1 and faiss-gpu-cu12 1\.14\.1.*pip uninstall -y faiss-cpu "
        r"faiss-gpu-cu12",
    ):
        load_faiss()


def test_one_distribution_is_loaded_and_knows_when_to_multiply(monkeypatch: pytest.MonkeyPatch):
    installed(monkeypatch, faiss_cpu="1.15.1")
    assert faiss_packages() == {"faiss-cpu": "1.15.1"}
    assert load_faiss().cvar.distance_compute_blas_threshold == 5


def test_a_missing_faiss_names_the_extras(monkeypatch: pytest.MonkeyPatch):
    installed(monkeypatch)
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingPackageError, match=r"rag-frozen\[cpu\].*rag-frozen\[gpu\]"):
        load_faiss()
