"""Progress bars on stderr; plain lines now and then where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["Report", "console_err", "stages"]

Report = Callable[[str, int, int | None], None]
_QUIET = 5.0
"""Seconds between plain lines."""
_SPEED_OVER = 3_600.0
"""Seconds over which a bar's speed is measured: a chunk of questions may take minutes."""
_INSTANT = 0.3
"""What is done within so many seconds is not worth a line."""


def console_err() -> Console:
    """The console of progress and messages."""
    return Console(stderr=True, highlight=False)


@contextmanager
def stages(note: Callable[[str], str] = lambda name: "") -> Iterator[Report]:
    """Yield a function that is told (what, done, of how much) and shows a bar for each what.

    ``note`` gives a text that stands behind the bar.
    """
    if not sys.stderr.isatty():
        yield _plain(note)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console_err(), speed_estimate_period=_SPEED_OVER) as progress:
        tasks: dict[str, TaskID] = {}

        def report(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total, note="")
            progress.update(tasks[name], completed=done, total=total, note=note(name))

        yield report


class _Speed(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else _rate(speed))


def _rate(speed: float) -> str:
    """So many a second.

    >>> _rate(1234.5), _rate(0.25)
    ('1,234/s', '0.2/s')
    """
    return f"{speed:,.{0 if speed >= 10 else 1}f}/s"


def _plain(note: Callable[[str], str]) -> Report:
    began: dict[str, tuple[float, int]] = {}  # when, and what was done before
    said: dict[str, float] = {}
    finished: set[str] = set()

    def report(name: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        start, before = began.setdefault(name, (now, done))
        whole = total is not None and done >= total
        if name in finished or (not whole and now - said.get(name, start) < _QUIET):
            return
        said[name] = now
        gone = max(now - start, 1e-9)
        if whole:
            finished.add(name)
            if gone < _INSTANT:
                return
        more = done - before
        left = f", {(total - done) * gone / max(more, 1):.0f} s left" if total and not whole else ""
        of = f"/{total:,}" if total else ""
        text = f"{name}: {done:,}{of}, {_rate(more / gone)}{left} {note(name)}".rstrip()
        print(text, file=sys.stderr, flush=True)

    return report
