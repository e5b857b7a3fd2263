"""Retrieval-augmented open-domain question answering around a frozen language model."""

from __future__ import annotations

__version__ = "0.1.0"
