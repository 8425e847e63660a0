"""Shapes of the dashboard's charts in their own units, ready to be drawn as SVG; no page works anything out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

WIDTH, HEIGHT = 600.0, 160.0
_FOOT = 22.0
_HEAD = 14.0


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a column: a series' number from 0, and where it lies."""

    series: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """One stacked column with its name below and its total above."""

    name: str
    title: str
    total: int
    x: float
    width: float
    top: float
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Dot:
    """One measured value of a line, with what it says when pointed at."""

    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a line chart: its dots from left to right and the path through them."""

    series: int
    name: str
    dots: tuple[Dot, ...]

    @property
    def path(self) -> str:
        """SVG points of the line."""
        return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in self.dots)


@dataclass(frozen=True, slots=True)
class Lines:
    """A line chart of shares in [0, 1]: its series, the grid's heights with their labels, the names below."""

    lines: tuple[Line, ...]
    grid: tuple[tuple[float, str], ...]
    names: tuple[tuple[float, str], ...]


def columns(days: Sequence[tuple[str, Sequence[int]]], last: date, count: int) -> tuple[Column, ...]:
    """Stacked columns of so many days up to the last one; days without anything are empty columns."""
    known = dict(days)
    names = [(last - timedelta(days=back)).isoformat() for back in reversed(range(count))]
    parts = [tuple(known.get(name, ())) for name in names]
    most = max((sum(values) for values in parts), default=0) or 1
    step = WIDTH / count
    return tuple(
        _column(name, values, most, number * step, step)
        for number, (name, values) in enumerate(zip(names, parts, strict=True))
    )


def lines(names: Sequence[str], series: Sequence[tuple[str, Sequence[float | None]]]) -> Lines:
    """Shares in [0, 1] over named moments; None leaves a gap in the dots."""
    step = WIDTH / max(len(names), 1)
    middle = [(number + 0.5) * step for number in range(len(names))]
    drawn = []
    for number, (name, values) in enumerate(series):
        dots = tuple(
            Dot(x, _height(value), f"{moment}: {name} {value:.2f}")
            for x, moment, value in zip(middle, names, values, strict=True)
            if value is not None
        )
        drawn.append(Line(number, name, dots))
    grid = tuple((_height(share), f"{share:g}") for share in (0.0, 0.5, 1.0))
    return Lines(tuple(drawn), grid, tuple(zip(middle, names, strict=True)))


def _column(name: str, values: Sequence[int], most: int, x: float, step: float) -> Column:
    room = HEIGHT - _FOOT - _HEAD
    foot, segments = HEIGHT - _FOOT, []
    for series, value in enumerate(values):
        height = room * value / most
        foot -= height
        if value:
            segments.append(Segment(series, foot, height))
    total = sum(values)
    return Column(name[5:], f"{name}: {total} answers", total, x + 0.14 * step, 0.72 * step, foot, tuple(segments))


def _height(share: float) -> float:
    return _HEAD + (HEIGHT - _FOOT - _HEAD) * (1.0 - min(max(share, 0.0), 1.0))
