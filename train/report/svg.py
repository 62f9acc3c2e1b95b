"""Drawings as inline SVG. Colours are classes of the page's style sheet, so that they follow dark and light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal, TypeAlias

Anchor: TypeAlias = Literal["start", "middle", "end"]
Point: TypeAlias = tuple[float, float]


@dataclass(slots=True)
class Drawing:
    """An SVG of a size in its own units, which shrinks with the page. Every text in it is escaped."""

    width: float
    height: float
    label: str  # for screen readers
    _parts: list[str] = field(default_factory=list)

    def rect(self, at: Point, size: Point, css: str, *, title: str = "", opacity: float = 1.0) -> None:
        """A rectangle from its upper left corner; `title` shows when the pointer rests on it."""
        width, height = max(size[0], 0), max(size[1], 0)
        shown = f' fill-opacity="{opacity:.3f}"' if opacity < 1 else ""
        self._add(
            f'<rect x="{at[0]:.1f}" y="{at[1]:.1f}" width="{width:.1f}" height="{height:.1f}" class="{css}"{shown}',
            "rect",
            title,
        )

    def line(self, start: Point, stop: Point, css: str) -> None:
        """A straight line."""
        self._add(
            f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{stop[0]:.1f}" y2="{stop[1]:.1f}" class="{css}"',
            "line",
            "",
        )

    def path(self, points: Sequence[Point], css: str, *, closed: bool = False, title: str = "") -> None:
        """Lines from point to point."""
        if points:
            steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            self._add(f'<path d="M{steps}{" Z" if closed else ""}" class="{css}"', "path", title)

    def circle(self, at: Point, radius: float, css: str, *, title: str = "") -> None:
        """A disc."""
        self._add(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:.1f}" class="{css}"', "circle", title)

    def text(
        self, at: Point, text: str, css: str = "text", *, anchor: Anchor = "start", turned: float = 0, title: str = ""
    ) -> None:
        """A line of text, whose baseline begins, is centred or ends at a point; `turned` by degrees, clockwise."""
        turn = f' transform="rotate({turned:.0f} {at[0]:.1f} {at[1]:.1f})"' if turned else ""
        body = f"<title>{escape(title)}</title>" if title else ""
        self._parts.append(
            f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" class="{css}" text-anchor="{anchor}"{turn}>'
            f"{body}{escape(text)}</text>"
        )

    def svg(self) -> str:
        """The element, for a page."""
        return (
            f'<svg viewBox="0 0 {self.width:.0f} {self.height:.0f}" role="img" aria-label="{escape(self.label)}" '
            f'style="max-width:{self.width:.0f}px">{"".join(self._parts)}</svg>'
        )

    def _add(self, begun: str, tag: str, title: str) -> None:
        body = f"<title>{escape(title)}</title>" if title else ""
        self._parts.append(f"{begun}>{body}</{tag}>" if body else f"{begun}/>")


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to a drawing's units."""

    low: float
    high: float
    start: float  # where `low` is
    stop: float

    def at(self, value: float) -> float:
        """Where a value is; those outside are at the ends."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot's axes: `x` from left to right, `y` upwards."""

    x: Scale
    y: Scale

    def at(self, x: float, y: float) -> Point:
        """Where a point is."""
        return self.x.at(x), self.y.at(y)

    def draw(
        self, drawing: Drawing, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, y_name: str
    ) -> None:
        """Draw grid, numbers and the names of the axes."""
        for tick in y_ticks:
            drawing.line((self.x.start, self.y.at(tick)), (self.x.stop, self.y.at(tick)), "grid")
            drawing.text((self.x.start - 6, self.y.at(tick) + 4), f"{tick:g}", "tick", anchor="end")
        for tick in x_ticks:
            drawing.line((self.x.at(tick), self.y.start), (self.x.at(tick), self.y.start + 4), "axis")
            drawing.text((self.x.at(tick), self.y.start + 17), f"{tick:g}", "tick", anchor="middle")
        drawing.line((self.x.start, self.y.start), (self.x.stop, self.y.start), "axis")
        drawing.text(((self.x.start + self.x.stop) / 2, self.y.start + 36), x_name, "name", anchor="middle")
        middle = (self.y.start + self.y.stop) / 2
        drawing.text((self.x.start - 38, middle), y_name, "name", anchor="middle", turned=-90)


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers from `low` to `high`, at most so many."""
    span = high - low
    if span <= 0:
        return [low]
    step = next(
        base * 10.0**power for power in range(-6, 12) for base in (1, 2, 5) if span / (base * 10.0**power) <= most
    )
    first = int(low / step)
    found = [round(index * step, 9) for index in range(first, first + most + 3)]
    return [one for one in found if low - 1e-9 <= one <= high + 1e-9]
