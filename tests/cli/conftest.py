from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conjure.cli.main import call


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], workshop: Path) -> Callable[..., str]:
    """Runs a command line that must end as every bad input does, and returns what it said."""

    def run(*arguments: str) -> str:
        before = sorted(workshop.rglob("*"))
        code = call(arguments)
        said = capsys.readouterr()
        assert code == 2, said.err
        assert said.err.startswith("error: ") and "hint: " in said.err, said.err
        assert "Traceback" not in said.err and said.out == "", said.err
        assert sorted(workshop.rglob("*")) == before, "something was written"
        return said.err

    return run
