"""Building blocks of the figures: SVG elements, scales and ticks. Colours are classes of the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from sasrec_tasks.listings import printable

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Values onto pixels, linearly."""

    low: float
    high: float
    start: float  # pixel of low
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        span = (self.high - self.low) or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


class Figure:
    """One picture that a screen reader names by its title and tells by its description.

    Args:
        name: of the figure within its page, letters and dashes: its ids begin with it.
    """

    def __init__(self, name: str, title: str, description: str, *, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.root = Element(
            "svg",
            {
                "viewBox": f"0 0 {width} {height}",
                "role": "img",
                "aria-labelledby": f"{name}-title {name}-description",
            },
        )
        SubElement(self.root, "title", {"id": f"{name}-title"}).text = printable(title)
        SubElement(self.root, "desc", {"id": f"{name}-description"}).text = printable(description)

    def add(
        self, tag: str, kind: str, text: str = "", *, hint: str = "", **attributes: float | str
    ) -> Element:
        """An element of a class; numbers are written with one decimal, `_` in a name is `-`.

        Args:
            hint: shown where the pointer rests on it.
        """
        written = {
            name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else f"{value:.1f}"
            for name, value in attributes.items()
        }
        element = SubElement(self.root, tag, {"class": kind, **written})
        element.text = printable(text) or None
        if hint:
            SubElement(element, "title").text = printable(hint)
        return element

    def line(self, kind: str, points: Sequence[Point]) -> None:
        """A line through points."""
        if points:
            self.add("polyline", kind, points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points))

    def area(self, kind: str, above: Sequence[Point], below: Sequence[Point]) -> None:
        """What lies between two lines."""
        if above:
            ring = [*above, *reversed(below)]
            self.add("polygon", kind, points=" ".join(f"{x:.1f},{y:.1f}" for x, y in ring))

    def y_axis(self, scale: Scale, ticks: Sequence[float], left: float, right: float) -> None:
        """A line across, and its value, at each tick."""
        for tick in ticks:
            y = scale(tick)
            self.add("line", "grid", x1=left, x2=right, y1=y, y2=y)
            self.add("text", "tick end", written(tick), x=left - 6, y=y + 4)

    def markup(self) -> Markup:
        """As HTML takes it in; ElementTree has escaped every text."""
        return Markup(tostring(self.root, encoding="unicode"))  # noqa: S704


def ticks(low: float, high: float, number: int = 4) -> list[float]:
    """Round values from at most low to at least high, about so many steps apart.

    >>> ticks(0, 0.36)
    [0.0, 0.1, 0.2, 0.3, 0.4]
    """
    if not high > low:
        low, high = (low - abs(low) / 2, low + abs(low) / 2) if low else (0.0, 1.0)
    rough = (high - low) / number
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def written(value: float) -> str:
    """A tick's value, short: 0.25, 1,500, 20k, 3M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            size = {"G": 1e9, "M": 1e6, "k": 1e3}[unit]
            return f"{value / size:g}{unit}"
    return f"{value:,.6g}"
