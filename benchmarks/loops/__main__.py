"""Runs one loop and prints what it measured, as JSON in the last line."""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.loops.work import Timed, Work, seconds
from benchmarks.processes import peak_memory
from conjure.core.device import matmul_rate


def measure(name: str, work: Work) -> Timed:
    """The loop called `name`, imported only now: peers take long to import and are not always there."""
    loop, _, variant = name.partition("-")
    if loop == "conjure":
        from benchmarks.loops import conjure_loop

        optimizer = "muon" if variant == "muon" else "adamw"
        return conjure_loop.run(work, optimizer, "bfloat16" if variant == "bf16" else "float32")
    if loop == "plain":
        from benchmarks.loops import plain

        return plain.run(work, fused=variant == "fused")
    from benchmarks.loops import trainer

    return trainer.run(work, bf16=variant == "bf16")


def main(name: str, given: str) -> None:
    work, precision = Work(**json.loads(given)), "bfloat16" if name.endswith("bf16") else "float32"
    torch.set_num_threads(work.threads)
    timed, memory = measure(name, work), peak_memory()
    print(json.dumps({
        "seconds": seconds(timed.began, work.discard), "memory": memory, "parameters": timed.parameters,
        "optimizer": timed.optimizer, "precision": precision, "peak": matmul_rate(precision, seconds=1.0),
    }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
