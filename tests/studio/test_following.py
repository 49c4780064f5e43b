from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Preview, Progress, Result, Warn
from conjure.media import Text
from conjure.serve.errors import ApiError
from conjure.serve.worker import Waiting
from conjure.studio import following as module
from conjure.studio.following import Stage, following, notice, said, seconds_in_words, status


async def stages(*events: Any) -> list[Stage]:
    async def work() -> AsyncGenerator[Any, None]:
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event

    return [stage async for stage in following(work())]


def run(*events: Any) -> list[Stage]:
    return asyncio.run(stages(*events))


def test_the_stages_of_a_work() -> None:
    done = Result([Text("x")])
    found = run(Waiting(2), Progress(1, 4, "step", "drawing"), Warn("mind"), done)
    assert found[1].words.startswith("Waiting for 2 others")
    assert found[2].words.startswith("Drawing: 1 of 4 steps")
    assert found[2].share == 0.25
    assert found[3].warnings == ("mind",)
    assert found[-1].end is done
    assert found[-1].over
    assert not found[3].over


def test_time_left_follows_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(float(k) for k in range(0, 1000, 4))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    clock = module._Clock()  # 0
    clock.take(Progress(1, 5, "step", "drawing"))  # 4
    assert clock.words() == "Drawing: 1 of 5 steps"
    clock.take(Progress(3, 5, "step", "drawing"))
    assert clock.words() == "Drawing: 3 of 5 steps, about 4 s left"  # 8: 2 steps in 4 s, 2 to go


def test_bytes_are_told_in_megabytes() -> None:
    assert "fetching: 1.5 mb of 3.0 mb" in run(Progress(1_500_000, 3_000_000, "byte", "fetching"))[1].words.lower()


def test_all_that_was_written_is_there_however_often_it_is_shown() -> None:
    found = run(*[Delta("ab")] * 50, Result([Text("x")]))
    assert found[-1].written == "ab" * 50
    assert len(found) < 10


def test_a_preview_is_the_medium() -> None:
    assert str(run(Preview(lambda: Text("so far")))[1].preview) == "so far"


def test_progress_just_before_it_does_not_hide_a_preview() -> None:
    found = run(Progress(1, 4, "step"), Preview(lambda: Text("so far")))
    assert str(found[-2].preview) == "so far"  # and at the end that nothing came


@pytest.mark.parametrize(("error", "words"), [
    (ConjureError("no model", hint="get one"), "no model (get one)"), (ApiError(429, "too many"), "too many"),
])  # fmt: skip
def test_what_goes_wrong_is_a_stage(error: Exception, words: str) -> None:
    found = run(Progress(1, 2), error)
    assert found[-1].error == words == said(error)  # type: ignore[arg-type]
    assert found[-1].over


def test_an_end_without_a_result_is_a_cancelled_work() -> None:
    assert run(Progress(1, 2))[-1].error == "It was cancelled."


def test_who_stops_reading_closes_the_work() -> None:
    closed = []

    async def work() -> AsyncGenerator[Any, None]:
        try:
            while True:
                yield Progress(1, 2)
        finally:
            closed.append(True)

    async def look() -> None:
        async with aclosing(following(work())) as found:
            async for stage in found:
                if stage.share:
                    return

    asyncio.run(look())
    assert closed == [True]


def test_whatever_is_said_is_shown_as_text() -> None:
    bad = "<img src=x onerror=alert(1)>"
    shown = [status(Stage(words=bad, warnings=(bad,))), status(Stage(error=bad)), notice(bad), notice(bad, wrong=True)]
    for each in shown:
        assert "<img" not in each
        assert "&lt;img" in each


def test_a_bar_without_a_share_has_no_value() -> None:
    assert "value=" not in status(Stage(words="Waiting"))
    assert 'value="0.500"' in status(Stage(words="Drawing", share=0.5))
    assert "<progress" not in status(Stage(error="no"))


def test_seconds_in_words() -> None:
    assert [seconds_in_words(each) for each in (0.2, 59, 600, 9000)] == ["1 s", "59 s", "10 min", "2.5 h"]
