"""How fast are picture networks on a CPU, beside diffusers?

One evaluation of Stable Diffusion 1's U-Net (a pair, as guidance needs it), decoding a picture with its autoencoder,
one evaluation of DiT-XL/2, a loop of 20 steps, and the way from nothing to a first step. Weights are random, in
float32, and lie in files that both programs read. Each program lives in a process of its own and is asked by turns;
ratios are of one round. Beside the clock stand seconds of CPU: on a busy machine they say more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from benchmarks.painters.shapes import DIT, UNET, VAE, write
from benchmarks.painters.work import CONTEXT, TOKENS, Work
from benchmarks.processes import interleaved, ran, tell, threads_environment
from benchmarks.report import heading, load, ratios, spread, table, verdict

PROGRAMS = ("conjure", "diffusers")
WHAT = {
    "unet": "U-Net of Stable Diffusion 1, one step, batch 2",
    "decode": "autoencoder of Stable Diffusion 1, decoding",
    "dit": "DiT-XL/2, one step, batch 2",
    "loop": "DDIM loop of the U-Net with guidance",
    "start": "from nothing to the end of a first small step of the U-Net",
}
SIDES = {"unet": 64, "decode": 64, "dit": 32, "loop": 32, "start": 8}
FASTER, START_WITHIN, MEMORY_WITHIN, SAME = 1.2, 0.5, 1, 1e-4
PACKAGES = ("conjure", "torch", "diffusers", "transformers")


@dataclass
class Measured:
    """Of one program: a value a round, and bytes of the largest memory it has had."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: int = 0
    sum: float = 0.0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="toy sizes and one round: does it run at all?")
    parser.add_argument("--only", default=",".join(WHAT), help=f"of {','.join(WHAT)} (default all)")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement (default 5; the loop: at most 3)")
    parser.add_argument("--threads", type=int, default=2, help="of every program (default 2)")
    parser.add_argument("--steps", type=int, default=20, help="of the loop (default 20)")
    parser.add_argument("--loop-side", type=int, default=SIDES["loop"], metavar="LATENTS",
                        help="side of the loop's latents (default 32, a picture of 256; 64 is one of 512)")  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where weights are written, or lie from last time (default: "
                        "temporary; 3.4 GB for the U-Net, 2.7 for DiT)")  # fmt: skip
    args = parser.parse_args(arguments)
    if unknown := set(args.only.split(",")) - WHAT.keys():
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(WHAT)}")
    return args


class Painter:
    """A process that holds a network and runs it when it is asked."""

    def __init__(self, program: str, work: Work) -> None:
        quiet = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        environment = {**os.environ, **threads_environment(work.threads), **quiet}
        command = [sys.executable, "-m", "benchmarks.painters", program, json.dumps(asdict(work))]
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.stages = self._answer()

    def run(self) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a program ended before it answered: what it said stands above")
        return json.loads(line)

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(work: Work, rounds: int) -> dict[str, Measured]:
    """Both programs by turns; a first run of each is not counted."""
    found = {program: Measured() for program in PROGRAMS}
    with Painter("conjure", work) as ours, Painter("diffusers", work) as theirs:
        painters = {"conjure": ours, "diffusers": theirs}
        for program, painter in painters.items():
            if work.task != "loop":
                found[program].sum = painter.run()["sum"]

        def run(program: str) -> None:
            done, own = painters[program].run(), found[program]
            own.seconds.append(done["seconds"])
            own.cpu.append(done["cpu"])
            own.memory, own.sum = int(done["memory"]), done["sum"]

        runs = {program: partial(run, program) for program in PROGRAMS}
        interleaved(runs, rounds, lambda text: tell(f"{work.task}: {text}"))
    return found


def begun(program: str, work: Work) -> dict[str, float]:
    """A new process to the end of its first step: seconds to the end of each stage."""
    with Painter(program, work) as painter:
        done = painter.run()
    ends = {**painter.stages, "step": done["ended"]}
    return {name: end - painter.began for name, end in ends.items()} | {"memory": done["memory"]}


