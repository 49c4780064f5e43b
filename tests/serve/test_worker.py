from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from conjure.serve.errors import ApiError
from conjure.serve.worker import Alike, Ticket, Waiting, Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(queue=3, seconds=60)
    made.start()
    yield made
    made.stop()


async def all_of(ticket: Ticket) -> list[object]:
    return [event async for event in ticket.events()]


def test_work_is_done_in_order_and_places_are_told(worker: Worker) -> None:
    order: list[str] = []
    go = threading.Event()

    def work(name: str) -> Iterator[str]:
        go.wait(10)
        order.append(name)
        yield name

    async def scene() -> list[list[object]]:
        tickets = [worker.submit(lambda name=name: work(name)) for name in "abc"]
        go.set()
        return list(await asyncio.gather(*map(all_of, tickets)))

    came = asyncio.run(scene())
    assert order == ["a", "b", "c"] and [each[-1] for each in came] == ["a", "b", "c"]
    places = [event.position for event in came[2] if isinstance(event, Waiting)]
    assert places == sorted(places, reverse=True) and places[0] in (1, 2) and places[-1] == 1


def test_shared_work_takes_turns_with_the_rest(worker: Worker) -> None:
    order: list[str] = []
    ready = threading.Event()

    def work(name: str) -> Iterator[str]:
        ready.wait(10)
        for _ in range(4):
            order.append(name)
            yield name

    async def scene() -> None:
        shared = [worker.submit(lambda name=name: work(name), shared=True) for name in "xy"]
        tickets = [worker.submit(lambda: work("long")), *shared]
        ready.set()
        await asyncio.gather(*map(all_of, tickets))

    asyncio.run(scene())
    assert sorted(order) == sorted(["long", "x", "y"] * 4)
    assert {"x", "y", "long"} == set(order[-3:]) or {"x", "y"} <= set(order[:6])


def test_cancelling_closes_what_runs_and_forgets_what_waits(worker: Worker) -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    async def scene() -> int:
        first, second = worker.submit(endless), worker.submit(endless)
        async for event in first.events():
            if event == 1:
                break
        await asyncio.sleep(0)
        second.cancel()
        rest = [event async for event in second.events() if not isinstance(event, Waiting)]
        first.cancel()
        await asyncio.to_thread(closed.wait, 10)
        return len(rest)

    assert asyncio.run(scene()) == 0 and closed.is_set()
    until = threading.Event()
    until.wait(0.2)
    assert worker.load == {"waiting": 0, "running": 0}


def test_errors_reach_the_one_who_asked_and_nobody_else(worker: Worker) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("spilt")

    async def scene() -> None:
        bad, good = worker.submit(broken), worker.submit(lambda: iter([2]))
        with pytest.raises(ValueError, match="spilt"):
            await all_of(bad)
        assert (await all_of(good))[-1] == 2

    asyncio.run(scene())


def test_too_much_and_too_long() -> None:
    worker = Worker(queue=1, seconds=0.05)
    worker.start()

    def slow() -> Iterator[int]:
        while True:
            threading.Event().wait(0.02)
            yield 1

    async def scene() -> None:
        first = worker.submit(slow)
        await asyncio.sleep(0.02)
        waiting = worker.submit(lambda: iter([3]))
        with pytest.raises(ApiError) as full:
            worker.submit(slow)
        assert full.value.status == 429 and full.value.headers == {"Retry-After": "5"}
        with pytest.raises(ApiError) as late:
            await all_of(first)
        assert late.value.status == 504 and (await all_of(waiting))[-1] == 3

    asyncio.run(scene())
    worker.stop()

    async def after() -> None:
        with pytest.raises(ApiError, match="stopping"):
            worker.submit(slow)

    asyncio.run(after())


def test_steps_that_bring_nothing_are_not_told(worker: Worker) -> None:
    async def scene() -> list[object]:
        return await all_of(worker.submit(lambda: iter([None, 1, None, None, 2, None]), shared=True))

    assert asyncio.run(scene()) == [1, 2]


def test_stopping_ends_what_runs_what_waits_and_what_takes_turns() -> None:
    worker, closed = Worker(queue=9, seconds=60), list[str]()
    worker.start()

    def endless(name: str) -> Iterator[str]:
        try:
            while True:
                yield name
        finally:
            closed.append(name)

    async def scene() -> list[list[object]]:
        shared = [worker.submit(lambda name=name: endless(name), shared=True) for name in "xy"]
        alike = [worker.submit(lambda name=name: endless(name), alike=Alike("k")) for name in "ab"]
        waits = worker.submit(lambda: endless("never"))
        begun = [ticket.events() for ticket in (*shared, *alike)]
        for events in begun:
            while isinstance(await anext(events), Waiting):
                pass
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        rest = [[event async for event in events] for events in (*begun, waits.events())]
        await asyncio.to_thread(stopping.join, 10)
        assert not stopping.is_alive() and worker.load == {"waiting": 0, "running": 0}
        return rest

    rest = asyncio.run(scene())
    assert sorted(closed) == ["a", "b", "x", "y"]
    assert not any("never" in events for events in rest)
    worker.stop()  # a second time does no harm


def test_what_is_alike_begins_together_and_the_rest_in_its_turn() -> None:
    worker, began = Worker(queue=20, seconds=60), list[str]()
    worker.start()
    go = threading.Event()

    def work(name: str) -> Iterator[str]:
        go.wait(10)
        for step in range(3):
            began.append(f"{name}{step}")
            yield name

    async def scene() -> None:
        names = {"first": None, "a": Alike(1, 3), "b": Alike(2), "c": Alike(1, 6), "d": Alike(1, 5), "e": None}
        tickets = [worker.submit(lambda name=name: work(name), alike=kind) for name, kind in names.items()]
        go.set()
        await asyncio.gather(*map(all_of, tickets))

    asyncio.run(scene())
    worker.stop()
    order = ["first0", "first1", "first2", "a0", "d0", "a1", "d1", "a2", "d2", "b0", "b1", "b2", "c0", "c1", "c2", "e0"]
    assert began == [*order, "e1", "e2"]
