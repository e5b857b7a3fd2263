"""What came of reading dumps: pages, articles, what was left out and why.

Knows nothing about how pages are read.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rag_frozen.corpus.readers import ReadProblem, ReadReport

__all__ = ["Tally"]

_SHOWN = 20  # problems that the report tells of
_NUMBERS = ("pages", "articles", "words", "passages", "redirects")
_log = logging.getLogger(__name__)


class Tally:
    """Counts that go up while dumps are read; ``dropped`` pages by the reason that the settings
    give, ``damaged`` ones by what was wrong with them."""

    def __init__(self) -> None:
        self.pages = 0
        self.articles = 0
        self.words = 0
        self.passages = 0
        self.redirects = 0
        self.dropped: Counter[str] = Counter()
        self.damaged: Counter[str] = Counter()
        self.problems: list[ReadProblem] = []

    def note(self, file: str, page: int, reason: str, detail: str) -> None:
        """Count a damaged page, warn of it, and keep the first ones for the report."""
        problem = ReadProblem(file, page, reason, detail, unit="page")
        _log.warning("%s", problem)
        self.damaged[reason] += 1
        if len(self.problems) < _SHOWN:
            self.problems.append(problem)

    def report(self, files: tuple[str, ...]) -> ReadReport:
        """The counts as a report on the ``files`` read."""
        return ReadReport(
            kept=self.passages,
            malformed=self.damaged.total(),
            reasons=tuple(self.damaged.most_common()),
            problems=tuple(self.problems),
            files=files,
            unit="pages",
        )

    def counts(self) -> dict[str, int]:
        """The counts for a manifest, without the passages."""
        return {
            "pages": self.pages,
            "articles": self.articles,
            "words": self.words,
            "redirects": self.redirects,
            **_named("dropped", self.dropped),
            **_named("damaged", self.damaged),
        }

    def state(self) -> dict[str, Any]:  # Any: JSON values
        """All counts as JSON values, for :meth:`restore`."""
        return {
            "problems": [asdict(problem) for problem in self.problems],
            **{name: getattr(self, name) for name in _NUMBERS},
            "dropped": list(self.dropped.items()),
            "reasons": list(self.damaged.items()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:  # Any: JSON values
        """Go on from what :meth:`state` told."""
        self.problems = [ReadProblem(**problem) for problem in state["problems"]]
        for name in _NUMBERS:
            setattr(self, name, int(state[name]))
        self.dropped = Counter(dict(state["dropped"]))
        self.damaged = Counter(dict(state["reasons"]))


def _named(what: str, reasons: Counter[str]) -> dict[str, int]:
    return {f"{what}_{reason.replace(' ', '_')}": n for reason, n in sorted(reasons.items())}
