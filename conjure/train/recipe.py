"""Recipes: YAML values that say what to train, on what and how. No class paths, no inheritance."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conjure.core.config import from_dict, load_yaml, override, to_dict
from conjure.core.errors import ConjureError, suggest
from conjure.core.paths import recipes_dir
from conjure.train.settings import Training


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe. `model` and `data` are plain values until `resolve` makes them the task's own dataclasses."""

    task: str
    """The task by its module: text_to_image."""
    seed: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    train: Training

    def resolve(self, task: type[Any], where: str = "recipe") -> tuple[Any, Any]:
        """(`task.ModelConfig`, `task.DataConfig`) filled from this recipe, strictly."""
        sections = [("model", task.ModelConfig), ("data", task.DataConfig)]
        # As fields of one class, so that a message names the key as it stands in the recipe: `model.dim`.
        both = from_dict(dataclasses.make_dataclass("Sections", sections, kw_only=True), self._sections(), where)
        return both.model, both.data

    def settings(self) -> dict[str, Any]:
        """What a checkpoint remembers beside the training section and the seed."""
        return {"task": self.task, **self._sections()}

    def _sections(self) -> dict[str, Any]:
        return {"model": to_dict(self.model), "data": to_dict(self.data)}


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name among those that come with conjure, or at that path, with `a.b=c` put in."""
    path = find(name_or_path)
    return from_dict(Recipe, override(load_yaml(path), overrides), str(path))


def find(name_or_path: str | Path) -> Path:
    """The file of a recipe; unknown names raise `ConjureError` with the nearest known one."""
    text = str(name_or_path)
    known = available()
    if text in known:
        return known[text]
    path = Path(text)
    if path.is_file():
        return path
    hint = suggest(path.stem, known)
    raise ConjureError(f"expected the name or the path of a recipe, got {text!r}", hint=hint)


def available() -> dict[str, Path]:
    """The recipes that come with conjure: name -> file."""
    return {path.stem: path for path in sorted(recipes_dir().glob("*.yaml"))}


def header(path: Path) -> dict[str, str]:
    """The `# key: value` lines that a recipe begins with: about, command, hardware, minutes, result, date.

    A comment line without a key goes on with the value before it.
    """
    found: dict[str, str] = {}
    key = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("#").strip()
        if match := re.fullmatch(r"([a-z]+):\s*(.*)", text):
            key = match[1]
            found[key] = match[2]
        elif key and text:
            found[key] = f"{found[key]} {text}".strip()
    return found
