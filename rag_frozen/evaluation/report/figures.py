"""Small pictures as inline SVG, in the page's own colours, each with a text for those who listen.

Knows numbers and labels; nothing about runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = ["Bar", "Line", "bars", "interval", "lines"]

_WIDTH = 460
_ROW = 30
_LABEL = 124
_NUMBER = 152
_PLOT = (50, 12, 424, 210)
"""Left, top, right and bottom of the area of a line plot."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: its label, its length as a share of the longest possible, and what stands behind."""

    label: str
    share: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: its name and its points, x and y in [0, 1] of the axes."""

    name: str
    points: Sequence[tuple[float, float]]


def bars(rows: Sequence[Bar], *, title: str) -> Markup:
    """Horizontal bars, one below the other."""
    room = _WIDTH - _LABEL - _NUMBER
    parts = []
    for number, row in enumerate(rows):
        y = number * _ROW
        long = max(0.0, min(1.0, row.share)) * room
        parts.append(
            f'<text x="{_LABEL - 8}" y="{y + 19}" class="label" text-anchor="end">'
            f"{escape(row.label)}</text>"
            f'<rect x="{_LABEL}" y="{y + 5}" width="{room}" height="20" class="track"/>'
            f'<rect x="{_LABEL}" y="{y + 5}" width="{long:.1f}" height="20" class="fill"/>'
            f'<text x="{_WIDTH - _NUMBER + 8}" y="{y + 19}" class="number">'
            f"{escape(row.text)}</text>"
        )
    said = "; ".join(f"{row.label}: {row.text}" for row in rows)
    return _svg("".join(parts), height=_ROW * len(rows), title=title, said=said)


def lines(
    curves: Sequence[Line],
    *,
    title: str,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    x_label: str,
    diagonal: bool = False,
) -> Markup:
    """Curves over two axes, with a legend below."""
    left, top, right, bottom = _PLOT

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x * (right - left), bottom - y * (bottom - top)

    parts = []
    for y, label in y_ticks:
        _, height = at(0, y)
        parts.append(
            f'<line x1="{left}" y1="{height:.1f}" x2="{right}" y2="{height:.1f}" class="grid"/>'
            f'<text x="{left - 6}" y="{height + 4:.1f}" class="tick" text-anchor="end">'
            f"{escape(label)}</text>"
        )
    for x, label in x_ticks:
        place, _ = at(x, 0)
        parts.append(
            f'<text x="{place:.1f}" y="{bottom + 18}" class="tick" text-anchor="middle">'
            f"{escape(label)}</text>"
        )
    if diagonal:
        (x1, y1), (x2, y2) = at(0, 0), at(1, 1)
        parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="grid dashed"/>')
    for number, curve in enumerate(curves):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in curve.points))
        parts.append(f'<polyline points="{points}" class="curve c{number % 6}"/>')
        x, y = left + (number % 3) * 128, bottom + 56 + 20 * (number // 3)
        parts.append(
            f'<line x1="{x}" y1="{y - 4}" x2="{x + 22}" y2="{y - 4}" class="curve c{number % 6}"/>'
            f'<text x="{x + 28}" y="{y}" class="label">{escape(curve.name)}</text>'
        )
    parts.append(
        f'<text x="{(left + right) / 2}" y="{bottom + 36}" class="tick" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    said = "; ".join(
        f"{curve.name} from {curve.points[0][1]:.2f} to {curve.points[-1][1]:.2f}"
        for curve in curves
        if curve.points
    )
    height = bottom + 66 + 20 * ((len(curves) - 1) // 3 if curves else 0)
    return _svg("".join(parts), height=height, title=title, said=said)


def interval(low: float, middle: float, high: float, *, bound: float, title: str) -> Markup:
    """An interval on an axis from ``-bound`` to ``bound``, with a line at 0 and a mark at its
    middle."""
    width, height = 180, 20

    def at(value: float) -> float:
        share = (value + bound) / (2 * bound) if bound > 0 else 0.5
        return 6 + max(0.0, min(1.0, share)) * (width - 12)

    parts = (
        f'<line x1="{at(0):.1f}" y1="0" x2="{at(0):.1f}" y2="{height}" class="grid dashed"/>'
        f'<line x1="{at(low):.1f}" y1="10" x2="{at(high):.1f}" y2="10" class="curve c0"/>'
        f'<rect x="{at(middle) - 3.5:.1f}" y="6.5" width="7" height="7" class="fill"/>'
    )
    said = f"{middle:+.1f}, from {low:+.1f} to {high:+.1f}"
    return _svg(parts, height=height, width=width, title=title, said=said)


def _svg(content: str, *, height: int, title: str, said: str, width: int = _WIDTH) -> Markup:
    return Markup(  # every text in it was escaped above
        f'<svg viewBox="0 0 {width} {max(height, 1)}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f"<desc>{escape(said)}</desc>{content}</svg>"
    )
