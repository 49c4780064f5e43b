"""One piece of work for each session of a page, and what stops it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from conjure.core.errors import ConjureError
from conjure.studio.tickets import Tickets


class Cancelled:
    """A ticket that remembers whether it was stopped."""

    def __init__(self) -> None:
        self.times = 0

    def cancel(self) -> None:
        self.times += 1


def asked(session: str) -> Any:
    return SimpleNamespace(session_hash=session)


def test_a_session_does_one_thing_at_a_time() -> None:
    tickets = Tickets("Something is being read: stop it first.")
    with tickets.taken(asked("a")):
        with pytest.raises(ConjureError, match="stop it first"), tickets.taken(asked("a")):
            pass
        with tickets.taken(asked("b")):
            assert tickets.running(asked("a")) and tickets.running(asked("b"))
        assert tickets.running(asked("a")) and not tickets.running(asked("b"))
    assert not tickets.running(asked("a"))


def test_its_place_is_free_after_an_error() -> None:
    tickets = Tickets("busy")
    with pytest.raises(ZeroDivisionError), tickets.taken(asked("a")):
        raise ZeroDivisionError
    assert not tickets.running(asked("a"))


def test_stop_ends_the_work_of_its_own_session() -> None:
    tickets, one, other = Tickets("busy"), Cancelled(), Cancelled()
    tickets.stop(asked("a"))  # nothing runs
    with tickets.taken(asked("a")) as a, tickets.taken(asked("b")) as b:
        tickets.stop(asked("a"))  # still being planned
        tickets.runs(a, one)  # type: ignore[arg-type]
        tickets.runs(b, other)  # type: ignore[arg-type]
        tickets.stop(asked("a"))
    assert (one.times, other.times) == (1, 0)
