"""Charts as SVG text; the page's style gives them their colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ctflow_fed.evaluation import Interval

__all__ = ["Bar", "curve", "forest", "histogram", "span"]

TOP, RIGHT, BOTTOM = 22, 28, 46
CURVE_WIDTH, CURVE_HEIGHT, CURVE_LEFT = 640, 260, 56
FOREST_WIDTH, ROW_HEIGHT, NAMES_LEFT = 480, 34, 158
SPAN_WIDTH, SPAN_HEIGHT = 170, 22


@dataclass(frozen=True)
class Bar:
    """A row of a forest plot; ``kind`` is the class that colours it."""

    name: str
    interval: Interval
    kind: str


@dataclass(frozen=True)
class _Scale:
    """A straight map of values ``low..high`` to pixels ``start..stop``."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return round(self.start + part * (self.stop - self.start), 1)

    def ticks(self) -> list[float]:
        """Return four to nine round values."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * min((1, 2, 5, 10), key=lambda n: abs(n - rough / power))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [round(number * step, 10) for number in range(first, last + 1)]


def curve(values: Sequence[float], *, x_title: str, y_title: str) -> str:
    """Draw ``values`` over 0, 1, 2, ... as a line, with a dot and a number each."""
    bottom = CURVE_HEIGHT - BOTTOM
    y = _Scale(min(0.0, *values), 1.1 * max(*values, 1e-9), bottom, TOP)
    x = _Scale(0, max(1, len(values) - 1), CURVE_LEFT + 16, CURVE_WIDTH - RIGHT)
    points = [(x(place), y(value)) for place, value in enumerate(values)]
    body = [
        _line("grid", (CURVE_LEFT, y(tick)), (CURVE_WIDTH - RIGHT, y(tick)))
        + _text("tick end", CURVE_LEFT - 8, y(tick) + 4, f"{tick:g}")
        for tick in y.ticks()
    ]
    body += [
        _text("tick", left, bottom + 18, str(place))
        for place, (left, _) in enumerate(points)
    ]
    path = " ".join(f"{left},{top}" for left, top in points)
    body.append(f'<polyline class="line" points="{path}"/>')
    body += [
        f'<circle class="dot" cx="{left}" cy="{top}" r="4"/>'
        + _text("value", left, top - 10, f"{value:.3g}")
        for (left, top), value in zip(points, values, strict=True)
    ]
    body.append(
        _text("tick", (CURVE_LEFT + CURVE_WIDTH) / 2, CURVE_HEIGHT - 6, x_title)
    )
    return _svg(CURVE_WIDTH, CURVE_HEIGHT, f"{y_title} over {x_title}", body)


def forest(bars: Sequence[Bar], *, reference: float, x_title: str) -> str:
    """Draw each bar's value and interval; a dashed line stands at ``reference``."""
    ends = [end for bar in bars for end in (bar.interval.low, bar.interval.high)]
    low, high = min(*ends, reference), max(*ends, reference)
    margin = 0.06 * (high - low) or 0.05
    x = _Scale(low - margin, high + margin, NAMES_LEFT, FOREST_WIDTH - RIGHT)
    bottom = TOP + ROW_HEIGHT * len(bars)
    body = [
        _line("grid", (x(tick), TOP), (x(tick), bottom))
        + _text("tick", x(tick), bottom + 18, f"{tick:g}")
        for tick in x.ticks()
    ]
    body.append(_line("reference", (x(reference), TOP), (x(reference), bottom)))
    body += [
        _bar(bar, TOP + ROW_HEIGHT * (row + 0.5), x) for row, bar in enumerate(bars)
    ]
    body.append(_text("tick", (NAMES_LEFT + FOREST_WIDTH) / 2, bottom + 40, x_title))
    return _svg(FOREST_WIDTH, bottom + BOTTOM, x_title, body)


def histogram(edges: Sequence[float], heights: Sequence[float], *, x_title: str) -> str:
    """Draw a bar for each height, between neighbouring edges; all may be zero."""
    bottom = CURVE_HEIGHT - BOTTOM
    y = _Scale(0, 1.05 * max(*heights, 1e-9), bottom, TOP)
    x = _Scale(edges[0], edges[-1], CURVE_LEFT, CURVE_WIDTH - RIGHT)
    body = [
        _line("grid", (CURVE_LEFT, y(tick)), (CURVE_WIDTH - RIGHT, y(tick)))
        + _text("tick end", CURVE_LEFT - 8, y(tick) + 4, f"{tick:g}")
        for tick in y.ticks()
    ]
    body += [_text("tick", x(tick), bottom + 18, f"{tick:g}") for tick in x.ticks()]
    body += [
        f'<rect class="column" x="{x(low)}" y="{y(height)}" '
        f'width="{max(0.5, x(high) - x(low) - 1):.1f}" '
        f'height="{bottom - y(height):.1f}"/>'
        for low, high, height in zip(edges, edges[1:], heights, strict=False)
    ]
    body.append(
        _text("tick", (CURVE_LEFT + CURVE_WIDTH) / 2, CURVE_HEIGHT - 6, x_title)
    )
    return _svg(CURVE_WIDTH, CURVE_HEIGHT, x_title, body)


def span(value: Interval, floor: Interval, ceiling: Interval | None = None) -> str:
    """Draw an interval over the band of its floor; a dashed line is the ceiling."""
    known = [value, floor, *([ceiling] if ceiling else [])]
    low, high = min(each.low for each in known), max(each.high for each in known)
    margin = 0.04 * (high - low) or 0.05
    x = _Scale(low - margin, high + margin, 2, SPAN_WIDTH - 2)
    middle = SPAN_HEIGHT / 2
    body = [
        f'<rect class="floor" x="{x(floor.low)}" y="3" height="{SPAN_HEIGHT - 6}" '
        f'width="{max(2.0, x(floor.high) - x(floor.low)):.1f}"/>'
    ]
    if ceiling:
        at = x(ceiling.value)
        body.append(_line("reference", (at, 1), (at, SPAN_HEIGHT - 1)))
    body.append(_line("range", (x(value.low), middle), (x(value.high), middle)))
    body.append(f'<circle class="mark" cx="{x(value.value)}" cy="{middle}" r="5"/>')
    said = f"{value.value:.4g}, floor {floor.low:.4g} to {floor.high:.4g}"
    return _svg(SPAN_WIDTH, SPAN_HEIGHT, said, body)


def _bar(bar: Bar, middle: float, x: _Scale) -> str:
    low, value, high = (
        x(end) for end in (bar.interval.low, bar.interval.value, bar.interval.high)
    )
    return (
        f'<g class="{bar.kind}">'
        + _text("name end", NAMES_LEFT - 12, middle + 5, bar.name)
        + _line("range", (low, middle), (high, middle))
        + f'<circle class="mark" cx="{value}" cy="{middle}" r="5.5"/></g>'
    )


def _line(kind: str, start: tuple[float, float], stop: tuple[float, float]) -> str:
    return (
        f'<line class="{kind}" x1="{start[0]}" y1="{start[1]}" '
        f'x2="{stop[0]}" y2="{stop[1]}"/>'
    )


def _text(kind: str, left: float, top: float, text: str) -> str:
    return f'<text class="{kind}" x="{left}" y="{top}">{escape(text)}</text>'


def _svg(width: float, height: float, title: str, body: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">' + "".join(body) + "</svg>"
    )
