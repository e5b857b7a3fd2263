"""Shared settings: no deadlines (machines differ), no network, quiet model libraries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("rag-frozen", deadline=None, max_examples=60)
settings.load_profile("rag-frozen")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the public data gathered for measuring; tests skip where it is absent."""
    named = os.environ.get("RAG_FROZEN_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "corpus").is_dir():
        pytest.skip(f"no real data at {folder}; name a folder with RAG_FROZEN_TEST_DATA")
    return folder
