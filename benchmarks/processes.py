"""Running programs to measure them: each in a process of its own, taking turns."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Ended:
    """A finished process: what it wrote, seconds by the clock and of CPU (all its threads, system included)."""

    stdout: str
    wall: float
    cpu: float


def ran(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Ended:
    """Runs a command to its end; one that fails ends the benchmark with what it wrote on stderr."""
    child = {**os.environ, **(environment or {})}
    child.pop("PYTHONDONTWRITEBYTECODE", None)  # what people install lies there compiled
    before, began = children_cpu(), time.perf_counter()
    done = subprocess.run(list(command), capture_output=True, text=True, check=False, env=child)
    wall = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-4000:]}")
    return Ended(done.stdout, wall, children_cpu() - before)


def children_cpu() -> float:
    """Seconds of CPU of all the processes started from here that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def peak_memory() -> int:
    """Bytes of the largest resident set this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def interleaved(
    runs: Mapping[str, Callable[[], T]], rounds: int, tell: Callable[[str], None] | None = None
) -> dict[str, list[T]]:
    """Every run once per round, each round beginning with another one; name -> results by round.

    So a slow minute of the machine, or a warm one, falls on all alike, and results of one round are pairs.
    """
    names, results = list(runs), {name: [] for name in runs}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if tell is not None:
                tell(f"round {number + 1}/{rounds}: {name}")
            results[name].append(runs[name]())
    return results


def tell(text: str) -> None:
    """One line of progress on stderr; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def threads_environment(threads: int) -> dict[str, str]:
    """What makes a child compute with so many threads, whichever library does it."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: str(threads) for name in names} | {"TOKENIZERS_PARALLELISM": "false"}
