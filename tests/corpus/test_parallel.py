"""A map over processes keeps the order, bounds what waits, and tells of a process that died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_frozen.corpus.parallel import ordered_map, usable_cores
from rag_frozen.errors import InputError, RagFrozenError


def squared(number: int) -> int:
    if number < 0:
        raise InputError(f"{number} is negative")
    return number * number


def dying(number: int) -> int:
    if number == 3:
        os._exit(1)
    return number


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_items_are_taken_as_needed(processes: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    found: list[int] = []
    for result in ordered_map(squared, items(), processes=processes):
        found.append(result)
        assert len(taken) <= len(found) + 3 * processes
    assert found == [number * number for number in range(40)]


def test_an_error_in_a_process_is_raised_here() -> None:
    with pytest.raises(InputError, match="-1 is negative"):
        list(ordered_map(squared, [1, -1, 2], processes=2))


def test_a_process_that_dies_is_told_with_what_to_try() -> None:
    with pytest.raises(RagFrozenError, match=r"processes died.*processes: 1"):
        list(ordered_map(dying, range(6), processes=2))


def test_a_number_of_processes_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="not 0"):
        list(ordered_map(squared, [1], processes=0))
    assert usable_cores() >= 1


KILLED = """
import multiprocessing, threading, time
from rag_frozen.corpus.parallel import ordered_map

def tell():
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.05)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)

if __name__ == "__main__":
    threading.Thread(target=tell, daemon=True).start()
    list(ordered_map(time.sleep, [600.0] * 4, processes=2))
"""


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are seen in /proc")
def test_workers_end_when_their_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    assert all(map(lives, workers))
    time.sleep(1.0)  # let them begin to work
    parent.send_signal(signal.SIGKILL)
    assert parent.wait() == -signal.SIGKILL
    parent.stdout.close()
    until = time.monotonic() + 60
    while any(map(lives, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    left = [pid for pid in workers if lives(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
