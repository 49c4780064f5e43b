from __future__ import annotations

import pytest

from conjure.cli.main import call
from conjure.cli.serve import serve
from conjure.cli.studio import studio


def test_it_has_every_option_of_the_server() -> None:
    mine = {option for each in studio.params for option in each.opts}
    assert {option for each in serve.params for option in each.opts} < mine
    assert "--open" in mine


def test_its_help_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["studio", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--no-open" in said
    assert "conjure studio --port 9000 --no-open" in said


def test_what_cannot_be_is_refused_before_anything_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["studio", "--no-open", "--memory", "much"]) == 2
    assert "--memory: expected a size" in capsys.readouterr().err
