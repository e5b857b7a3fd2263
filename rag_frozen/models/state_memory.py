"""Token states that one user of a frozen encoder computed and another needs too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

__all__ = ["StateMemory"]


class StateMemory:
    """The states of the texts that were encoded last, by their token ids.

    Shared by a dense retriever and a prompt generator over one encoder: the question is encoded
    once. Holds ``size`` texts at most.
    """

    def __init__(self, size: int = 1_024) -> None:
        self._size = size
        self._states: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def put(self, token_ids: Sequence[int], states: Tensor) -> None:
        """Keep a copy of ``states: [T, H]`` of a text of T tokens; the oldest text goes."""
        key = tuple(token_ids)
        self._states[key] = states.detach().clone()
        self._states.move_to_end(key)
        while len(self._states) > self._size:
            self._states.popitem(last=False)

    def get(self, token_ids: Sequence[int]) -> Tensor | None:
        """Return the states ``[T, H]`` of a text, None where it was not encoded lately.

        >>> import torch
        >>> memory = StateMemory()
        >>> memory.put([5, 6], torch.zeros(2, 4))
        >>> memory.get([5, 6]).shape, memory.get([5])
        (torch.Size([2, 4]), None)
        """
        return self._states.get(tuple(token_ids))
