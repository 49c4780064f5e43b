"""Curves as SVG: panels side by side, logarithmic axes, one line for each name with the interval of each point."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000")
"""Told apart with any kind of colour vision (Okabe and Ito 2008)."""
INK, FAINT, GROUND = "#333333", "#e4e4e0", "#fdfdfb"
WIDTH, HEIGHT = 330, 260  # of a panel's inside
LEFT, TOP, BETWEEN, BOTTOM = 62, 74, 26, 48
STEPS = (1, 2, 5)  # lines of the grid within a power of ten


@dataclass(frozen=True)
class Point:
    """All above 0."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    title: str
    lines: Mapping[str, Sequence[Point]]
    floor: float = 0.0
    """A dashed line, above 0: the best that can be."""


def svg(panels: Sequence[Panel], *, ticks: Sequence[float], x: str, y: str, floor: str = "") -> str:
    """The picture; `x` and `y` name the axes, `ticks` are those of x, and `floor` names the dashed line. All panels
    share both axes."""
    points = [point for panel in panels for line in panel.lines.values() for point in line]
    places = [*ticks, *(point.x for point in points)]
    across = _scale(min(places) / 1.15, max(places) * 1.15, 0, WIDTH)
    values = [*(point.y for point in points), *(panel.floor for panel in panels if panel.floor)]
    low, high = min(values) / 1.3, max(values) * 1.2
    up = _scale(low, high, TOP + HEIGHT, TOP)
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)}

    width = LEFT + len(panels) * (WIDTH + BETWEEN)
    height = TOP + HEIGHT + BOTTOM
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="{GROUND}"/>',
        *_legend(colours, floor if any(panel.floor for panel in panels) else "", width),
        f'<text transform="translate(16 {TOP + HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">{escape(y)}</text>',
    ]
    for k, panel in enumerate(panels):
        left = LEFT + k * (WIDTH + BETWEEN)
        out.append(f'<g transform="translate({left} 0)">')
        out += [f'<text x="{WIDTH / 2}" y="{TOP - 10}" text-anchor="middle" font-weight="600">'
                f"{escape(panel.title)}</text>"]  # fmt: skip
        for tick in ticks:
            out += [_line(across(tick), TOP, across(tick), TOP + HEIGHT, FAINT),
                    _text(across(tick), TOP + HEIGHT + 18, f"{tick:g}", "middle")]  # fmt: skip
        for tick in _ticks(low, high):
            out.append(_line(0, up(tick), WIDTH, up(tick), FAINT))
            out += [_text(-8, up(tick) + 4, f"{tick:g}", "end")] if k == 0 else []
        out += [_line(0, TOP + HEIGHT, WIDTH, TOP + HEIGHT, INK),
                _text(WIDTH / 2, TOP + HEIGHT + 38, x, "middle")]  # fmt: skip
        if panel.floor:
            out.append(_line(0, up(panel.floor), WIDTH, up(panel.floor), INK, 'stroke-dasharray="5 4"'))
        for name, line in panel.lines.items():
            at = [(across(p.x), up(p.y), up(max(p.low, low)), up(min(p.high, high))) for p in line]
            out += _curve(at, colours[name])
        out.append("</g>")
    return "\n".join([*out, "</svg>", ""])


def _curve(at: Sequence[tuple[float, float, float, float]], colour: str) -> Iterable[str]:
    """A line through the points, a thin bar for each interval, and a dot."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in at)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
    for x, y, low, high in at:
        yield _line(x, low, x, high, colour, 'stroke-opacity="0.55"')
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}" stroke="{GROUND}" stroke-width="1.2"/>'


def _legend(colours: dict[str, str], floor: str, width: float) -> Iterable[str]:
    """In as many rows as it takes."""
    left, y = float(LEFT), 18
    for name, colour in [*colours.items(), *([(floor, "")] if floor else [])]:
        wide = 48 + 7.2 * len(name)
        if left > LEFT and left + wide > width:
            left, y = float(LEFT), y + 18
        if colour:
            yield _line(left, y, left + 22, y, colour, 'stroke-width="2"')
            yield f'<circle cx="{left + 11:.1f}" cy="{y}" r="3.6" fill="{colour}"/>'
        else:
            yield _line(left, y, left + 22, y, INK, 'stroke-dasharray="5 4"')
        yield _text(left + 28, y + 4, name, "start")
        left += wide


def _ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in STEPS if low <= step * 10.0**power <= high]


def _scale(first: float, last: float, start: float, end: float) -> Callable[[float], float]:
    def place(value: float) -> float:
        return start + (end - start) * math.log(value / first) / math.log(last / first)

    return place


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
