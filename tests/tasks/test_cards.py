"""The card says whose data a model saw, and its licence lands where listings read it."""

from __future__ import annotations

import json
from pathlib import Path

from conjure.tasks.cards import write_card

RECIPE = "# about: a test model\n# licence: {licence}\n# minutes: 3\ntask: text_to_text\nmodel: {{dim: 8}}\n"


def made(folder: Path, recipe: str, header: dict[str, str], sets: tuple[str, ...]) -> tuple[str, dict[str, object]]:
    path = folder / "tales.yaml"
    path.write_text(recipe)
    (folder / "config.json").write_text('{"format": 1, "licence": "unstated", "summary": "", "parameters": 7}')
    write_card(folder, path, header, sets, {"bits_per_byte": 1.23456})
    return (folder / "README.md").read_text(), json.loads((folder / "config.json").read_text())


def test_the_card(tmp_path: Path) -> None:
    header = {"about": "a test model", "licence": "CC0-1.0", "minutes": "3"}
    card, config = made(tmp_path, RECIPE.format(licence="CC0-1.0"), header, ("tinyshakespeare",))
    assert "licence: CC0-1.0\nsummary: a test model" in card
    assert "public domain" in card.lower() and "- minutes: 3" in card
    assert "model: {dim: 8}" in card and "# about" not in card
    assert "- bits_per_byte: 1.2346" in card
    assert config == {"format": 1, "licence": "CC0-1.0", "summary": "a test model", "parameters": 7}


def test_without_a_licence(tmp_path: Path) -> None:
    _, config = made(tmp_path, "task: text_to_text\n", {}, ("tinyshakespeare",))
    assert config["licence"] == "unstated" and config["summary"] == "tales"
