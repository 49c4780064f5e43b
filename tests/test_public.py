"""The public door: few names, and nothing heavy behind it until it is used."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import conjure

NAMES = ["ConjureError", "Image", "Text", "__version__", "load", "make", "plan", "read", "remake", "train", "write"]


def test_the_names_are_these() -> None:
    assert sorted(conjure.__all__) == sorted(NAMES) == dir(conjure)
    assert len(NAMES) <= 12
    for name in NAMES:
        assert getattr(conjure, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'mkae'"):
        conjure.mkae


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert conjure.__version__ == project["version"]


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, conjure; print({'torch', 'numpy', 'PIL', 'pydantic', 'click', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


def test_train_is_a_verb_and_a_room(monkeypatch: pytest.MonkeyPatch) -> None:
    import conjure.train.recipe
    from conjure.tasks import training

    monkeypatch.setattr(training, "train", lambda *args, **kwargs: (args, kwargs))
    assert conjure.train("toy", "train.steps=1", folder="x") == (("toy", "train.steps=1"), {"folder": "x"})
    assert conjure.train.recipe.load_recipe


def test_an_error_is_a_message_and_a_hint() -> None:
    with pytest.raises(conjure.ConjureError, match="empty text") as caught:
        conjure.make("", to="image")
    assert caught.value.hint
