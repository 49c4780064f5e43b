"""How fast does a CPU hear, beside transformers and faster-whisper?

Whispers of three published sizes with random weights, 30 s of sound and 13 minutes (26 parts of 30 s; 8 for the size
small), a fixed number of tokens written about each part, greedily: features, encoder and writing, in float32 and with
eight-bit weights. Of faster-whisper that is its feature extractor and the Whisper of CTranslate2, asked for the same as
the others. Each program lives in a process of its own and is asked by turns; ratios are of one round. Beside the clock
stand seconds of CPU: on a busy machine they say more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from benchmarks.processes import interleaved, ran, tell, threads_environment
from benchmarks.report import heading, load, ratios, spread, table, verdict
from benchmarks.sound.work import CHUNK, Work

PARTS, BATCH = {"tiny": 26, "base": 26, "small": 8}, 8
"""Of the long sound; of the largest model that takes long enough in four minutes of it."""
FASTER, BESIDE, BATCHED = 3.0, 0.9, 1.0
SIZES = ("tiny", "base", "small")
WHAT = ("mel", "short", "long")
PACKAGES = ("conjure", "torch", "transformers", "ctranslate2", "faster-whisper", "librosa")
NEEDED = {"ctranslate2": "faster_whisper", "librosa": "librosa"}
STAGES = ("features", "encoder", "writing")


@dataclass
class Measured:
    """Of one program: a value a round, and bytes of the largest memory it has had."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    memory: int = 0
    ids: list[list[int]] = field(default_factory=list)

    def add(self, done: Mapping[str, Any]) -> None:
        self.seconds.append(done["seconds"])
        self.cpu.append(done["cpu"])
        for name, took in done.get("stages", {}).items():
            self.stages.setdefault(name, []).append(took)
        self.memory, self.ids = int(done["memory"]), done.get("ids", [])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sound", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a toy size, one round: does it run at all?")
    parser.add_argument("--only", default=",".join((*WHAT, *SIZES)),
                        help=f"of {','.join((*WHAT, *SIZES))}: what, and in which sizes (default all)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (default 3; long sound: 1)")
    parser.add_argument("--threads", type=int, default=2, help="of every program (default 2)")
    parser.add_argument("--parts", type=int, help="of the long sound (default 26, 13 minutes; 8 for small)")
    parser.add_argument("--folder", type=Path, help="where weights are written, or lie from last time (default: "
                        "temporary; 2.3 GB)")  # fmt: skip
    args = parser.parse_args(arguments)
    named = args.only.split(",")
    if unknown := set(named) - {*WHAT, *SIZES}:
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join((*WHAT, *SIZES))}")
    args.what = [each for each in WHAT if each in named] or list(WHAT)
    args.sizes = ["toy"] if args.quick else [each for each in SIZES if each in named] or list(SIZES)
    return args


