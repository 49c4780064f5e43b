"""How fast is a training step, beside Hugging Face `Trainer` and a plain loop in nanoGPT's manner?

Every loop runs in a process of its own, on the same rows, in float32, with as many threads. Rounds interleave them;
the ratios are of runs of the same round. A step is timed from its beginning to the beginning of the next one, so that
all a loop does is in it; the first steps are thrown away.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median

from benchmarks.loops.work import Work
from benchmarks.processes import interleaved, ran, tell, threads_environment
from benchmarks.report import heading, ratios, spread, table, verdict

LOOPS = {
    "conjure": "conjure, AdamW",
    "conjure-muon": "conjure, Muon",
    "conjure-bf16": "conjure, AdamW, bfloat16",
    "trainer": "Hugging Face Trainer",
    "trainer-bf16": "Hugging Face Trainer, bf16",
    "plain": "plain loop",
    "plain-fused": "plain loop, fused AdamW",
}
GOALS = (
    ("conjure", "trainer", 1.5),
    ("conjure", "plain", 1.0),
    ("conjure-bf16", "trainer", 1.5),
    ("conjure-bf16", "trainer-bf16", 1.5),
)
"""The first has to do so many times the tokens per second of the second, at least."""
SHAPES = {
    "288": Work(),
    "384": Work(dim=384, layers=7, hidden=1024),
    "toy": Work(vocab=64, dim=32, layers=1, heads=2, hidden=64, length=16, batch=2, steps=2, discard=1),
}
PACKAGES = ("conjure", "torch", "transformers", "accelerate")


@dataclass(frozen=True)
class Run:
    """One run of one loop. `peak` is what the machine's matrix product did right after it, in FLOP/s."""

    rate: float
    """Tokens per second: those of a step by the median time of a step."""
    peak: float
    memory: int
    parameters: int
    optimizer: str
    precision: str


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a toy shape and one round: does it run at all?")
    parser.add_argument("--shape", choices=SHAPES, default="288", help="width of the network (default 288)")
    parser.add_argument("--loops", nargs="+", choices=LOOPS, metavar="NAME",
                        help=f"of {', '.join(LOOPS)} (default all; bf16 where the processor has it)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="runs of every loop (default 5)")
    parser.add_argument("--steps", type=int, default=8, help="steps of a run that are timed (default 8)")
    parser.add_argument("--batch", type=int, default=8, help="rows of a step (default 8)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every loop (default all)")
    return parser.parse_args(arguments)


def once(name: str, work: Work) -> Run:
    """One loop in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.loops", name, json.dumps(asdict(work))]
    environment = threads_environment(work.threads) | {"CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error"}
    said = json.loads(ran(command, environment).stdout.splitlines()[-1])
    rate = work.tokens / median(said["seconds"])
    return Run(rate, said["peak"], said["memory"], said["parameters"], said["optimizer"], said["precision"])


def native_loops() -> list[str]:
    """Every loop whose arithmetic this processor has."""
    from conjure.core.device import dtype_support

    return [name for name in LOOPS if not name.endswith("bf16") or dtype_support()["bfloat16"] == "native"]


def result(runs: Mapping[str, Sequence[Run]], work: Work) -> str:
    """The table. A fraction of the peak is of the best matrix product of its precision seen in the same round."""
    rows = []
    for name, some in runs.items():
        done = [run.rate * work.flops / work.tokens for run in some]
        rows.append([
            LOOPS[name], spread([run.rate for run in some], ",.0f"),
            spread(faster(runs, "conjure", name)) if "conjure" in runs else "",
            spread(ratios(done, peaks(runs, some[0].precision)), ".1%"),
            spread([run.memory / 2**30 for run in some]), f"{some[0].parameters / 1e6:.1f}", some[0].optimizer,
        ])  # fmt: skip
    header = ["loop", "tokens/s", "conjure is x as fast", "of matmul peak", "memory, GiB", "parameters, M", "optimizer"]
    lines = [table(header, rows), ""]
    for precision in dict.fromkeys(some[0].precision for some in runs.values()):
        measured = spread([peak / 1e9 for peak in peaks(runs, precision)], ".0f")
        lines.append(f"matmul peak in {precision}, GFLOP/s: {measured}")
    return "\n".join([*lines, ""])


def peaks(runs: Mapping[str, Sequence[Run]], precision: str) -> list[float]:
    """The best matrix product of each round."""
    fitting = [some for some in runs.values() if some[0].precision == precision]
    return [max(run.peak for run in together) for together in zip(*fitting, strict=True)]


def faster(runs: Mapping[str, Sequence[Run]], first: str, second: str) -> list[float]:
    """Tokens per second of the loop `first` over those of `second`, round by round."""
    return ratios([run.rate for run in runs[first]], [run.rate for run in runs[second]])


def verdicts(runs: Mapping[str, Sequence[Run]]) -> str:
    """PASS or FAIL for each goal whose loops were run."""
    return "\n".join(
        verdict(f"tokens/s of {LOOPS[first]} / {LOOPS[second]}", median(faster(runs, first, second)), at_least=goal)
        for first, second, goal in GOALS
        if first in runs and second in runs
    )


def main(arguments: Sequence[str] | None = None) -> None:
    asked = parse(arguments)
    work = replace(SHAPES[asked.shape], batch=asked.batch, steps=asked.steps, threads=asked.threads)
    if asked.quick:
        work = replace(SHAPES["toy"], threads=1)
    facts = {
        "threads": str(work.threads),
        "network": f"{work.layers} layers, width {work.dim}, {work.heads} heads, gated layer of {work.hidden}, "
        f"vocabulary {work.vocab:,}, output tied; the plain loop has GPT-2 blocks with matrices of the same size",
        "work": f"float32, {work.batch} rows of {work.length} tokens a step, {work.flops / 1e9:,.0f} GFLOP; "
        f"median of {work.steps} steps after {work.discard} thrown away, min-max over the rounds",
    }
    title = "Training step beside peers"
    print(heading(title, "training_step", arguments, packages=PACKAGES, facts=facts), flush=True)
    runs = {name: partial(once, name, work) for name in asked.loops or native_loops()}
    done = interleaved(runs, 1 if asked.quick else asked.rounds, tell)
    print(result(done, work))
    print("a toy network: no verdict" if asked.quick else verdicts(done))


if __name__ == "__main__":
    main()
