"""How does the server bear many clients at once, and how do other servers with the same weights?

`load`: 1, 8, 32 and 64 streams at once from a starter and from a llama shape of 125 M random weights. `flat`: ten
thousand requests of all kinds, and whether the memory grows. `peers`: the random weights in float32 behind our server,
`transformers serve` and llama.cpp's server, by turns. Prompts differ; texts are written greedily.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import interleaved, tell
from benchmarks.report import heading, load, ratios, spread, table, verdict
from benchmarks.serve import servers
from benchmarks.serve.clients import Told, answer, crowd, stream
from benchmarks.serve.served import folder, gguf_file, prompt

PACKAGES = ("conjure", "torch", "uvicorn", "fastapi", "transformers")
AGAINST = {"transformers": 3.0, "llama.cpp": 1.0}
"""Our tokens per second at 32 streams by theirs, at least."""
PARTS = ["load", "flat", "peers"]
MIB = 1 << 20


@dataclass
class Crowd:
    """So many streams at once: each round's tokens per second, what came of each stream, and the memory at the end."""

    rates: list[float] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    memory: int = 0

    @property
    def faults(self) -> list[str]:
        return [each.fault for each in self.told if each.fault]

    def first(self, share: float) -> float:
        """Milliseconds to the first text that this share of the streams keeps to."""
        return 1000 * quantile([each.first for each in self.told if not each.fault] or [float("nan")], share)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not go beyond."""
    return sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help="of load, flat, peers (default all)")
    parser.add_argument("--quick", action="store_true", help="toy weights and few requests: does it run at all?")
    parser.add_argument("--streams", default="1,8,32,64", help="at once (default 1,8,32,64)")
    parser.add_argument("--peer-streams", default="1,8,32", help="at once beside peers (default 1,8,32)")
    parser.add_argument("--tokens", type=int, default=64, help="that each stream writes (default 64)")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt (default 64)")
    parser.add_argument("--rounds", type=int, default=3, help="of every number of streams (default 3)")
    parser.add_argument("--requests", type=int, default=10_000, help="of `flat` (default 10000)")
    parser.add_argument("--threads", type=int, default=2, help="of every server (default 2)")
    parser.add_argument("--size", default="125m", choices=["toy", "15m", "125m", "1.1b"], help="(default 125m)")
    parser.add_argument("--starter", default="starter/story", help="(default starter/story)")
    parser.add_argument("--peers", default="transformers,batching,llama.cpp", help="whom to compare with (default all)")
    parser.add_argument("--kinds", default="f32", help="of llama.cpp's weights: f32,bf16,q8_0 (default f32, as ours)")
    parser.add_argument("--llama", default="llama-server", metavar="FILE", help="llama.cpp's server (default on PATH)")
    parser.add_argument("--folder", type=Path, help="where models are written, or lie from last time")
    asked = parser.parse_args(arguments)
    if wrong := set(asked.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(wrong))}")
    if asked.quick:
        asked.size, asked.rounds, asked.tokens, asked.requests = "toy", 1, 8, 60
        asked.streams, asked.peer_streams = "1,4", "1,4"
    return asked


def bodies(asked: argparse.Namespace, model: str, count: int, salt: int) -> list[dict[str, Any]]:
    """What so many streams ask for."""
    plain = {"model": model, "max_tokens": asked.tokens, "temperature": 0}
    return [{**plain, "prompt": prompt(1000 * salt + row, asked.prompt)} for row in range(count)]


def told_of(server: servers.Running, asked: argparse.Namespace, count: int, salt: int, found: Crowd) -> float:
    """One round; its tokens per second."""
    usage = {"stream_options": {"include_usage": True}} if server.program.name == "conjure" else {}
    wanted = [body | usage for body in bodies(asked, server.program.model, count, salt)]
    told, seconds = asyncio.run(crowd(server.port, wanted))
    found.told += told
    found.rates.append(sum(each.tokens for each in told) / seconds)
    found.memory = server.memory
    return found.rates[-1]


# -- load -------------------------------------------------------------------------------------------------------------


def loaded(asked: argparse.Namespace, random: Path) -> Iterator[str]:
    """A table for each model."""
    for model in (asked.starter, random.name):
        with servers.running(servers.conjure([random], model), asked.threads) as server:
            told_of(server, asked, 1, 999, Crowd())  # the model is loaded
            before, rows, faults = server.memory, [], 0
            for count in map(int, asked.streams.split(",")):
                found = Crowd()
                for number in range(asked.rounds):
                    tell(f"{model}: {count} streams, round {number + 1}/{asked.rounds}")
                    told_of(server, asked, count, number, found)
                faults += len(found.faults)
                rows.append([str(count), *cells(found), f"{before / MIB:.0f}", f"{found.memory / MIB:.0f}"])
        header = ["streams", "tokens/s", "first text p50, ms", "p95, ms", "failed", "MiB before", "after"]
        bound = verdict(f"{model}: failures", faults, at_most=0, form="d")
        yield f"### Load: {model}, {load()}\n\n{table(header, rows)}\n\n{bound}\n"


def cells(found: Crowd) -> list[str]:
    for fault in sorted(set(found.faults))[:3]:
        tell(f"failed: {fault}")
    return [spread(found.rates, ".0f"), f"{found.first(0.5):.0f}", f"{found.first(0.95):.0f}", str(len(found.faults))]


# -- flat -------------------------------------------------------------------------------------------------------------


async def any_request(port: int, number: int, starter: str) -> str:
    """The `number`-th of many requests of all kinds; its fault."""
    text = {"model": starter, "prompt": prompt(number, 20), "max_tokens": 4, "seed": number}
    kind = number % 8
    if number % 100 == 99:
        status, _ = await answer(port, "/v1/images/generations", {"prompt": "a red apple", "steps": 1, "seed": number})
        return "" if status == 200 else f"a picture: {status}"
    if kind in (0, 1, 2):
        return (await stream(port, text)).fault
    if kind == 3:
        await stream(port, text | {"max_tokens": 64}, leave=2)  # whoever leaves early is no failure
        return ""
    calls: Mapping[int, tuple[str, Mapping[str, Any] | None, int]] = {
        4: ("/v1/completions", text, 200), 5: ("/v1/embeddings", {"model": starter, "input": text["prompt"]}, 200),
        6: ("/v1/models", None, 200), 7: ("/v1/completions", text | {"colour": 1}, 400),
    }  # fmt: skip
    path, body, wanted = calls[kind]
    status, said = await answer(port, path, body)
    return "" if status == wanted else f"{path}: {status} {said[:200]!r}"


async def many(port: int, numbers: range, starter: str, at_once: int = 8) -> list[str]:
    """The faults of these requests, so many of them at a time."""
    waiting = iter(numbers)

    async def one_after_the_other() -> list[str]:
        return [fault for number in waiting if (fault := await any_request(port, number, starter))]

    found = await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return [fault for some in found for fault in some]


def flat(asked: argparse.Namespace) -> str:
    """Memory by the number of requests."""
    step = max(1, asked.requests // 10)
    with servers.running(servers.conjure([], asked.starter), asked.threads) as server:
        rows, memory, faults = [["0", f"{server.memory / MIB:.0f}", "0"]], [], []
        for begin in range(0, asked.requests, step):
            tell(f"requests {begin} to {begin + step}")
            faults += asyncio.run(many(server.port, range(begin, begin + step), asked.starter))
            memory.append(server.memory)
            rows.append([str(begin + step), f"{memory[-1] / MIB:.0f}", str(len(faults))])
    for fault in sorted(set(faults))[:3]:
        tell(f"failed: {fault}")
    share = max(memory[1:], default=memory[0]) / memory[0]
    claims = [
        verdict(f"memory at its most after {step} requests / after {step}", share, at_most=1.05),
        verdict("failures", len(faults), at_most=0, form="d"),
    ]
    title = f"### {asked.requests:,} requests of all kinds, {load()}\n"
    return "\n".join([title, table(["requests", "MiB", "failed"], rows), "", *claims])


# -- peers ------------------------------------------------------------------------------------------------------------


def programs(asked: argparse.Namespace, random: Path) -> Iterator[servers.Program]:
    """Ours first; those that are not here are told of."""
    yield servers.conjure([random], random.name)
    most = max(map(int, asked.peer_streams.split(",")))
    for name in asked.peers.split(","):
        try:
            if name in ("transformers", "batching"):
                yield servers.transformers(random, batching=name == "batching")
            else:
                binary = servers.found(asked.llama)
                for kind in asked.kinds.split(","):
                    file, room = gguf_file(asked.size, random, kind), asked.prompt + asked.tokens + 32
                    yield servers.llama(binary, file, slots=most, tokens=room, threads=asked.threads)
        except servers.NotThere as reason:
            print(f"not compared: {reason}\n", flush=True)


def peers(asked: argparse.Namespace, random: Path) -> Iterator[str]:
    """A table for each number of streams, and what bounds there are for it. All servers are up, one is at work."""
    with ExitStack() as stack:
        up = {}
        for program in programs(asked, random):
            tell(f"starting {program.name}")
            try:
                server = stack.enter_context(servers.running(program, asked.threads))
                warm = Crowd()
                told_of(server, asked, 1, 999, warm)
                if warm.faults:
                    raise servers.NotThere(f"{program.name}: {warm.faults[0]}")
                up[program.name] = server
            except servers.NotThere as reason:
                print(f"not compared: {reason}\n", flush=True)
        for count in map(int, asked.peer_streams.split(",")):
            found = {name: Crowd() for name in up}
            runs = {name: partial(_round, server, asked, count, found[name]) for name, server in up.items()}
            interleaved(runs, asked.rounds, lambda text, count=count: tell(f"{count} streams: {text}"))
            yield compared(count, found)


def _round(server: servers.Running, asked: argparse.Namespace, count: int, found: Crowd) -> float:
    """The next round, with prompts that no round before it had."""
    return told_of(server, asked, count, len(found.rates), found)


def compared(count: int, found: Mapping[str, Crowd]) -> str:
    rows = [[name, *cells(each), f"{each.memory / MIB:.0f}"] for name, each in found.items()]
    header = [f"{count} streams", "tokens/s", "first text p50, ms", "p95, ms", "failed", "MiB"]
    lines = [table(header, rows), ""]
    for name, each in found.items():
        if name == "conjure" or each.faults or found["conjure"].faults:
            continue
        paired = ratios(found["conjure"].rates, each.rates)
        claim, goal = f"{count} streams: tokens/s / {name}", AGAINST[name.split()[0]] if count == 32 else None
        said = verdict(claim, median(paired), at_least=goal) if goal else f"      {claim}:"
        lines.append(f"{said}  {spread(paired)}")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    asked = parse(arguments)
    facts = {"threads": str(asked.threads), "each stream": f"{asked.prompt} tokens read, {asked.tokens} written",
             "runs": f"{asked.rounds} of each; median (min-max)"}  # fmt: skip
    print(heading("Serving", "serve", arguments, packages=PACKAGES, facts=facts), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        random = folder(asked.size, (asked.folder or Path(temporary)) / f"random-{asked.size}")
        if "load" in asked.parts:
            for said in loaded(asked, random):
                print(said, flush=True)
        if "flat" in asked.parts:
            print(flat(asked), flush=True)
        if "peers" in asked.parts:
            print(f"\n### Peers: {random.name}\n", flush=True)
            for said in peers(asked, random):
                print(said, flush=True)


if __name__ == "__main__":
    main()
