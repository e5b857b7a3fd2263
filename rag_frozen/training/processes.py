"""One training in several processes, one for each GPU, started by ``accelerate launch``.

Every process makes the same batch and computes its share of it; gradients are averaged before
each step, so that all hold the same weights. The first process alone validates, reports and
writes. A training that was not started so is one process with the whole batch, and none of this
has a part in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from rag_frozen.errors import InputError

__all__ = ["ALONE", "Share", "join_processes"]

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of each batch is this process's: every ``count``-th row, from ``index`` on."""

    index: int = 0
    count: int = 1
    device: torch.device | None = None
    """Where this process computes; None leaves the choice to the caller."""

    @property
    def device_name(self) -> str | None:
        """The device as models' loading takes it."""
        return None if self.device is None else str(self.device)

    @property
    def is_main(self) -> bool:
        """True for the process that validates, reports and writes."""
        return self.index == 0

    def take(self, rows: Sequence[Row]) -> Sequence[Row]:
        """This process's rows; all processes get equally many, and left-over rows go unused.

        >>> Share(1, 2).take([10, 11, 12, 13, 14]), ALONE.take([1, 2, 3])
        ([11, 13], [1, 2, 3])
        """
        if self.count == 1:
            return rows
        whole = len(rows) - len(rows) % self.count
        return rows[:whole][self.index :: self.count]

    def weight(self, mine: int, whole: int) -> float:
        """What a mean over ``mine`` of ``whole`` tokens is multiplied with, so that the processes'
        mean of it is the mean over all tokens.

        >>> Share(0, 2).weight(30, 40), ALONE.weight(40, 40)
        (1.5, 1.0)
        """
        return mine * self.count / whole

    def check(self, batch_size: int) -> None:
        """Raise ``InputError`` when a batch cannot be shared out evenly."""
        if batch_size % self.count:
            raise InputError(
                f"A batch of {batch_size} cannot be shared by {self.count} processes. Set "
                f"batch_size to a multiple of {self.count}."
            )

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes, in one exchange."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        flat = reduce(flat, "mean")
        start = 0
        for gradient in gradients:
            end = start + gradient.numel()
            gradient.copy_(flat[start:end].view_as(gradient))
            start = end

    def mean(self, value: Tensor) -> Tensor:
        """A tensor's mean over the processes."""
        if self.count == 1:
            return value
        from accelerate.utils import reduce

        place = value.device
        mean: Tensor = reduce(value.clone().to(self.device or place), "mean")
        return mean.to(place)

    def decided_by_main(self, flag: bool) -> bool:
        """What the first process says; all have to ask."""
        if self.count == 1:
            return flag
        said = torch.tensor(float(flag and self.is_main) * self.count)
        return bool(self.mean(said) > 0.5)

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


ALONE = Share()
"""One process, the whole batch."""


def join_processes() -> Share:
    """This process's share: of several where ``accelerate launch`` (or torchrun) started it."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return ALONE
    from accelerate import PartialState

    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    state = PartialState(cpu=asked or not torch.cuda.is_available())
    return Share(int(state.process_index), int(state.num_processes), state.device)
