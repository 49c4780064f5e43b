from __future__ import annotations

import tomllib
from pathlib import Path

import conjure
from conjure.core.version import __version__


def test_one_version_everywhere() -> None:
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    assert tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"] == __version__
    assert conjure.__version__ == __version__
