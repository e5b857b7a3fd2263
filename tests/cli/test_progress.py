"""Progress tells how many a second, what is left, and starts from what was done before."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from rag_frozen.cli import evaluate, progress
from rag_frozen.evaluation.runner import EvalProgress


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress.time, "monotonic", made)
    return made


def test_plain_lines_tell_the_rate_and_the_time_left(clock: Clock, capsys):
    with progress.stages(lambda name: "exact match 41.5") as report:
        report("questions", 0, 1_000)
        clock.now += 10
        report("questions", 64, 1_000)
        clock.now += 1
        report("questions", 70, 1_000)  # too soon after the last line
        clock.now += 9
        report("questions", 128, 1_000)
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "questions: 64/1,000, 6.4/s, 146 s left exact match 41.5",
        "questions: 128/1,000, 6.4/s, 136 s left exact match 41.5",
    ]


def test_what_an_earlier_process_did_counts_in_no_rate(clock: Clock, capsys):
    with progress.stages() as report:
        report("questions", 900, 1_000)
        clock.now += 10
        report("questions", 950, 1_000)
        clock.now += 10
        report("questions", 1_000, 1_000)
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "questions: 950/1,000, 5.0/s, 10 s left",
        "questions: 1,000/1,000, 5.0/s",
    ]


def test_a_terminals_bar_shows_rate_score_and_time_left_of_slow_chunks(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, get_time=clock)
    monkeypatch.setattr(progress, "console_err", lambda: console)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with evaluate._progress() as (told, _):
        for done in (0, 64, 128, 192):  # a chunk takes 200 seconds
            told(EvalProgress(done, 1_000, 37.5))
            clock.now += 200
    shown = screen.getvalue()
    assert "192/1000" in shown
    assert "0.3/s" in shown
    assert "exact match 37.5" in shown
    assert "0:42:05" in shown  # 808 questions at 0.32 a second


def test_rankings_alone_show_no_exact_match(clock: Clock, capsys):
    with evaluate._progress(answers=False) as (told, _):
        told(EvalProgress(0, 10, 0.0))
        clock.now += 6
        told(EvalProgress(5, 10, 0.0))
    assert capsys.readouterr().err == "questions: 5/10, 0.8/s, 6 s left\n"
