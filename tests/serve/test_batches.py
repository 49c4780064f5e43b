"""Pictures of several clients from one batch, each as if it were drawn alone."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.media.image import decode
from conjure.serve.batches import Batches, alike
from conjure.serve.settings import Settings
from conjure.serve.worker import TOGETHER, Ticket, Waiting, Worker
from conjure.tasks.make import Plan, plan
from conjure.tasks.table import Edge, resolve
from conjure.tasks.text_to_image import TextToImage
from tests.serve.running import running
from tests.tasks.painters import painter

TEXTS = ("a red box", "a blue leaf", "two leaves above a box", "a green box")


class Watched:
    """A painter that tells how many prompts and pictures were in each of its batches, and waits where it is told to."""

    def __init__(self, folder: Path) -> None:
        self.task, self.batches = TextToImage.load(folder), []
        self.evaluate_published = self.task.evaluate_published
        self.go, self.steps = threading.Event(), 0
        self.ended = threading.Event()
        self.go.set()

    def generate(self, inputs: Sequence[Any], options: Any, seeds: Sequence[int]) -> Iterator[Event]:
        for _, event in self.together([(inputs, seeds)], options):
            yield event

    def together(self, asked: Sequence[Any], options: Any) -> Iterator[tuple[int, Event]]:
        self.batches.append([len(seeds) for _, seeds in asked])
        self.ended.clear()
        try:
            for event in self.task.together(asked, options):
                assert self.go.wait(20)
                self.steps += 1
                yield event
        finally:
            self.ended.set()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painter(tmp_path_factory.mktemp("painter"))


@pytest.fixture
def task(folder: Path) -> Watched:
    return Watched(folder)


@pytest.fixture
def served(task: Watched) -> Iterator[SimpleNamespace]:
    """A worker that is busy until `free` is set, and what hands plans to it."""
    worker, batches, free = Worker(queue=20, seconds=60), Batches(lambda edge, model: task), threading.Event()
    worker.start()

    def busy() -> Iterator[int]:
        assert free.wait(20)
        yield 1

    def ticket(planned: Plan) -> Ticket:
        return worker.submit(lambda: batches.run(planned), alike=alike(planned))

    yield SimpleNamespace(worker=worker, free=free, ticket=ticket, busy=busy)
    free.set()
    worker.stop()


@pytest.fixture
def wish(folder: Path) -> Callable[..., Plan]:
    def of(text: str, steps: int = 3, **more: Any) -> Plan:
        return plan(text, to="image", model=str(folder), steps=steps, **more)

    return of


async def all_of(ticket: Ticket) -> list[Any]:
    async with aclosing(ticket.events()) as events:
        return [event async for event in events if not isinstance(event, Waiting)]


async def drawing(ticket: Ticket) -> None:
    """Until its picture is begun."""
    async with aclosing(ticket.events()) as events:
        async for event in events:
            if isinstance(event, Progress):
                return


def drawn(served: SimpleNamespace, plans: Sequence[Plan]) -> list[list[Any]]:
    async def scene() -> list[list[Any]]:
        first = served.worker.submit(served.busy)
        tickets = [served.ticket(each) for each in plans]
        served.free.set()
        return (await asyncio.gather(all_of(first), *map(all_of, tickets)))[1:]

    return asyncio.run(scene())


def alone_of(task: Watched, planned: Plan) -> list[Any]:
    given: Any = planned.inputs[0].medium
    return list(task.task.generate([given], planned.options, planned.seeds))


def pixels(events: Sequence[Any]) -> np.ndarray:
    assert isinstance(events[-1], Result)
    return np.stack([each.pixels.astype(int) for each in events[-1].media])  # type: ignore[attr-defined]


def test_each_gets_the_events_and_the_picture_it_would_get_alone(
    served: SimpleNamespace, task: Watched, wish: Callable[..., Plan]
) -> None:
    plans = [wish("a red box", seed=3), wish("a zebra", seed=9, count=2), wish("two leaves above a box", seed=3)]
    came = drawn(served, plans)
    assert task.batches == [[1, 2, 1]]
    for planned, events in zip(plans, came, strict=True):
        alone = alone_of(task, planned)
        assert [type(each) for each in events] == [type(each) for each in alone]
        plain = [each for each in events if isinstance(each, Progress | Warn)]
        assert plain == [each for each in alone if isinstance(each, Progress | Warn)]
        looks = [[np.asarray(e.medium.pixels, int) for e in of if isinstance(e, Preview)] for of in (events, alone)]  # type: ignore[attr-defined]
        assert len(looks[0]) == 2
        assert max(np.abs(a - b).max() for a, b in zip(*looks, strict=True)) <= 1
        assert np.abs(pixels(events) - pixels(alone)).max() <= 1 and len(pixels(events)) == len(planned.seeds)
    assert any(isinstance(each, Warn) for each in came[1]) and not any(isinstance(each, Warn) for each in came[0])
    assert np.abs(pixels(came[0]) - pixels(came[2])).max() > 30


def test_only_what_differs_in_nothing_else_goes_together(wish: Callable[..., Plan], folder: Path) -> None:
    first = alike(wish("a red box", seed=1))
    assert first is not None and first == alike(wish("a blue leaf", seed=7)) and first.size == 1
    assert alike(wish("a red box", count=3)).size == 3  # type: ignore[union-attr]
    for other in (wish("a red box", steps=4), wish("a red box", sampler="heun"), wish("a red box", size=32)):
        its = alike(other)
        assert its is not None and its.key != first.key
    assert alike(plan("a red box", to="text")) is None
    assert not hasattr(resolve(Edge(("text",), "text", "chat", "conjure.tasks.chat:Chat", "", "")), "together")


def test_a_batch_has_a_bound_and_the_rest_comes_next(
    served: SimpleNamespace, task: Watched, wish: Callable[..., Plan]
) -> None:
    counts = [1, 4, 4, 2, 1]
    came = drawn(served, [wish("a red box", seed=5 * k, count=n) for k, n in enumerate(counts)])
    assert task.batches == [[1, 4, 2, 1], [4]] and TOGETHER == 8
    assert [len(pixels(each)) for each in came] == counts
    huge = [wish("a red box", count=TOGETHER + 1, seed=0), wish("a leaf", seed=0)]
    assert [len(pixels(each)) for each in drawn(served, huge)] == [TOGETHER + 1, 1]
    assert task.batches[2:] == [[TOGETHER + 1], [1]]


def test_others_keep_their_order_and_are_told_their_places(
    served: SimpleNamespace, task: Watched, wish: Callable[..., Plan]
) -> None:
    ended: list[str] = []

    async def watched(name: str, ticket: Ticket) -> list[int]:
        places = [event.position async for event in ticket.events() if isinstance(event, Waiting)]
        ended.append(name)
        return places

    async def scene() -> list[list[int]]:
        served.worker.submit(served.busy)
        kinds = {"a1": 3, "b1": 4, "a2": 3, "b2": 4}
        tickets = [watched(name, served.ticket(wish("a red box", seed=1, steps=n))) for name, n in kinds.items()]
        served.free.set()
        return list(await asyncio.gather(*tickets))

    places = asyncio.run(scene())
    assert set(ended[:2]) == {"a1", "a2"} and task.batches == [[1, 1], [1, 1]]
    assert [each[0] for each in places] == [1, 2, 3, 4] and places[3][-1] == 2


def test_who_goes_away_harms_nobody(served: SimpleNamespace, task: Watched, wish: Callable[..., Plan]) -> None:
    plans = [wish(text, seed=2) for text in ("a red box", "a blue leaf", "a green box", "a red leaf")]
    alone = [pixels(alone_of(task, planned)) for planned in plans]

    async def scene() -> list[list[Any]]:
        served.worker.submit(served.busy)
        tickets = [served.ticket(each) for each in plans]
        tickets[0].cancel()  # while it waits
        served.free.set()
        await drawing(tickets[1])  # and leaves it
        return list(await asyncio.gather(*map(all_of, tickets[2:])))

    came = asyncio.run(scene())
    assert task.batches == [[1, 1, 1]]
    for events, wanted in zip(came, alone[2:], strict=True):
        assert np.abs(pixels(events) - wanted).max() <= 1


def test_where_all_go_away_the_batch_ends(served: SimpleNamespace, task: Watched, wish: Callable[..., Plan]) -> None:
    async def scene() -> None:
        served.worker.submit(served.busy)
        tickets = [served.ticket(wish("a red box", seed=k, steps=900)) for k in range(3)]
        served.free.set()
        await drawing(tickets[0])
        for ticket in tickets:
            ticket.cancel()
        assert await asyncio.to_thread(task.ended.wait, 10)
        while served.worker.load != {"waiting": 0, "running": 0}:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(scene(), 30))
    assert task.steps < 900


def test_a_fault_of_one_is_nobody_elses(
    served: SimpleNamespace, task: Watched, wish: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = task.together

    def picky(asked: Sequence[Any], options: Any) -> Iterator[tuple[int, Event]]:
        yield from together(asked, options)
        if any("green" in text.text for inputs, _ in asked for text in inputs):
            raise ConjureError("no green")

    monkeypatch.setattr(task, "together", lambda *given: results_of(picky(*given)))

    async def scene() -> list[Any]:
        served.worker.submit(served.busy)
        texts = ("a red box", "a green box", "a blue box")
        tickets = [served.ticket(wish(text, seed=1)) for text in texts]
        served.free.set()
        return list(await asyncio.gather(*map(all_of, tickets), return_exceptions=True))

    first, green, last = asyncio.run(scene())
    assert isinstance(green, ConjureError) and green.message == "no green"
    assert len(pixels(first)) == len(pixels(last)) == 1
    assert task.batches == [[1, 1, 1], [1], [1], [1]]


def results_of(events: Iterator[tuple[int, Event]]) -> Iterator[tuple[int, Event]]:
    """The results alone, once everything has gone well."""
    kept = [pair for pair in events if isinstance(pair[1], Result)]
    yield from kept


def test_a_batch_that_fails_on_the_way_is_drawn_again_one_by_one(
    served: SimpleNamespace, task: Watched, wish: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = task.together

    def short(asked: Sequence[Any], options: Any) -> Iterator[tuple[int, Event]]:
        for place, event in enumerate(together(asked, options)):
            if len(asked) > 1 and place == 3:
                raise MemoryError
            yield event

    monkeypatch.setattr(task, "together", short)
    came = drawn(served, [wish("a red box", seed=1), wish("a blue leaf", seed=2)])
    assert task.batches == [[1, 1], [1], [1]] and all(len(pixels(each)) == 1 for each in came)


def test_requests_of_several_clients_are_drawn_in_one_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP: while the first picture is drawn the others wait, and then go together."""
    batches, waiting = list[int](), threading.Event()
    together = TextToImage.together

    def watched(self: TextToImage, asked: Sequence[Any], options: Any) -> Iterator[tuple[int, Event]]:
        batches.append(len(asked))
        for event in together(self, asked, options):
            assert waiting.wait(30)
            yield event

    def draw(client: httpx.Client, text: str) -> np.ndarray:
        body = {"prompt": text, "model": "painter", "seed": 5, "steps": 3}
        data = client.post("/v1/images/generations", json=body).json()["data"][0]["b64_json"]
        return decode(base64.b64decode(data), "answer").pixels.astype(int)

    with running(Settings(models=(folder,))) as url, httpx.Client(base_url=url, timeout=60) as client:
        waiting.set()
        alone = [draw(client, text) for text in TEXTS]
        waiting.clear()
        monkeypatch.setattr(TextToImage, "together", watched)
        with ThreadPoolExecutor(4) as clients:
            first = clients.submit(draw, client, TEXTS[0])
            while client.get("/health").json()["running"] < 1:
                pass
            rest = [clients.submit(draw, client, text) for text in TEXTS[1:]]
            while client.get("/health").json()["waiting"] < len(rest):
                pass
            waiting.set()
            came = [each.result() for each in (first, *rest)]
    assert batches == [1, len(TEXTS) - 1]
    assert max(np.abs(a - b).max() for a, b in zip(came, alone, strict=True)) <= 1
