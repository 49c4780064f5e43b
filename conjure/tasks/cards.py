"""The model card that training writes: what the model is, whose data it saw, how it was made, what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from conjure.core.files import write_atomic
from conjure.data import catalogue


def write_card(
    folder: Path, recipe: Path, header: Mapping[str, str], sets: Sequence[str], figures: Mapping[str, float]
) -> None:
    """README.md of a trained model, and its licence and summary in config.json, where listings read them.

    `header` is the recipe's; its `licence:` line is the model's licence. `sets` are names of the catalogue.
    """
    data = [catalogue.find(name) for name in sets]
    licence = header.get("licence") or ("unstated" if all(d.ship for d in data) else "not to be shipped: see the data")
    summary = header.get("about", recipe.stem)
    lines = ["---", f"licence: {licence}", f"summary: {summary}", "---", "", f"# {recipe.stem}", "", summary + ".", "",
             "## Data", "", *(f"- {d.title}. {d.licence}. Credit: {d.credit}." for d in data), "",
             "## Training", "", *(f"- {key}: {value}" for key, value in header.items() if key != "about"), "",
             "```yaml", _values(recipe), "```", "",
             "## At the end of training", "", *(f"- {name}: {value:.4f}" for name, value in figures.items()), ""]
    write_atomic(folder / "README.md", "\n".join(lines).encode())
    path = folder / "config.json"
    saved = json.loads(path.read_text(encoding="utf-8")) | {"licence": licence, "summary": summary}
    write_atomic(path, (json.dumps(saved, indent=1, ensure_ascii=False) + "\n").encode())


def _values(recipe: Path) -> str:
    """The recipe without its header."""
    return "\n".join(line for line in recipe.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
