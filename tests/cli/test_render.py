"""Bars and colours on a real (pseudo) terminal, and silence elsewhere."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest

from conjure.cli.render import Follower, paint, table
from conjure.core.events import Delta, Progress, Warn
from conjure.core.files import size

DRIVER = """\
from conjure.cli.render import Follower
from conjure.core.events import Progress, Warn
with Follower() as follow:
    for step in range(1, 5):
        follow(Progress(step, 4, "step", "drawing"))
        follow.bars.refresh()
    follow(Warn("look"))
"""


def on_a_terminal(code: str, **environment: str) -> str:
    """What a program writes to a terminal that is its stderr."""
    ours, theirs = os.openpty()
    try:
        variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        variables |= {"TERM": "xterm", "COLUMNS": "120", **environment}
        subprocess.run([sys.executable, "-c", code], stderr=theirs, env=variables, check=True, timeout=60)
        os.close(theirs)
        theirs = -1
        pieces = []
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # Linux's way of saying that the other end is closed
                break
            if not piece:
                break
            pieces.append(piece)
        return b"".join(pieces).decode()
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)


def test_a_terminal_gets_a_bar_with_rate_and_notes() -> None:
    said = on_a_terminal(DRIVER)
    assert "drawing" in said and "4 of 4" in said and re.search(r"[\d.]+ step/s", said)
    assert "note: look" in said
    assert "\x1b[38;5" in said or re.search(r"\x1b\[\d*;?3\dm", said)


def test_what_is_done_in_one_step_gets_no_bar() -> None:
    code = (
        "import sys\nfrom conjure.cli.render import Follower\nfrom conjure.core.events import Progress\n"
        "with Follower() as follow:\n"
        "    follow(Progress(1, 1, 'sentence'))\n"
        "    print('rich' in sys.modules, follow.bars, file=sys.stderr)\n"
        "    follow(Progress(0, 2, 'sentence'))\n"
        "    print(follow.bars is not None, file=sys.stderr)\n"
    )
    said = on_a_terminal(code, TERM="dumb").splitlines()
    assert said[0] == "False None" and "True" in said


def test_no_color_is_honoured() -> None:
    said = on_a_terminal(DRIVER, NO_COLOR="1")
    assert "4 of 4" in said
    assert not re.search(r"\x1b\[[\d;]*3\d[;m]", said)


def test_where_stderr_is_no_terminal_only_notes_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    with Follower() as follow:
        for event in (Progress(1, 2), Delta("x"), Warn("look"), Progress(2, 2)):
            follow(event)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "note: look\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_paint_only_on_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert paint("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "red", Terminal()) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert paint("x", "red", Terminal()) == "x"


def test_tables_line_up_and_sizes_are_for_people() -> None:
    assert table([["a", "bcd"], ["ef", "g", "h"]]) == "a   bcd\nef  g    h"
    assert table([]) == ""
    assert [size(n) for n in (0, 999, 1500, 144_000, 14_200_000, 3e9)] == [
        "0 B", "999 B", "1.5 kB", "144 kB", "14.2 MB", "3.0 GB",
    ]  # fmt: skip
