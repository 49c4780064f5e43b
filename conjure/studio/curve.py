"""Curves as lines (SVG) in the page's colours: losses of a training, and what was measured on the way."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[int, float]]
WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 30
MOST = 400
"""Points of a line at most: of more, means of neighbours."""
STYLE = """
.curve svg { width: 100%; height: auto; display: block; }
.curve text { font-size: 12px; fill: var(--body-text-color-subdued); }
.curve .line { fill: none; stroke: var(--primary-600); stroke-width: 2; }
.dark .curve .line { stroke: var(--primary-300); }
.curve .mark { fill: #c2410c; }
.dark .curve .mark { fill: #fdba74; }
.curve .rule { stroke: var(--border-color-primary); stroke-width: 1; }
"""


def drawn(losses: Points, figures: Mapping[str, Points], steps: int = 0) -> str:
    """The loss as a line, the first of the figures that lies in its range as dots; "" while there is nothing to see."""
    line = thinned([(step, value) for step, value in losses if math.isfinite(value)])
    if not line:
        return ""
    marks = [(step, value) for step, value in figures.get("loss", ()) if math.isfinite(value)]
    values = [value for _, value in (*line, *marks)]
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    last = max(steps, line[-1][0], 1)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = []
    for share in (0, 0.5, 1):
        value = low + (high - low) * share
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step in (0, last // 2, last):
        anchor = "start" if step == 0 else "end" if step == last else "middle"
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{step:,}</text>')
    path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in line)
    if len(line) == 1:
        parts.append(f'<circle class="mark" cx="{x(line[0][0]):.1f}" cy="{y(line[0][1]):.1f}" r="3"/>')
    parts.append(f'<polyline class="line" points="{path}"/>')
    parts += [f'<circle class="mark" cx="{x(step):.1f}" cy="{y(value):.1f}" r="4"/>' for step, value in marks]
    said = f"Loss by step: {line[0][1]:.3g} at step {line[0][0]:.0f}, {line[-1][1]:.3g} at step {line[-1][0]:.0f}"
    key = '<p class="quiet">Line: training loss. Dots: validation loss.</p>' if marks else ""
    return (f'<div class="curve"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(said)}">'
            f"{''.join(parts)}</svg>{key}</div>")  # fmt: skip


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most `MOST` points: means of neighbours, the last one as it is."""
    if len(points) <= MOST:
        return [(float(step), value) for step, value in points]
    size = math.ceil(len(points) / (MOST - 1))
    found = []
    for start in range(0, len(points) - 1, size):
        some = points[start : min(start + size, len(points) - 1)]
        found.append((sum(step for step, _ in some) / len(some), sum(value for _, value in some) / len(some)))
    return [*found, (float(points[-1][0]), points[-1][1])]
