"""How fast is decoding, beside transformers and llama.cpp?

Llama shapes with random weights, one sequence, a prompt of 128 tokens and 256 new ones, greedily. Every program runs in
a process of its own with as many threads; rounds interleave them, and ratios are of runs of the same round. Of the ways
in which transformers can run (fp32 or bf16, dynamic or static cache, compiled or not) a first look finds the fastest,
and the fastest that needs no compiler: what runs in PyTorch alone is compared with both.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.decoders.shapes import BITS, SHAPES, Shape, write, write_gguf
from benchmarks.decoders.work import Work
from benchmarks.processes import interleaved, ran, tell, threads_environment
from benchmarks.report import heading, load, ratios, spread, table, verdict

EQUAL = {"bf16": "bf16", "int8": "q8_0", "int4": "q4_0"}
"""Our weights and llama.cpp's of equal bits."""
AGAINST_TRANSFORMERS = {
    "15m": {"bf16": 5.0, "int8": 5.0, "int4": 5.0},
    "125m": {"bf16": 2.5, "int8": 3.0, "int4": 4.0},
    "1.1b": {"bf16": 2.0, "int4": 4.0},
}
AGAINST_LLAMA = {
    "15m": {"int8": 1.2, "int4": 1.2},
    "125m": {"bf16": 0.95, "int8": 0.95, "int4": 0.85},
    "1.1b": {"bf16": 0.95, "int8": 0.95, "int4": 0.85},
}
WAYS = ("fp32", "bf16", "fp32-static", "bf16-static", "fp32-static-compiled")
"""In which transformers is looked at; compiled ones only where that takes no minutes."""
PACKAGES = ("conjure", "torch", "transformers", "llama-cpp-python")


@dataclass
class Measured:
    """Of one program with one kind of weights: a value a round, tokens per second and bytes."""

    program: str
    variant: str
    decode: list[float] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.program} {self.variant}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a toy shape and one round: does it run at all?")
    parser.add_argument("--sizes", default="15m,125m,1.1b", help="of 15m, 125m, 1.1b (default all)")
    parser.add_argument("--weights", default="fp32,bf16,int8,int4", help="of ours (default fp32,bf16,int8,int4)")
    parser.add_argument("--threads", type=int, default=2, help="of every program (default 2)")
    parser.add_argument("--peers", default="transformers,llama.cpp", help="whom to compare with (default both)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of every program (default 3; 1.1b: at most 2)")
    parser.add_argument("--seconds", type=float, default=8.0, help="after which decoding ends (default 8)")
    parser.add_argument(
        "--folder", type=Path, help="where models are written, or lie from last time (default: temporary)"
    )
    return parser.parse_args(arguments)