class Hearer:
    """A process that holds a network and runs it when it is asked."""

    def __init__(self, work: Work) -> None:
        quiet = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        environment = {**os.environ, **threads_environment(work.threads), **quiet}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sound.worker", json.dumps(asdict(work))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()

    def run(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit("a program ended before it answered: what it said stands above")

    def __enter__(self) -> Hearer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def works(folder: Path, size: str, what: str, args: argparse.Namespace) -> dict[str, Work]:
    """Name -> what a program has to do."""
    many = what == "long" and not args.quick
    wanted = args.parts or PARTS.get(size, 3)
    parts, batch = (wanted, BATCH) if many else (3, 2) if what == "long" else (1, 1)
    same = {"folder": str(folder), "size": size, "parts": parts, "threads": args.threads,
            "tokens": 8 if args.quick else 112}  # fmt: skip
    found = {}
    if what == "mel":
        same["parts"] = wanted
        found = {name: Work(program=name, mel=True, **same)
                 for name in ("conjure", "transformers", "ctranslate2", "librosa")}  # fmt: skip
    else:
        for weights in ("fp32", "int8"):
            found[f"conjure {weights}"] = Work(program="conjure", weights=weights, batch=batch, **same)
            found[f"faster-whisper {weights}"] = Work(program="ctranslate2", weights=weights, batch=batch, **same)
            if batch > 1 and size in ("toy", "tiny"):  # what its batches are worth, shown once
                found[f"faster-whisper {weights}, part by part"] = Work(program="ctranslate2", weights=weights, **same)
        found["transformers fp32"] = Work(program="transformers", batch=batch, **same)
    return {name: work for name, work in found.items() if find_spec(NEEDED.get(work.program, "torch"))}


def measure(todo: Mapping[str, Work], rounds: int, warm: bool) -> dict[str, Measured]:
    """All programs by turns; where they are `warm`, a first run of each is not counted."""
    found = {name: Measured() for name in todo}
    with ExitStack() as stack:
        hearers = {name: stack.enter_context(Hearer(work)) for name, work in todo.items()}
        for hearer in hearers.values() if warm else ():
            hearer.run()
        runs = {name: partial(hearer.run) for name, hearer in hearers.items()}
        for name, done in interleaved(runs, rounds, tell).items():
            for each in done:
                found[name].add(each)
            if {len(row) for row in found[name].ids} - {todo[name].tokens}:
                raise SystemExit(f"{name}: expected {todo[name].tokens} tokens about each part, it wrote others")
    return found


def alike(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> float:
    """Which share of the tokens stands before two texts, of each pair of them, part."""
    same = 0
    for a, b in zip(first, second, strict=True):
        same += next((at for at, pair in enumerate(zip(a, b, strict=True)) if pair[0] != pair[1]), len(a))
    return same / max(1, sum(map(len, second)))


def hearing_result(name: str, found: Mapping[str, Measured], seconds: float, batched: bool) -> str:
    """A table, and a line for each bound."""
    rows = []
    for program, own in found.items():
        parts = [spread(own.stages[stage]) for stage in STAGES]
        rows.append([program, spread(own.seconds), *parts, spread(own.cpu), f"{seconds / median(own.seconds):.0f}",
                     f"{own.memory / 2**20:.0f}"])  # fmt: skip
    lines = [table(["program", "s", *STAGES, "CPU s", "times real time", "peak MiB"], rows), ""]
    for weights in ("fp32", "int8"):
        ours = found[f"conjure {weights}"]
        for other, bound in (
            ("transformers fp32", FASTER), (f"faster-whisper {weights}", BATCHED if batched else BESIDE),
            (f"faster-whisper {weights}, part by part", BESIDE),
        ):  # fmt: skip
            if other in found:
                faster = ratios(found[other].seconds, ours.seconds)
                cheaper = ratios(found[other].cpu, ours.cpu)
                claim = f"{name}, {weights}: speed / {other}"
                lines += [f"{verdict(claim, median(faster), at_least=bound)}  {spread(faster)}; CPU {spread(cheaper)}"]
        if (beside := found.get(f"faster-whisper {weights}")) is not None:
            lines.append(f"      {name}, {weights}: memory / faster-whisper: {ours.memory / beside.memory:.2f}, tokens "
                         f"alike: {alike(ours.ids, beside.ids):.0%}")  # fmt: skip
    ours, theirs = found["conjure fp32"], found["transformers fp32"]
    lines += [f"      {name}: tokens as those of transformers, fp32: {alike(ours.ids, theirs.ids):.0%}", ""]
    return "\n".join(lines)


def mel_result(found: Mapping[str, Measured], seconds: float) -> str:
    rows = [[name, spread(own.seconds, ".3f"), spread(own.cpu, ".3f"), f"{seconds / median(own.seconds):.0f}"]
            for name, own in found.items()]  # fmt: skip
    lines = [table(["program", "s", "CPU s", "times real time"], rows), ""]
    for name, own in found.items():
        if name != "conjure":
            faster = ratios(own.seconds, found["conjure"].seconds)
            lines.append(f"{verdict(f'spectrogram: speed / {name}', median(faster), at_least=1)}  {spread(faster)}")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    facts = {"threads": str(args.threads)}
    if missing := [name for name in NEEDED.values() if not find_spec(name)]:
        facts["not installed, so not beside"] = ", ".join(missing)
    print(heading("Hearing", "sound", arguments, packages=PACKAGES, facts=facts))
    with tempfile.TemporaryDirectory() as temporary:
        for size in args.sizes:
            folder = (args.folder or Path(temporary)) / size
            ran([sys.executable, "-W", "ignore", "-m", "benchmarks.sound.shapes", str(folder.parent), size])
            for what in args.what:
                if what == "mel" and size != args.sizes[0]:
                    continue
                todo = works(folder, size, what, args)
                work = next(iter(todo.values()))
                title = "log-mel spectrogram" if what == "mel" else f"Whisper {size}, {work.tokens} tokens a part"
                print(f"### {title}, {work.seconds} s in {work.parts} parts, {work.batch} together; {load()}\n")
                long = what == "long" and not args.quick
                found = measure(todo, 1 if args.quick or long else args.rounds, warm=not long)
                if what == "mel":
                    print(mel_result(found, work.seconds), flush=True)
                else:
                    name = f"{size}, {work.parts * CHUNK[size]} s"
                    print(hearing_result(name, found, work.seconds, work.batch > 1), flush=True)


if __name__ == "__main__":
    main()
