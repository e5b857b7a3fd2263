from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import rag_frozen
from rag_frozen.artifacts.provenance import describe_hardware, package_versions, project_commit


def test_packages_that_are_not_installed_are_left_out() -> None:
    versions = package_versions(["pydantic", "no-such-package-anywhere"])
    assert set(versions) == {"pydantic", "python", "rag-frozen"}


def test_the_commit_is_that_of_the_checkout() -> None:
    checkout = Path(rag_frozen.__file__).parent.parent
    if not (checkout / ".git").exists():
        pytest.skip("not run from a checkout")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=False
    ).stdout.strip()
    commit = project_commit()
    assert commit is not None
    assert commit.removesuffix("-dirty") == head


def test_an_installed_package_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rag_frozen, "__file__", str(tmp_path / "rag_frozen" / "__init__.py"))
    assert project_commit() is None


def test_the_machine_is_described() -> None:
    hardware = describe_hardware()
    assert hardware.cpu
    assert hardware.cores >= 1
    assert hardware.memory_bytes is None or hardware.memory_bytes > 2**20