def once(program: str, work: Work, limit: float = 300.0) -> dict[str, float] | None:
    """One program in a process of its own; None where it fails or is not done in time."""
    command = [sys.executable, "-m", "benchmarks.decoders", program, json.dumps(asdict(work))]
    quiet = {"CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **threads_environment(work.threads), **quiet}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=True)
    except subprocess.TimeoutExpired:
        tell(f"{program} {work.variant}: not done after {limit:.0f} s")
        return None
    except subprocess.CalledProcessError as failed:
        tell(f"{program} {work.variant}: {failed.stderr.strip()[-600:]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def works(size: str, folder: Path, args: argparse.Namespace) -> dict[tuple[str, str], Work]:
    """What runs in every round, (program, variant) -> its work."""
    plain = Work(str(folder), "", threads=args.threads, seconds=args.seconds, tokens=8 if args.quick else 256)
    found: dict[tuple[str, str], Work] = {}
    for weights in args.weights.split(","):
        found["conjure", f"compiled-{weights}"] = replace(plain, variant=f"compiled-{weights}")
        if weights in ("fp32", "bf16") or importlib.util.find_spec("conjure.nn.quantised"):
            found["conjure", f"torch-{weights}"] = replace(plain, variant=f"torch-{weights}")
        if weights in EQUAL and "llama.cpp" in args.peers:
            path = folder / f"{EQUAL[weights]}.gguf"
            if not path.is_file():
                tell(f"{size}: writing {path.name}")
                write_gguf(SHAPES[size], folder, EQUAL[weights])
            found["llama.cpp", EQUAL[weights]] = replace(plain, folder=str(path), variant=EQUAL[weights])
    if "transformers" in args.peers:
        for best in fastest(size, plain):
            found["transformers", best] = replace(plain, variant=best)
    return found


def fastest(size: str, plain: Work) -> list[str]:
    """The way in which transformers decodes fastest, and the fastest without a compiler where that is another one."""
    rates = {}
    for way in WAYS:
        if "compiled" in way and size == "1.1b":
            continue
        tell(f"{size}: a look at transformers {way}")
        work = replace(plain, variant=way, tokens=min(plain.tokens, 32), seconds=max(plain.seconds, 6.0))
        done = once("transformers", work, limit=150)
        rates[way] = done["decode"] if done else 0.0
    told = ", ".join(f"{way} {rate:.0f}" if rate else f"{way} not done" for way, rate in rates.items())
    print(f"transformers at {size}, a first look, tokens/s: {told}\n")
    ways = sorted(rates, key=lambda way: -rates[way])
    return ways[: 1 + next(n for n, way in enumerate(ways) if "compiled" not in way)]


def measure(size: str, todo: dict[tuple[str, str], Work], rounds: int) -> dict[tuple[str, str], Measured]:
    found = {key: Measured(*key) for key in todo}
    left = [rounds]

    def run(key: tuple[str, str]) -> None:
        done = once(key[0], replace(todo[key], batch=0 if found[key].batch else 10))
        if done is None:
            return
        found[key].batch.append(done["batch"] or found[key].batch[0])
        for name in ("decode", "prefill", "memory"):
            getattr(found[key], name).append(done[name])

    runs: dict[str, Callable[[], None]] = {" ".join(key): partial(run, key) for key in todo}
    interleaved(runs, left[0], lambda text: tell(f"{size}: {text}"))
    return {key: each for key, each in found.items() if len(each.decode) == rounds}


def bandwidth(threads: int) -> float:
    """Bytes per second that a sum over a gigabyte reads; the best of five."""
    code = (
        f"import torch, time; torch.set_num_threads({threads}); x = torch.ones(2**27, dtype=torch.float64); t = []\n"
        "for _ in range(6):\n    b = time.perf_counter(); x.sum(); t.append(time.perf_counter() - b)\n"
        "print(2**30 / min(t))"
    )
    return float(ran([sys.executable, "-c", code], threads_environment(threads) | {"THP_MEM_ALLOC_ENABLE": "1"}).stdout)


def rows(shape: Shape, found: dict[tuple[str, str], Measured], speed: float) -> list[list[str]]:
    lines = []
    for each in found.values():
        limit = speed / (shape.read * BITS[each.variant.split("-")[1 if each.program == "conjure" else 0]] / 8)
        lines.append([
            each.name, spread(each.decode, ".0f"), f"{limit:.0f}", f"{median(each.decode) / limit:.0%}",
            spread(each.prefill, ".0f"), spread([m / 2**20 for m in each.memory], ".0f"), f"{median(each.batch):.0f}",
        ])  # fmt: skip
    return lines


def compared(size: str, found: dict[tuple[str, str], Measured]) -> list[str]:
    """A line for each bound of this size."""
    peers = [m for key, m in found.items() if key[0] == "transformers"]  # the fastest of all first
    theirs = peers[0] if peers else None
    lines = []
    for weights in ("fp32", "bf16", "int8", "int4"):
        ours, torch_ = found.get(("conjure", f"compiled-{weights}")), found.get(("conjure", f"torch-{weights}"))
        llama = found.get(("llama.cpp", EQUAL.get(weights, "")))
        goal, equal = AGAINST_TRANSFORMERS.get(size, {}).get(weights), AGAINST_LLAMA.get(size, {}).get(weights)
        if ours and theirs:
            lines += said(f"{size} {weights} decode / {theirs.name}", ours.decode, theirs.decode, goal)
            lines += said(f"{size} {weights} prefill / {theirs.name}", ours.prefill, theirs.prefill, 1.0)
            if min(theirs.batch) > 0:  # compiled for one row, it is not done in time for ten
                lines += said(f"{size} {weights} batch of ten / {theirs.name}", ours.batch, theirs.batch, 2.0)
            share = median(ours.memory) / median(theirs.memory)
            lines.append(verdict(f"{size} {weights} peak memory / {theirs.name}", share, at_most=1.0))
        for peer in peers if torch_ else []:
            note = "" if "compiled" in peer.variant else ", the best without a compiler"
            claim = f"{size} {weights} decode in PyTorch / {peer.name}{note}"
            lines += said(claim, torch_.decode, peer.decode, goal and goal / 2)
        if ours and llama:
            lines += said(f"{size} {weights} decode / {llama.name}", ours.decode, llama.decode, equal)
            lines += said(f"{size} {weights} prefill / {llama.name}", ours.prefill, llama.prefill, 1.0)
            lines.append(
                f"      {size} {weights} peak memory / {llama.name}: {median(ours.memory) / median(llama.memory):.2f}"
            )
    return lines


def said(claim: str, ours: list[float], theirs: list[float], goal: float | None) -> list[str]:
    paired = ratios(ours, theirs)
    if goal is None:
        return [f"      {claim}: {spread(paired)}"]
    return [f"{verdict(claim, median(paired), at_least=goal)}  {spread(paired)}"]


def first_token(size: str, todo: dict[tuple[str, str], Work], rounds: int) -> list[str]:
    """From the shell prompt to the first token of a prompt of 128 ids."""
    chosen = [key for key in todo if key[0] != "conjure" or key[1] in ("compiled-int8", "compiled-bf16")]

    def run(key: tuple[str, str]) -> float:
        began = time.perf_counter()
        once(key[0], replace(todo[key], only_first=True, tokens=1))
        return time.perf_counter() - began

    runs: dict[str, Callable[[], float]] = {" ".join(key): partial(run, key) for key in chosen}
    times = interleaved(runs, rounds, lambda text: tell(f"{size}: first token, {text}"))
    lines = [
        f"      {size} from the shell to the first token, {name}: {spread(taken)} s" for name, taken in times.items()
    ]
    ours = times.get("conjure compiled-int8") or times.get("conjure compiled-bf16")
    theirs = next((taken for name, taken in times.items() if name.startswith("transformers")), None)
    if ours and theirs:
        share = median(ratios(ours, theirs))
        lines.append(verdict(f"{size} from the shell to the first token / transformers", share, at_most=0.5))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    sizes = ["toy"] if args.quick else args.sizes.split(",")
    rounds = 1 if args.quick else args.rounds
    speed = bandwidth(args.threads)
    facts = {"threads": str(args.threads), "memory read": f"{speed / 1e9:.1f} GB/s"}
    print(heading("Decoding", "text", arguments, packages=PACKAGES, facts=facts))
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            folder = (args.folder or Path(temporary)) / size
            if not (folder / "model.safetensors").is_file():
                tell(f"{size}: writing weights")
                write(SHAPES[size], folder)
            todo = works(size, folder, args)
            found = measure(size, todo, min(rounds, 2) if size == "1.1b" else rounds)
            header = [
                "program, weights",
                "tokens/s",
                "limit",
                "of it",
                "prefill tokens/s",
                "peak MiB",
                "ten rows tokens/s",
            ]
            print(f"### {size}: {SHAPES[size].parameters / 1e6:.0f} M parameters, {load()}\n")
            print(table(header, rows(SHAPES[size], found, speed)) + "\n")
            print("\n".join(compared(size, found)))
            if size in ("toy", "125m"):
                print("\n".join(first_token(size, todo, rounds)))
            print(flush=True)


if __name__ == "__main__":
    main()
