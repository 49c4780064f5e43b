"""Does the path of a text keep anything of the requests that are over?

    python -m benchmarks.serve.engine_memory [--requests 10000]

Requests go through the worker, the writer and its engine, without HTTP and on a network that is next to nothing, 64 at
a time: prompts that begin alike and others, some with several answers, some cancelled on the way. The table shows the
memory of the process and of Python's own objects as the requests go by; both must stay level.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.report import table
from benchmarks.serve.servers import resident
from conjure.decoding.settings import Decoding
from conjure.models.compiled import Compiled
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.position import Rope
from conjure.serve.texts import Ended, Piece, TextWish, Writer
from conjure.serve.worker import Worker

CONFIG = TransformerConfig(vocab=96, dim=32, layers=1, heads=2, hidden=48, rope=Rope(dim=16))
AT_ONCE = 64
LOOKS = 5
"""How often memory is looked at, after the first part of the requests has warmed everything up."""


class Letters:
    """A token is a character."""

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return [min(max(ord(letter) - 32, 0), 95) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(32 + token) for token in ids)

    def token(self, token: int) -> str:
        return chr(32 + token)


def writer(places: int = 32) -> Writer:
    """A writer on a network with random weights."""
    made = Transformer(CONFIG).eval().requires_grad_(False)
    model: Any = SimpleNamespace(
        can={"generate"}, family="toy", network=made, writer=Compiled(made, "fp32"), context=128, vocab=CONFIG.vocab,
        tokenizer=Letters(), end=(), begun=list, decoding=lambda **settings: Decoding(**settings),
    )  # fmt: skip
    return Writer(model, places)


def wish(number: int) -> TextWish:
    """The `number`-th request."""
    begins = "Once upon a time there was " if number % 3 else f"{number} "
    settings = {"tokens": 3 + number % 5, "temperature": 0.8, "logprobs": 2 if number % 4 == 0 else 0}
    return TextWish(prompt=f"{begins}{number % 89}", count=1 + (number % 8 == 0), seed=number, settings=settings)


async def one(worker: Worker, its: Writer, number: int) -> int:
    """One request; the number of answers that came to their end."""

    def work() -> Iterator[Any]:
        return its.write(wish(number))

    ended = 0
    async with aclosing(worker.submit(work, shared=True).events(heartbeat=5.0)) as events:
        async for event in events:
            ended += isinstance(event, Ended)
            if number % 7 == 0 and isinstance(event, Piece):
                break  # a client that goes away
    return ended


async def served(worker: Worker, its: Writer, numbers: range) -> int:
    """All these requests, so many at once as `AT_ONCE`."""
    left = iter(numbers)

    async def client() -> int:
        return sum([await one(worker, its, number) for number in left])

    return sum(await asyncio.gather(*(client() for _ in range(AT_ONCE))))


def measured(requests: int) -> list[tuple[int, int, int, int]]:
    """(requests so far, answers, bytes of the process, bytes of Python's objects), after a warm-up and at each look."""
    worker, its = Worker(queue=AT_ONCE, seconds=600), writer()
    worker.start()
    part, rows, answers = requests // (LOOKS + 1), [], 0
    tracemalloc.start()
    snapshots = []
    for look in range(LOOKS + 1):
        answers += asyncio.run(served(worker, its, range(look * part, (look + 1) * part)))
        gc.collect()
        rows.append(((look + 1) * part, answers, resident(os.getpid()), tracemalloc.get_traced_memory()[0]))
        if look in (0, LOOKS):
            snapshots.append(tracemalloc.take_snapshot())
    tracemalloc.stop()
    worker.stop()
    for line in snapshots[1].compare_to(snapshots[0], "lineno")[:5]:
        if abs(line.size_diff) > 4096:
            print(line)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    torch.manual_seed(0)
    rows = measured(parser.parse_args().requests)
    print(table(["requests", "answers", "process, MB", "Python, kB"],
                [[f"{done:,}", f"{answers:,}", f"{rss / 1e6:.1f}", f"{traced / 1e3:,.0f}"]
                 for done, answers, rss, traced in rows]))  # fmt: skip


if __name__ == "__main__":
    main()
