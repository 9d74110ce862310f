"""Curves and histograms as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from cosyflow.page.elements import append, element, missing

WIDTH, HEIGHT = 460.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 14.0, 40.0
MOST_POINTS = 400
"""Of one curve; more are averaged."""
BINS = 30
COLOURS = ("#2266aa", "#cc5522", "#228844", "#884499", "#888800", "#116677")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Scale:
    """Where values lie on an axis."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float) -> _Scale:
        low, high = min(values), max(values)
        if low == high:
            low, high = low - (abs(low) * 0.1 or 1), high + (abs(high) * 0.1 or 1)
        return cls(low, high, start, end)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Four to ten round numbers."""
        step = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(step))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= step)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step)
        return [place * step for place in range(first, last + 1)]


def curves(title: str, series: Mapping[str, Points], across: str) -> Element:
    """Values over a count, one line for each series. Values that are not finite are left out, which is said.

    Args:
        across: what is counted.
    """
    finite = {name: [point for point in points if math.isfinite(point[1])] for name, points in series.items()}
    lost = sum(len(series[name]) - len(finite[name]) for name in series)
    drawn = {name: _thinned(points) for name, points in finite.items() if points}
    if not drawn:
        return missing(f"{title}: no value to draw" + (f"; {lost} are not finite" if lost else ""))
    every = [point for points in drawn.values() for point in points]
    x = _Scale.of([point[0] for point in every], LEFT, WIDTH - RIGHT)
    y = _Scale.of([point[1] for point in every], HEIGHT - BOTTOM, TOP)
    picture = _frame(title, x, y, across)
    for place, (name, points) in enumerate(drawn.items()):
        colour = COLOURS[place % len(COLOURS)]
        if len(points) == 1:
            append(picture, element("circle", cx=x(points[0][0]), cy=y(points[0][1]), r=3.0, fill=colour))
        line = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        append(picture, element("polyline", points=line, fill="none", stroke=colour, stroke_width="1.6"))
        append(picture, element("text", name, x=WIDTH - RIGHT - 4, y=TOP + 12 + 14 * place, fill=colour, class_="end"))
    note = f"{lost} values are not finite and are left out." if lost else None
    return element("figure", element("figcaption", title), picture, element("p", note) if note else None)


def histogram(title: str, values: Sequence[float] | np.ndarray, unit: str) -> Element:
    """How often values occur, with the smallest, the middle, the mean and the largest of them."""
    numbers = np.asarray(values, np.float64)
    if not numbers.size:
        return missing(f"{title}: no values")
    low, high = float(numbers.min()), float(numbers.max())
    spread = (low, high) if low < high else (low - 0.5, high + 0.5)
    counts, edges = np.histogram(numbers, bins=BINS, range=spread)
    x = _Scale(float(edges[0]), float(edges[-1]), LEFT, WIDTH - RIGHT)
    y = _Scale(0.0, float(counts.max()), HEIGHT - BOTTOM, TOP)
    picture = _frame(title, x, y, unit)
    for count, start, end in zip(counts, edges, edges[1:], strict=False):
        if count:
            top = y(float(count))
            size = {"width": max(x(float(end)) - x(float(start)) - 1, 1.0), "height": HEIGHT - BOTTOM - top}
            append(picture, element("rect", x=x(float(start)), y=top, fill=COLOURS[0], **size))
    facts = {"least": low, "median": float(np.median(numbers)), "mean": float(numbers.mean()), "most": high}
    words = ", ".join(f"{name} {short(value)}" for name, value in facts.items())
    return element("figure", element("figcaption", title), picture, element("p", f"{numbers.size:,} values: {words}"))


def short(value: float) -> str:
    """A number in four digits."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2e}"
    return f"{value:.4g}"


def _thinned(points: Points) -> Points:
    """At most MOST_POINTS, each the mean of those that follow one another."""
    if len(points) <= MOST_POINTS:
        return points
    parts = np.array_split(np.asarray(points, np.float64), MOST_POINTS)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]


def _frame(title: str, x: _Scale, y: _Scale, across: str) -> Element:
    size = f"0 0 {WIDTH:.0f} {HEIGHT:.0f}"
    picture = element("svg", viewBox=size, role="img", aria_label=title, width=WIDTH, height=HEIGHT)
    for value in y.ticks():
        append(picture, element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid"))
        append(picture, element("text", short(value), x=LEFT - 6, y=y(value) + 4, class_="end"))
    for value in x.ticks():
        append(picture, element("line", x1=x(value), x2=x(value), y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"))
        append(picture, element("text", short(value), x=x(value), y=HEIGHT - BOTTOM + 16, class_="middle"))
    append(picture, element("text", across, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, class_="middle"))
    return picture
