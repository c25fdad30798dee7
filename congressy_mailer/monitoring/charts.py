"""Charts as SVG, drawn on the server: without a script, and with no text in them that a small screen would shrink."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

_WIDTH, _HEIGHT = 1000.0, 200.0


@dataclass(frozen=True, slots=True)
class Series:
    """One row of numbers."""

    #: For people.
    label: str
    #: Class in the style sheet, which gives it its colour.
    style: str
    #: One for each column; ``None``: there is none.
    values: Sequence[float | None]


def top_of(series: Sequence[Series], *, stacked: bool) -> float:
    """A round number above all values."""
    columns = zip(*(one.values for one in series), strict=True) if series else iter(())
    if stacked:
        highest = max((sum(value or 0 for value in column) for column in columns), default=0)
    else:
        highest = max((value or 0 for column in columns for value in column), default=0)
    if highest <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(highest))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= highest * 0.999)


def stacked_bars(series: Sequence[Series], description: str) -> SafeString:
    """A bar for each column, made of all series, the first one at the bottom.

    Args:
        series: of the same length.
        description: what it shows, for those who do not see it.
    """
    top = top_of(series, stacked=True)
    count = max((len(one.values) for one in series), default=0)
    width = _WIDTH / max(count, 1)
    parts = []
    heights = [0.0] * count
    for one in series:
        bars = []
        for column, value in enumerate(one.values):
            if not value:
                continue
            # What is there is seen, however small beside the rest.
            height = max(value / top * _HEIGHT, 1.5)
            heights[column] += height
            left, base = column * width + width * 0.1, max(_HEIGHT - heights[column], 0)
            bars.append(f"M{left:.1f} {base:.1f}h{width * 0.8:.1f}v{height:.1f}h{-width * 0.8:.1f}z")
        if bars:
            parts.append(format_html('<path class="{}" d="{}"/>', one.style, "".join(bars)))
    return _svg(parts, description)


def lines(series: Sequence[Series], description: str) -> SafeString:
    """A line for each series, broken where a value is missing.

    Args:
        series: of the same length.
        description: what it shows, for those who do not see it.
    """
    top = top_of(series, stacked=False)
    parts = []
    for one in series:
        width = _WIDTH / max(len(one.values), 1)
        path, drawn = [], False
        for column, value in enumerate(one.values):
            if value is None:
                drawn = False
                continue
            x, y = (column + 0.5) * width, _HEIGHT - value / top * (_HEIGHT - 3)
            # A single value is seen, too.
            path.append(f"{'L' if drawn else 'M'}{x:.1f} {y:.1f}" + ("" if drawn else f"h{width * 0.3:.1f}"))
            drawn = True
        if path:
            parts.append(format_html('<path class="line {}" d="{}"/>', one.style, "".join(path)))
    return _svg(parts, description)


def _svg(parts: Sequence[SafeString], description: str) -> SafeString:
    grid = "".join(f"M0 {_HEIGHT * step / 4:.0f}h{_WIDTH:.0f}" for step in range(5))
    return format_html(
        '<svg role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none" focusable="false">'
        '<path class="grid" d="{}"/>{}</svg>',
        description, int(_WIDTH), int(_HEIGHT), grid, mark_safe("".join(parts)),  # noqa: S308
    )  # fmt: skip
