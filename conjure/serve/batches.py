"""Pictures of several clients from one batch of the network.

    ticket = worker.submit(lambda: batches.run(planned), alike=alike(planned))

Plans that differ in nothing but inputs and seeds are `alike`; the worker begins those of them together that wait. Each
draws its own events from `run`, and whoever does carries on all. A picture is the same alone and in a batch, up to the
rounding of the network. Only tasks that can draw `Together` take part; of any other plan `run` is what `make.run` is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakValueDictionary

from conjure.core.config import to_dict
from conjure.core.events import Event, Result
from conjure.core.protocol import Generative
from conjure.serve.worker import Alike
from conjure.tasks import make
from conjure.tasks.make import Plan
from conjure.tasks.table import Edge, resolve

Asked = tuple[Sequence[Any], Sequence[int]]
"""Inputs and seeds."""


class Together(Generative, Protocol):
    """A task that can draw what several ask for at once."""

    def together(self, asked: Sequence[Asked], options: Any) -> Iterator[tuple[int, Event]]:
        """What `generate` yields for each of them, with the number of whom it is for; `Result` is the last of each."""
        ...


def alike(planned: Plan) -> Alike | None:
    """What a plan has in common with those it may go with; None for those that go alone."""
    edge = planned.edges[-1]
    if len(planned.edges) > 1 or not hasattr(resolve(edge), "together"):
        return None
    return Alike((edge, planned.models[-1], repr(to_dict(planned.options))), len(planned.seeds))


class Batches:
    """Gives the events of plans, those that are alike and begun together from one batch. `ready` loads a task; all of
    it happens in the worker's thread."""

    def __init__(self, ready: Callable[[Edge, str], Generative]) -> None:
        self._ready = ready
        self._gathering: WeakValueDictionary[Hashable, Batch] = WeakValueDictionary()

    def run(self, planned: Plan) -> Iterator[Event | None]:
        """What `make.run` yields, and None before it: until all are there that come along."""
        its = alike(planned)
        if its is None:
            yield from make.run(planned, self._ready)
            return
        batch = self._gathering.get(its.key)
        if batch is None or batch.begun:
            task: Any = self._ready(planned.edges[-1], planned.models[-1])
            batch = self._gathering[its.key] = Batch(task, planned.options)
        yield from batch.events([each.medium for each in planned.inputs], planned.seeds)


@dataclass(eq=False)
class _Place:
    asked: Asked
    came: deque[Event] = field(default_factory=deque)


class Batch:
    """Those who wait for one batch. It begins when the first of them comes for an event; whoever leaves before is not
    drawn, whoever leaves later costs what is left of the batch. What goes wrong goes wrong for all: each is then drawn
    alone, and meets the error that is its own."""

    def __init__(self, task: Together, options: Any) -> None:
        self._task, self._options = task, options
        self._places: list[_Place] = []
        self._drawn: list[_Place] = []
        self._events: Iterator[tuple[int, Event]] | None = None
        self.begun = False

    def events(self, inputs: Sequence[Any], seeds: Sequence[int]) -> Iterator[Event | None]:
        """The events of one of them, `Result` last."""
        place = _Place((inputs, seeds))
        self._places.append(place)
        try:
            yield None
            while self._goes_on(place):
                event = place.came.popleft()
                yield event
                if isinstance(event, Result):
                    return
            yield from self._task.generate(list(inputs), self._options, list(seeds))
        finally:
            self._places.remove(place)
            if not self._places:
                self._events = None

    def _goes_on(self, place: _Place) -> bool:
        """Sees to it that something has come for one of them; False where it is to be drawn alone."""
        if not self.begun:
            self.begun, self._drawn = True, list(self._places)
            if len(self._drawn) > 1:
                self._events = self._task.together([each.asked for each in self._drawn], self._options)
        while not place.came and self._events is not None:
            try:
                number, event = next(self._events)
            except Exception:  # noqa: BLE001  whosever fault it is meets it again, alone
                self._events = None
                break
            if self._drawn[number] in self._places:
                self._drawn[number].came.append(event)
        return bool(place.came)
