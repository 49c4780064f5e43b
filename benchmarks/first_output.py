"""How long from the shell prompt to the first picture and to the first word, and what is the time spent on?

Every measurement is a new process; what it reads from disk is in the system's cache. The command is measured as a user
runs it. A second process goes through the same stages by the Python interface and notes when each is over; `make` by
the command line also imports and runs the command line itself, which is why the two differ a little.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.processes import Ended, children_cpu, interleaved, ran, tell, threads_environment
from benchmarks.report import differences, heading, spread, table, verdict
from conjure.core.errors import ConjureError
from conjure.core.shelf import find

PICTURE, STORY = "a red apple", "Once upon a time"
WITHIN = {"picture": 4.0, "token": 2.0}
"""Seconds by the clock from the shell prompt."""
START = {"conjure --help": ["--help"], "conjure list": ["list"]}
START_WITHIN = 0.25
"""Seconds of CPU beyond those of a Python that does nothing."""
PACKAGES = ("conjure", "torch", "tokenizers", "pydantic", "click")
BARE = "python -c pass"


@dataclass(frozen=True)
class First:
    """One run. `stages` are durations in order; without any it was the command itself."""

    seconds: float
    cpu: float
    stages: Mapping[str, float]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_output", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=10, help="runs of everything (default 10)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every process (default all)")
    parser.add_argument("--only", nargs="+", choices=("start", *WITHIN), default=["start", *WITHIN],
                        help="what to measure (default all)")  # fmt: skip
    parser.add_argument("--picture-model", default="starter/pictograms", metavar="NAME")
    parser.add_argument("--story-model", default="starter/story", metavar="NAME")
    return parser.parse_args(arguments)


def command() -> list[str]:
    """The installed command, else the module."""
    beside = shutil.which("conjure", path=str(Path(sys.executable).parent))
    return [beside] if beside else [sys.executable, "-m", "conjure"]


def stamped(kind: str, prompt: str, model: str, file: Path, environment: Mapping[str, str]) -> First:
    """The stages, each from the end of the one before; the interpreter's begins when the process is asked for."""
    began = time.perf_counter()
    done = ran([sys.executable, "-m", "benchmarks.stamped", kind, prompt, model, str(file)], environment)
    return staged(began, json.loads(done.stdout), done.cpu)


def staged(began: float, ends: Mapping[str, float], cpu: float) -> First:
    """When each stage ended -> how long it took."""
    borders = [began, *ends.values()]
    took = [after - before for before, after in pairwise(borders)]
    return First(borders[-1] - began, cpu, dict(zip(ends, took, strict=True)))


def picture(model: str, file: Path, environment: Mapping[str, str]) -> First:
    """`conjure make "a red apple" -o FILE`, to its end."""
    done = ran([*command(), "make", PICTURE, "-o", str(file), "--model", model, "--seed", "1", "-y"], environment)
    return First(done.wall, done.cpu, {})


def token(model: str, environment: Mapping[str, str]) -> First:
    """`conjure make "Once upon a time"`, until more than the prompt is on its stdout; then it is stopped."""
    line = [*command(), "make", STORY, "--model", model, "--seed", "1"]
    before, began, seen = children_cpu(), time.perf_counter(), 0
    own = {**os.environ, **environment}
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=own) as run:
        assert run.stdout is not None and run.stderr is not None
        while seen <= len(STORY) and (piece := os.read(run.stdout.fileno(), 1 << 16)):
            seen += len(piece)
        seconds = time.perf_counter() - began
        run.terminate()
        said = run.stderr.read().decode()
    if seen <= len(STORY):
        raise SystemExit(f"{' '.join(line)} wrote no token:\n{said[-4000:]}")
    return First(seconds, children_cpu() - before, {})


def startup(rounds: int, environment: Mapping[str, str]) -> str:
    """What commands cost that have nothing to compute."""
    lines = {BARE: [sys.executable, "-c", "pass"]} | {name: [*command(), *line] for name, line in START.items()}
    runs = interleaved({name: partial(ran, line, environment) for name, line in lines.items()}, rounds, tell)
    return startup_result(runs)


def startup_result(runs: Mapping[str, Sequence[Ended]]) -> str:
    """The table, and a verdict for each command."""
    cpu = {name: [run.cpu for run in some] for name, some in runs.items()}
    beyond = {name: differences(cpu[name], cpu[BARE]) for name in runs if name != BARE}
    rows = [
        [f"`{name}`", spread(cpu[name], ".3f"), spread(beyond[name], ".3f") if name in beyond else "",
         spread([run.wall for run in some], ".3f")]
        for name, some in runs.items()
    ]  # fmt: skip
    verdicts = [
        verdict(f"`{name}`, seconds of CPU beyond bare Python", median(some), at_most=START_WITHIN, form=".3f")
        for name, some in beyond.items()
    ]
    header = ["command", "CPU, s", "beyond bare Python, s", "by the clock, s"]
    return "\n".join([table(header, rows), "", *verdicts, ""])


def first_result(what: str, runs: Mapping[str, Sequence[First]]) -> str:
    """The stages in a table, the whole command under them, and a verdict."""
    staged, whole = runs[f"{what}, by stages"], runs[f"{what}, the command"]
    rows = [[stage, spread([run.stages[stage] for run in staged])] for stage in staged[0].stages]
    rows.append(["all stages", spread([run.seconds for run in staged])])
    rows.append(["**the command**", spread([run.seconds for run in whole])])
    rows.append(["the command, CPU", spread([run.cpu for run in whole])])
    claim = f"first {what} from the shell prompt, seconds"
    bound = verdict(claim, median(run.seconds for run in whole), at_most=WITHIN[what])
    return "\n".join([table([f"to the first {what}", "s"], rows), "", bound, ""])


def measurements(
    what: str, asked: argparse.Namespace, folder: Path, environment: Mapping[str, str]
) -> dict[str, Callable[[], First]]:
    """The command and its stages."""
    if what == "picture":
        model, file = asked.picture_model, folder / "apple.png"
        whole = partial(picture, model, file, environment)
        stages = partial(stamped, "image", PICTURE, model, file, environment)
    else:
        model = asked.story_model
        whole = partial(token, model, environment)
        stages = partial(stamped, "text", STORY, model, Path(os.devnull), environment)
    find(model)
    return {f"{what}, the command": whole, f"{what}, by stages": stages}


def main(arguments: Sequence[str] | None = None) -> None:
    asked = parse(arguments)
    rounds = 1 if asked.quick else asked.rounds
    environment = threads_environment(asked.threads)
    facts = {"threads": str(asked.threads), "runs": f"{rounds} of each, taking turns; median (min-max)"}
    title = "From the shell prompt to the first output"
    print(heading(title, "first_output", arguments, packages=PACKAGES, facts=facts), flush=True)
    if "start" in asked.only:
        print(startup(rounds, environment), flush=True)
    firsts = [what for what in WITHIN if what in asked.only]
    with tempfile.TemporaryDirectory() as folder:
        try:
            runs = {what: measurements(what, asked, Path(folder), environment) for what in firsts}
        except ConjureError as error:
            raise SystemExit(f"error: {error}") from None
        every = {name: run for some in runs.values() for name, run in some.items()}
        done = interleaved(every, rounds, tell) if every else {}
    for what, some in runs.items():
        print(first_result(what, {name: done[name] for name in some}))


if __name__ == "__main__":
    main()
