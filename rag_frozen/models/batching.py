"""Token-budget batches: rows of like length together, as many as a budget of tokens holds.

Pure functions over lengths; used by encoders, cross-encoders and readers alike.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["padded_length", "token_budget_batches"]

PADDING_MULTIPLE = 16
"""Lengths are padded to multiples of this: matrix units work in such tiles."""


def padded_length(length: int, multiple: int = PADDING_MULTIPLE) -> int:
    """Round a length up to a multiple.

    >>> padded_length(17), padded_length(16)
    (32, 16)
    """
    return -(-length // multiple) * multiple


def token_budget_batches(
    lengths: Sequence[int], *, budget: int, multiple: int = PADDING_MULTIPLE
) -> list[list[int]]:
    """Cut rows, sorted by length, into batches of at most ``budget`` tokens, padding included.

    Args:
        lengths: tokens of each row.
        budget: rows x padded length of a batch; a row longer than that is a batch alone.
        multiple: lengths are counted as padded to a multiple of this.

    Returns:
        Batches of row numbers; every row is in one. Longest first, so that too large a budget
        shows at once; rows of equal length keep their order.

    >>> token_budget_batches([3, 40, 5, 16], budget=48)
    [[1], [3, 2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    batches: list[list[int]] = []
    width = 0
    for row in order:
        if batches and (len(batches[-1]) + 1) * width <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
            width = max(padded_length(lengths[row], multiple), 1)
    return batches
