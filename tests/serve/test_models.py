from __future__ import annotations

import pytest

from conjure.core import shelf
from conjure.serve import keeper as keeping
from conjure.serve.errors import ApiError
from conjure.serve.keeper import Keeper
from conjure.serve.settings import Settings


def test_the_disk_is_looked_at_now_and_then_and_when_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, now, there = 0, 100.0, shelf.installed()

    def installed() -> list[shelf.ModelInfo]:
        nonlocal looks
        looks += 1
        return there

    monkeypatch.setattr(shelf, "installed", installed)
    monkeypatch.setattr("conjure.serve.keeper.time.monotonic", lambda: now)
    keeper = Keeper(Settings())
    for _ in range(3):
        assert keeper.path("starter/chat") == "starter/chat" and keeper.offered()
        with pytest.raises(ApiError):
            keeper.path("no/such")
    assert looks == 1
    now += keeping.FRESH
    keeper.offered()
    assert looks == 2
    there = [each for each in there if each.name != "starter/chat"]
    keeper.changed()
    with pytest.raises(ApiError):
        keeper.path("starter/chat")
