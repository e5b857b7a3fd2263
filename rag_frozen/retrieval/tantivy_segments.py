"""How a tantivy index becomes one segment: the parts in which it is written, and their memory.

tantivy's Python binding (0.27) has no call that merges. Its writer merges eight segments of like
size by itself, whenever a commit leaves so many. An index that is committed in 8, 64 or 512 equal
parts, each within the writer's memory, is therefore one segment in the end: eight parts become
one, eight of those become one, and so on. Knows nothing about passages' words.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_HEAP_MB", "MOST_HEAP_MB", "SegmentPlan", "plan_segments"]

DEFAULT_HEAP_MB = 512
"""MiB that the writer may take; it takes what it needs."""
MOST_HEAP_MB = 4095
"""MiB that tantivy takes at most for a writer's thread."""
_MIB = 2**20
_PART = 256 * _MIB
"""Bytes of memory for which a part is planned. That is half of what a writer may take by default:
text of more different words than prose has needs more than is planned."""
_FIXED = 24 * _MIB
"""Bytes of the writer's tables, whatever is added."""
_EACH = 24
"""Bytes a passage beside its words."""
_OF_TEXT = 0.6
"""Bytes a byte of text. Measured on 466,961 real passages and on 3,000,000 resampled ones: 0.4 to
0.5; each of many words that stand once takes 71 bytes, eight times a word of nine letters."""
_MERGED = 8
"""Segments that tantivy merges into one (its ``LogMergePolicy``)."""
_LEAST = 4_096
"""Passages a part where there are more than eight: tantivy holds segments of up to 10,000 to be of
like size, so that smaller ones would be merged with what eight of them became."""
_MOST = 10_000_000
"""Passages of a segment that tantivy still merges."""


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """How an index of ``n_passages`` is written: in so many ``parts`` of equal size; ``memory``
    bytes that the writer is expected to take, ``heap_bytes`` that it may, and the ``merges`` that
    each passage goes through. ``one_segment`` is False beyond what tantivy merges."""

    n_passages: int
    parts: int
    memory: int
    heap_bytes: int
    merges: int
    one_segment: bool

    def part(self, row: int) -> int:
        """The part, from 0, that the passage of a row is written in."""
        return min(self.parts - 1, row * self.parts // max(self.n_passages, 1))


def plan_segments(
    n_passages: int, text_bytes: int, *, heap_mb: int = DEFAULT_HEAP_MB
) -> SegmentPlan:
    """Choose the parts in which an index is written.

    Args:
        n_passages: how many there will be.
        text_bytes: of all their titles and texts; an estimate does.
        heap_mb: MiB that the writer may take. Less than 256 makes smaller parts; more leaves room
            for text of unusually many different words.

    >>> plan_segments(466_961, 270_000_000).parts, plan_segments(3_000_000, 1_750_000_000).parts
    (1, 8)
    >>> plan = plan_segments(21_015_324, 12_160_000_000)
    >>> plan.parts, plan.merges, plan.memory // 2**20, plan.one_segment
    (64, 2, 140, True)
    """
    heap = heap_mb * _MIB
    room = min(_PART, heap) - _FIXED
    needed = _OF_TEXT * text_bytes + _EACH * n_passages
    parts, merges = 1, 0
    while needed / parts > max(room, _MIB) and n_passages // parts >= _smallest(parts):
        parts, merges = parts * _MERGED, merges + 1
    memory = min(heap, _FIXED + int(needed / parts))
    fits = parts == 1 or -(-n_passages // _MERGED) <= _MOST
    return SegmentPlan(n_passages, parts, memory, heap, merges, fits)


def _smallest(parts: int) -> int:
    """Passages that a part must have to be cut into eight."""
    return _MERGED if parts == 1 else _MERGED * _LEAST
