"""A function over many items in several processes, in order and in bounded memory.

Knows nothing about what is computed. An :class:`Executor` does the same on other machines.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Protocol, TypeVar

from rag_frozen.errors import InputError, RagFrozenError

__all__ = ["Executor", "ordered_map", "usable_cores"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 3  # items a process that may wait for it


class Executor(Protocol):
    """Runs functions elsewhere than on this machine's cores."""

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, device: bool = False
    ) -> Iterator[Result]:
        """Yield ``function(item)`` for each item, in their order, with a bounded number in flight.

        ``function``, items and results must be picklable, and ``function`` may be called twice with
        one item, where a worker dies. ``device``: a GPU is of use to it. What ``function`` raises
        is raised here.
        """
        ...


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, processes: int
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in their order.

    With one process it is computed here; with more, in new ones, and ``function`` and the items
    must be picklable. At most three items a process are in flight.

    Raises:
        InputError: for fewer than one process.
        RagFrozenError: when a process dies, of lack of memory for instance.
    """
    if processes < 1:
        raise InputError(f"At least 1 process is needed, not {processes}.")
    if processes == 1:
        yield from map(function, items)
        return
    # spawn, not fork: the parent may hold threads (torch, Arrow), and a forked lock never opens
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_end_with_parent
    )
    try:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= processes * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RagFrozenError(
            f"One of {processes} worker processes died. Memory may have run out: try fewer with "
            "processes: 1. In a script of your own, start the build below "
            "if __name__ == '__main__'."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed; without this it would wait for work for ever."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
