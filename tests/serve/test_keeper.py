"""Which models are in memory, links to results, and the bounds on what a request may bring."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.core.events import Progress, Result
from conjure.media import encode
from conjure.media.image import Image
from conjure.serve import state
from conjure.serve.errors import ApiError
from conjure.serve.keeper import Keeper
from conjure.serve.settings import Limits, Settings
from conjure.serve.state import Links
from conjure.serve.texts import Ended, Piece, TextWish, Writer
from conjure.serve.worker import Ticket, Worker
from conjure.tasks.make import plan, run
from conjure.tasks.table import Edge
from tests.conftest import write_model
from tests.serve.running import running
from tests.stand_ins import EDGES

DRAW: Edge = next(edge for edge in EDGES if edge.task == "draw")
CHAT, STORY = "starter/chat", "starter/story"


def sized(place: Path, **parameters: int) -> tuple[Path, ...]:
    """Models that say they have so many parameters."""
    for name, count in parameters.items():
        write_model(place / name, task="draw")
        config = json.loads((place / name / "config.json").read_text()) | {"parameters": count}
        (place / name / "config.json").write_text(json.dumps(config))
    return tuple(place / name for name in parameters)


@pytest.fixture
def keeper(tmp_path: Path, workshop: Path) -> Keeper:
    """Room for 12 MB, which is three million parameters."""
    folders = sized(tmp_path / "models", a=10**6, b=10**6, c=10**6, half=500_000, large=2_500_000, huge=5_000_000)
    return Keeper(Settings(models=folders, memory_bytes=12 * 10**6))


def names(keeper: Keeper) -> list[str]:
    return [Path(path).name for path in keeper.held]


def test_what_was_used_longest_ago_makes_room(keeper: Keeper) -> None:
    ready = {name: keeper.ready(DRAW, keeper.path(name)) for name in ("a", "b", "c")}
    assert names(keeper) == ["a", "b", "c"] and set(keeper.held.values()) == {4 * 10**6}
    assert keeper.ready(DRAW, keeper.path("a")) is ready["a"] and names(keeper) == ["b", "c", "a"]
    keeper.ready(DRAW, keeper.path("half"))
    assert names(keeper) == ["c", "a", "half"]
    keeper.ready(DRAW, keeper.path("large"))  # as many go as it takes, and no more
    assert names(keeper) == ["half", "large"] and sum(keeper.held.values()) <= 12 * 10**6
    assert keeper.ready(DRAW, keeper.path("b")) is not ready["b"] and names(keeper) == ["b"]


def test_what_is_larger_than_the_budget_is_refused_and_spoils_nothing(keeper: Keeper) -> None:
    keeper.ready(DRAW, keeper.path("a"))
    with pytest.raises(ConjureError, match="huge takes 19 MiB, the server may use 11") as refused:
        keeper.ready(DRAW, keeper.path("huge"))
    assert "--memory" in (refused.value.hint or "") and names(keeper) == ["a"]


def test_models_are_named_and_never_found_by_their_path(keeper: Keeper, tmp_path: Path) -> None:
    assert keeper.path("a") == str(tmp_path / "models" / "a") and keeper.path("starter/daub") == "starter/daub"
    assert {"a", "huge", "starter/daub"} <= set(keeper.offered())
    for name in (str(tmp_path / "models" / "a"), "models/a", "../models/a", "/etc", "", "."):
        with pytest.raises(ApiError) as unknown:
            keeper.path(name)
        assert unknown.value.status == 404 and unknown.value.code == "model_not_found"
    with pytest.raises(ConjureError, match="no model of language"):
        keeper.writer(keeper.path("a"))


# -- with models that write -------------------------------------------------------------------------------------------


def weight(*models: str) -> int:
    return max(max(4 * info.parameters, info.bytes) for info in map(shelf.info, models))


def wish(prompt: str, tokens: int = 6, seed: int = 3) -> TextWish:
    return TextWish(prompt=prompt, seed=seed, settings={"tokens": tokens, "min_tokens": tokens})


@pytest.fixture(scope="module")
def alone() -> Callable[[str, TextWish], str]:
    """What a model writes with nobody beside it."""
    writers = {name: Keeper(Settings()).writer(name) for name in (CHAT, STORY)}
    return lambda model, asked: text_of(writers[model].write(asked))


def text_of(events: Iterator[Any]) -> str:
    return next(event.made.text for event in events if isinstance(event, Ended))


def test_a_model_at_work_is_not_dropped(alone: Callable[[str, TextWish], str]) -> None:
    keeper = Keeper(Settings(memory_bytes=weight(CHAT, STORY)))
    story = keeper.writer(STORY)
    events = story.write(wish("Once", 12))
    first = [next(events) for _ in range(4)]
    assert any(isinstance(each, Piece) for each in first)
    with pytest.raises(ApiError) as busy:
        keeper.writer(CHAT)
    assert busy.value.status == 503 and busy.value.headers == {"Retry-After": "2"}
    assert keeper.writer(STORY) is story
    assert text_of(events) == alone(STORY, wish("Once", 12))
    assert isinstance(keeper.writer(CHAT), Writer) and list(keeper.held) == [CHAT]
    left = keeper.writer(CHAT).write(wish("What"))
    assert [next(left) for _ in range(2)]
    left.close()  # type: ignore[attr-defined]
    assert keeper.writer(STORY) is not story and list(keeper.held) == [STORY]


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(queue=20, seconds=60)
    made.start()
    yield made
    made.stop()


async def told(ticket: Ticket, log: list[str], name: str) -> Any:
    last: Any = None
    async for last in ticket.events():
        log.append(f"{name}{type(last).__name__}")
    return last


def test_two_models_take_turns_in_the_room_of_one(worker: Worker, alone: Callable[[str, TextWish], str]) -> None:
    keeper = Keeper(Settings(memory_bytes=weight(CHAT, STORY)))

    async def scene() -> None:
        for turn in range(3):
            model, asked = (CHAT, STORY)[turn % 2], wish("Once upon a time", seed=turn)
            ticket = worker.submit(lambda model=model, asked=asked: keeper.writer(model).write(asked), shared=True)
            made = await told(ticket, [], "")
            assert isinstance(made, Ended) and made.made.text == alone(model, asked)
            assert list(keeper.held) == [model]

    asyncio.run(scene())


def test_a_long_text_and_a_picture_go_on_side_by_side(worker: Worker, alone: Callable[[str, TextWish], str]) -> None:
    keeper, log = Keeper(Settings()), list[str]()
    picture = plan("a red apple", to="image", model="starter/pictograms", seed=1, steps=8)
    long = wish("Once", 60)

    def text() -> Iterator[Any]:
        return keeper.writer(STORY).write(long)

    async def scene() -> tuple[Any, Any]:
        tickets = worker.submit(text, shared=True), worker.submit(lambda: run(picture, keeper.ready))
        return await asyncio.gather(told(tickets[0], log, "text"), told(tickets[1], log, "picture"))

    written, drawn = asyncio.run(scene())
    assert isinstance(drawn, Result) and written.made.text == alone(STORY, long)
    steps = [place for place, each in enumerate(log) if each == f"picture{Progress.__name__}"]
    pieces = [place for place, each in enumerate(log) if each == f"text{Piece.__name__}"]
    assert len(steps) == 8 and len(pieces) == 60
    assert pieces[0] < steps[-1] and steps[-1] < pieces[-1]  # neither waits for the end of the other
    between = [sum(a < place < b for place in pieces) for a, b in pairwise(steps)]
    assert max(between) <= 8, between


# -- links and limits -------------------------------------------------------------------------------------------------


def test_links_run_out_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(state, "time", SimpleNamespace(monotonic=lambda: now[0]))
    links = Links(most=2, seconds=10)
    first, second = links.add(b"1", ".png"), links.add(b"2", ".webp")
    assert links.get(first) == (b"1", ".png") and links.get(second) == (b"2", ".webp")
    assert first != second and len(first) >= 32 and first.endswith(".png")
    third = links.add(b"3", ".png")
    assert links.get(first) is None and links.get(second) and links.get(third) and links.get("x.png") is None
    now[0] += 9.9
    assert links.get(second)
    now[0] += 0.1
    assert links.get(second) is None and links.get(third) is None
    assert links.get(links.add(b"4", ".png")) == (b"4", ".png")


@pytest.fixture(scope="module")
def small() -> Iterator[httpx.Client]:
    with running(Settings(limits=Limits(files=2, count=3))) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_more_files_than_allowed_are_refused(small: httpx.Client) -> None:
    picture = encode(Image(np.full((16, 16, 3), 200, np.uint8)), ".png")
    files = [("image[]", (f"{k}.png", picture, "image/png")) for k in range(3)]
    answer = small.post("/v1/images/edits", data={"prompt": "x"}, files=files)
    assert answer.status_code in (400, 413) and "files" in answer.json()["error"]["message"].lower()
    answer = small.post("/v1/images/edits", data={"prompt": "x"}, files=files[:2])
    assert answer.status_code == 400 and "expected one picture" in answer.json()["error"]["message"]


def test_more_results_than_allowed_are_refused(small: httpx.Client) -> None:
    for path, body in (
        ("/v1/images/generations", {"prompt": "a cat", "n": 4}),
        ("/v1/make", {"inputs": ["a cat"], "to": "image", "count": 4}),
    ):
        answer = small.post(path, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "count" and "at most 3" in answer.json()["error"]["message"]
