"""A reader around another one: what it tells of the frozen weights is told by the inner one."""

from __future__ import annotations

from rag_frozen.protocols import Reader

__all__ = ["AroundReader"]


class AroundReader:
    """Base of readers that ask another reader several times and make one answer of its answers."""

    def __init__(self, reader: Reader) -> None:
        """Keep the inner reader."""
        self.reader = reader

    @property
    def digest(self) -> str:
        """Of the frozen reader's weights."""
        return str(getattr(self.reader, "digest", ""))

    def parameter_counts(self) -> tuple[int, int]:
        """Of the frozen reader: all weights, and those outside of embedding tables."""
        counts: tuple[int, int] = self.reader.parameter_counts()  # type: ignore[attr-defined]
        return counts
