"""A comparison as one page of HTML: it needs nothing outside of it, runs no script, and is light or dark as its reader.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from conjure.tasks.compare import Comparison, Outcome

STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--soft:#5c5c5c;--line:#d9d9d9;--paper:#fff;--card:#f5f5f5;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#ececec;--soft:#a6a6a6;--line:#3a3a3a;--paper:#151515;--card:#222;
--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:80rem;padding:1rem;background:var(--paper);color:var(--ink);
font:1rem/1.45 system-ui,sans-serif}
h1{font-size:1.4rem;margin:.2rem 0;overflow-wrap:anywhere}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
p,dl{margin:.3rem 0}.soft{color:var(--soft);font-size:.85rem}.bad{color:var(--bad)}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
.grid{display:grid;gap:.4rem;grid-template-columns:minmax(7rem,11rem) repeat(var(--seeds),minmax(6.5rem,16rem))}
.grid>div{min-width:0}.name{font-weight:600;overflow-wrap:anywhere;padding-top:.3rem}
.head{color:var(--soft);font-size:.85rem;text-align:center}
img{width:100%;height:auto;display:block;border-radius:.3rem;background:#fff}
.fail{grid-column:2/-1;background:var(--card);border-left:.25rem solid var(--bad);padding:.6rem;border-radius:.3rem;
overflow-wrap:anywhere;white-space:pre-line}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.3rem .7rem;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper);white-space:normal;
min-width:7rem;max-width:12rem;overflow-wrap:break-word}
td small{display:block;color:var(--soft)}
details{background:var(--card);border-radius:.3rem;padding:.5rem .7rem;margin:.4rem 0}summary{cursor:pointer}
dt{color:var(--soft);font-size:.85rem}dd{margin:0 0 .3rem;overflow-wrap:anywhere}
@media(max-width:40rem){.grid{grid-template-columns:repeat(var(--seeds),minmax(4.5rem,1fr))}
.name,.fail{grid-column:1/-1}.corner{display:none}}
"""
SHOWN = 24
"""Pictures of a system on the page at most; the figures are of all."""
COLUMNS = ("seconds", "to load", "evaluations", "peak memory", "parameters", "licence")


def page(comparison: Comparison) -> str:
    """The whole document."""
    asked, outcomes = comparison.wish, comparison.outcomes
    title = " + ".join(asked.inputs)
    budget = f", at most {asked.evaluations} evaluations a picture" if asked.evaluations else ""
    knobs = "".join(f", {name} {value}" for name, value in asked.options.items())
    shown = f", the first {SHOWN} of them shown" if asked.count > SHOWN else ""
    said = f"{len(outcomes)} systems, seeds {comparison.seeds[0]} to {comparison.seeds[-1]}{shown}{budget}{knobs}"
    parts = [
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        'style-src \'unsafe-inline\'">',
        f"<title>{escape(title)}: {len(outcomes)} systems</title><style>{STYLE}</style></head><body>",
        f'<h1>{escape(title)}</h1><p class="soft">{escape(said)}</p>',
        _grid(comparison), "<h2>Figures</h2>", _table(outcomes), "<h2>How it was measured</h2>", _method(comparison),
        *map(_details, outcomes), "</body></html>\n",
    ]  # fmt: skip
    return "\n".join(parts)


def _grid(comparison: Comparison) -> str:
    """A row for each system, a column for each seed."""
    seeds = comparison.seeds[:SHOWN]
    cells = ['<div class="corner"></div>', *(f'<div class="head">seed {seed}</div>' for seed in seeds)]
    for each in comparison.outcomes:
        cells.append(f'<div class="name">{escape(each.name)}</div>')
        if each.error:
            hint = f"\n{each.hint}" if each.hint else ""
            cells.append(f'<div class="fail"><b class="bad">failed</b>: {escape(each.error + hint)}</div>')
        for seed, data in zip(seeds, each.pictures, strict=False):
            source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
            cells.append(f'<div><img alt="{escape(each.name)}, seed {seed}" src="{source}"></div>')
    return f'<div class="wide"><div class="grid" style="--seeds:{len(seeds)}">{"".join(cells)}</div></div>'


def _table(outcomes: Sequence[Outcome]) -> str:
    """What each system took and how it did, a row each."""
    metrics = list(dict.fromkeys(name for each in outcomes for name in each.metrics))
    rows = [_row("th", ["system", *COLUMNS, *metrics])]
    for each in outcomes:
        facts = each.facts
        cells = [
            _number(facts.get("seconds"), "s"), _number(facts.get("load_seconds"), "s"),
            _number(facts.get("evaluations")), _bytes(facts.get("peak_memory_bytes")),
            _number(facts.get("parameters") or None), escape(facts.get("licence") or "unstated"),
        ]  # fmt: skip
        cells += [_figure(each.metrics.get(name)) for name in metrics]
        rows.append(_row("td", [escape(each.name), *cells]))
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _figure(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    return f"{figure['value']:.4g}<small>{figure['low']:.3g} to {figure['high']:.3g}</small>"


def _method(comparison: Comparison) -> str:
    found: dict[str, Mapping[str, Any]] = {}
    for each in comparison.outcomes:
        found = {**each.metrics, **found}
    rows = [
        ("seconds", "from the inputs to all pictures of a system, each in a process of its own, one after the other"),
        ("evaluations", "passes of the network for one picture, as the system itself counts them"),
        ("peak memory", "the largest resident size of that process, libraries included"),
        *((name, figure["protocol"]) for name, figure in found.items()),
        ("machine", comparison.plain()["machine"]),
        ("made by", f"conjure {comparison.plain()['version']}; each picture carries the record of its making"),
    ]
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(str(said))}</dd>' for name, said in rows)}</dl>"


def _details(each: Outcome) -> str:
    """Everything else that is known about a system, folded away."""
    shown = {**each.facts, "options": None, **(each.facts.get("options") or {})}
    lines = [(name, value) for name, value in shown.items() if value not in (None, "", [])]
    lines += [(name, f"{figure['value']:.4g}: {figure['protocol']}") for name, figure in each.metrics.items()]
    rows = "".join(f"<dt>{escape(str(name))}</dt><dd>{escape(_plain(value))}</dd>" for name, value in lines)
    notes = "; ".join(each.facts.get("notes") or [])
    said = f' <span class="soft">{escape(notes)}</span>' if notes else ""
    return f"<details><summary>{escape(each.name)}{said}</summary><dl>{rows}</dl></details>"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join("x".join(map(str, each)) if isinstance(each, list) else str(each) for each in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    said = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{said} {unit}".strip()


def _bytes(count: int | None) -> str:
    if not count:
        return "-"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
