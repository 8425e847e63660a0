"""Small charts as inline SVG: no script, no font, no file beside the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from training.curves import Curve
from training.metrics import Array

_SIDE = 260
_EDGE = 56
_STRIP = 150
_COLOURS = ("#1e7fc2", "#c2185b", "#e68a00")


def line_chart(
    curves: Sequence[tuple[str, Curve]],
    x_name: str,
    y_name: str,
    *,
    x_most: float = 1.0,
    diagonal: bool = False,
    dots: bool = False,
) -> str:
    """An SVG of named curves over [0, x_most] × [0, 1]; points beyond are cut off."""
    parts = [_axes(x_name, y_name, x_most)]
    if diagonal:
        parts.append(_polyline(((0.0, 0.0), (x_most, 1.0)), x_most, "#999", dashed=True))
    for number, (name, curve) in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        inside = tuple(point for point in curve if point[0] <= x_most)
        parts.append(_polyline(inside, x_most, colour))
        if dots:
            parts += [f'<circle cx="{_x(x, x_most)}" cy="{_y(y)}" r="3.5" fill="{colour}"/>' for x, y in inside]
        if len(curves) > 1:
            place = f'x="{_EDGE + 8}" y="{_SIDE - 8 - 15 * number}"'
            parts.append(f'<text {place} fill="{colour}">{escape(name)}</text>')
    return _framed(parts, f"{y_name} over {x_name}")


def matrix_chart(matrix: Array, names: Sequence[str]) -> str:
    """An SVG of a confusion matrix: rows are the truth, columns the answer, shade the share of the row."""
    cell, left = _SIDE / max(len(names), 1), max(_EDGE, 14 + 7 * max(map(len, names), default=0))
    parts = []
    for row, counts in enumerate(matrix):
        total = float(counts.sum()) or 1.0
        y = 10 + row * cell
        parts.append(f'<text x="{left - 4}" y="{y + cell / 2 + 4:.1f}" text-anchor="end">{escape(names[row])}</text>')
        for column, count in enumerate(counts):
            share, x = float(count) / total, left + column * cell
            fill = f"rgba(30,127,194,{share:.2f})"
            ink = "#fff" if share > 0.55 else "#222"
            parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" fill="{fill}"/>')
            middle = f'x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}"'
            parts.append(f'<text {middle} text-anchor="middle" fill="{ink}">{int(count)}</text>')
    for column, name in enumerate(names):
        x = left + (column + 0.5) * cell
        parts.append(f'<text x="{x:.1f}" y="{_SIDE + 26}" text-anchor="middle">{escape(name)}</text>')
    return _framed(parts, "confusion matrix, rows are the truth", left)


def interval_bar(value: float, low: float, high: float, other: float | None = None) -> str:
    """An SVG strip from 0 to 1 with an interval, its value, and another model's value as a hollow dot."""
    if not all(math.isfinite(number) for number in (value, low, high)):
        return ""
    at = [_STRIP * min(max(number, 0.0), 1.0) + 6 for number in (low, high, value)]
    parts = [
        f'<line x1="6" x2="{_STRIP + 6}" y1="9" y2="9" stroke="#ddd" stroke-width="2"/>',
        f'<line x1="{at[0]:.1f}" x2="{at[1]:.1f}" y1="9" y2="9" stroke="{_COLOURS[0]}" stroke-width="5"/>',
    ]
    if other is not None and math.isfinite(other):
        x = _STRIP * min(max(other, 0.0), 1.0) + 6
        parts.append(f'<circle cx="{x:.1f}" cy="9" r="4.5" fill="#fff" stroke="{_COLOURS[1]}" stroke-width="2"/>')
    parts.append(f'<circle cx="{at[2]:.1f}" cy="9" r="5" fill="{_COLOURS[0]}"/>')
    title = f"{value:.3f}, 95 % interval {low:.3f} to {high:.3f}"
    return f'<svg class="strip" viewBox="0 0 {_STRIP + 12} 18" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def _axes(x_name: str, y_name: str, x_most: float) -> str:
    left, low = _EDGE, _y(0)
    lines = [f'<rect x="{left}" y="10" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#bbb"/>']
    for step in range(5):
        share = step / 4
        lines.append(
            f'<text x="{_x(share * x_most, x_most)}" y="{low + 14}" text-anchor="middle">{share * x_most:g}</text>'
        )
        lines.append(f'<text x="{left - 4}" y="{_y(share) + 4:.1f}" text-anchor="end">{share:g}</text>')
    lines.append(f'<text x="{left + _SIDE / 2}" y="{low + 30}" text-anchor="middle">{escape(x_name)}</text>')
    turn = f'transform="translate(10 {10 + _SIDE / 2}) rotate(-90)"'
    lines.append(f'<text {turn} text-anchor="middle">{escape(y_name)}</text>')
    return "".join(lines)


def _polyline(curve: Curve, x_most: float, colour: str, dashed: bool = False) -> str:
    points = " ".join(f"{_x(x, x_most)},{_y(y):.1f}" for x, y in curve)
    dash = ' stroke-dasharray="4 4"' if dashed else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'


def _framed(parts: Sequence[str], title: str, left: int = _EDGE) -> str:
    box = f"0 0 {left + _SIDE + 20} {_SIDE + 50}"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _x(value: float, x_most: float) -> str:
    return f"{_EDGE + _SIDE * value / x_most:.1f}"


def _y(value: float) -> float:
    return 10 + _SIDE * (1 - value)