def flops(task: str, side: int, size: str, steps: int) -> float:
    """Of the definition: what a program saves by computing the same otherwise does not count less."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from conjure.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
    from conjure.models.class_dit import ClassDiT, ClassDiTConfig
    from conjure.models.unet import UNet, UNetConfig

    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.inference_mode():
        x, t = torch.empty(2, 4, side, side), torch.empty(2)
        if task == "decode":
            widths = VAE[size]["block_out_channels"]
            decoder = AutoencoderKL(AutoencoderKLConfig(widths=widths, residuals=VAE[size]["layers_per_block"]))
            with counter:
                decoder.decode(x[:1])
            return float(counter.get_total_flops())
        if task == "dit":
            said = DIT[size]
            dim = said["num_attention_heads"] * said["attention_head_dim"]
            dit = ClassDiT(ClassDiTConfig(dim=dim, heads=said["num_attention_heads"], layers=said["num_layers"],
                                          hidden=4 * dim, size=said["sample_size"]))  # fmt: skip
            return dit.flops(2, side, side)
        config: dict[str, Any] = {}
        if "block_out_channels" in UNET[size]:
            config = {"widths": UNET[size]["block_out_channels"], "residuals": 1, "depth": (1, 0), "heads": (8, 8)}
        unet = UNet(UNetConfig(**config))
        with counter:
            unet(x, t, torch.empty(2, TOKENS, CONTEXT))
        return float(counter.get_total_flops()) * (steps if task == "loop" else 1)


def peak(threads: int) -> float:
    """Operations per second of a large product of matrices; the best of six."""
    code = (
        f"import torch, time; torch.set_num_threads({threads}); x = torch.randn(2048, 2048); t = []\n"
        "for _ in range(6):\n    b = time.perf_counter(); x @ x; t.append(time.perf_counter() - b)\n"
        "print(2 * 2048**3 / min(t))"
    )
    return float(ran([sys.executable, "-c", code], threads_environment(threads)).stdout)


def speed_result(name: str, found: dict[str, Measured], operations: float, fastest: float) -> str:
    """A table, and a line for each bound."""
    rows = []
    for program, own in found.items():
        rate = operations / median(own.seconds)
        rows.append([program, spread(own.seconds), spread(own.cpu), f"{rate / 1e9:.0f}", f"{rate / fastest:.0%}",
                     f"{operations / median(own.cpu) / 1e9:.0f}", f"{own.memory / 2**20:.0f}"])  # fmt: skip
    ours, theirs = found["conjure"], found["diffusers"]
    faster, cheaper = ratios(theirs.seconds, ours.seconds), ratios(theirs.cpu, ours.cpu)
    header = ["program", "s", "CPU s", "GFLOP/s", "of matmul peak", "GFLOP per CPU s", "peak MiB"]
    return "\n".join([
        table(header, rows), "",
        f"{verdict(f'{name}: speed / diffusers', median(faster), at_least=FASTER)}  {spread(faster)}",
        f"      {name}: seconds of CPU, diffusers / conjure: {spread(cheaper)}",
        verdict(f"{name}: peak memory / diffusers", ours.memory / theirs.memory, at_most=MEMORY_WITHIN),
        verdict(f"{name}: difference of the sums", abs(ours.sum / theirs.sum - 1), at_most=SAME, form=".1e"), "",
    ])  # fmt: skip


def start_result(found: dict[str, list[dict[str, float]]]) -> str:
    stages = ("interpreter", "imports", "load", "step")
    rows = [[program, *(spread([run[stage] for run in runs]) for stage in stages),
             spread([run["memory"] / 2**20 for run in runs], ".0f")] for program, runs in found.items()]  # fmt: skip
    shares = {stage: ratios(*([run[stage] for run in found[program]] for program in PROGRAMS))
              for stage in ("load", "step")}  # fmt: skip
    header = ["program, seconds until", *stages, "peak MiB"]
    return "\n".join([
        table(header, rows), "",
        f"{verdict('from nothing to the first step / diffusers', median(shares['load']), at_most=START_WITHIN)}  "
        f"{spread(shares['load'])}",
        f"      to the end of a step of {SIDES['start']} x {SIDES['start']} latents: {spread(shares['step'])}",
        "",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    size, rounds = ("toy", 1) if args.quick else ("full", args.rounds)
    fastest = peak(args.threads)
    facts = {"threads": str(args.threads), "matmul peak, float32": f"{fastest / 1e9:.0f} GFLOP/s at the start"}
    print(heading("Pictures", "pictures", arguments, packages=PACKAGES, facts=facts))
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)) / size
        for task in args.only.split(","):
            side = 8 if args.quick else args.loop_side if task == "loop" else SIDES[task]
            steps = 2 if args.quick else args.steps
            work = Work(str(folder), "unet", side, args.threads, steps)
            work = work if task == "start" else replace(work, task=task)
            for part in {work.part, "scheduler"}:
                write(folder, size, part)
            print(f"### {WHAT[task]}, {side} x {side} latents" + (f", {steps} steps" if task == "loop" else "")
                  + f"; {load()}\n")  # fmt: skip
            if task == "start":
                runs = {program: partial(begun, program, work) for program in PROGRAMS}
                print(start_result(interleaved(runs, rounds, lambda text: tell(f"start: {text}"))), flush=True)
                continue
            operations = flops(task, side, size, steps)
            fastest = max(fastest, peak(args.threads))
            limit = f"{operations / 1e9:.0f} GFLOP, at {fastest / 1e9:.0f} GFLOP/s of a large product of matrices: "
            print(f"{limit}{operations / fastest:.1f} s\n")
            found = measure(work, min(rounds, 3) if task == "loop" else rounds)
            print(speed_result(task, found, operations, fastest), flush=True)


if __name__ == "__main__":
    main()
