"""`conjure make --plan`: what would be done, and what it would take."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from conjure.cli.render import note, out, table
from conjure.core.files import size

if TYPE_CHECKING:
    from conjure.tasks.make import Plan

TITLES = {"file_bytes": "weights", "memory_bytes": "memory", "seconds": "time"}


def show_plan(planned: Plan, *, seeded: bool, writes: str, as_json: bool) -> None:
    """Edge or path, model, options, and what it would take, on stdout."""
    from conjure.core import shelf
    from conjure.tasks.make import forecast, route

    facts = forecast(planned)
    edge, info = planned.edges[-1], shelf.info(planned.models[-1]) if planned.models[-1] else None
    stations = " -> ".join(route(planned)) + (f" ({edge.task})" if len(planned.edges) == 1 else "")
    if as_json:
        out(json.dumps({
            "path": [{"edge": str(each), "task": each.task, "model": model}
                     for each, model in zip(planned.edges, planned.models, strict=True)],
            "options": asdict(planned.options), "count": len(planned.seeds), "forecast": facts,
        }))  # fmt: skip
        return
    rows = [
        ("way", stations),
        ("model", ", ".join(model or "none, it is arithmetic" for model in planned.models)),
        ("", "  ".join(filter(None, (info.summary, info.licence and f"licence {info.licence}"))) if info else ""),
        ("options", "  ".join(f"{name} {_brief(value)}" for name, value in asdict(planned.options).items()) or "none"),
        ("seed", str(planned.seeds[0]) if seeded else "drawn at random"),
        *((TITLES.get(name, name), _quantity(name, value)) for name, value in facts.items()),
        ("writes", writes),
    ]
    out(table(row for row in rows if row[1]))
    if "seconds" not in facts:
        note(f"{edge.task} makes no forecast of its time")


def _brief(value: Any) -> str:
    return repr(value) if isinstance(value, str) and (not value or " " in value) else str(value)


def _quantity(name: str, value: Any) -> str:
    if name.endswith("bytes"):
        return size(value)
    if name.endswith("seconds"):
        return f"at least {value:.2g} s of computing"
    return f"{value:,}" if isinstance(value, int) else str(value)
