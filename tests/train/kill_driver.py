"""Trains the toy in child processes that die by SIGKILL: python kill_driver.py FOLDER. Prints how each one ended.

Children are forks of this process, which has imported everything and has no threads, so each starts at once.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the optimisers import it when first used

from conjure.core.device import matmul_rate
from conjure.train import loop
from conjure.train.toy import Toy

CONFIG = loop.Training(
    steps=40, batch=8, micro_batch=4, optimizer="muon", lr=1e-2, ema=0.9, warmup=5, log_every=1, evaluate_every=20,
    checkpoint_every=2, threads=1,
)  # fmt: skip


def child(folder: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Train, or train on, in a process of its own; its id."""
    pid = os.fork()
    if pid == 0:
        prepare()
        loop.train(Toy(0), CONFIG, folder, resume=True, seed=1)
        os._exit(0)
    return pid


def dying_in(name: str, call: int) -> Callable[[], None]:
    """Has this process kill itself right before the `call`-th use of os.NAME."""

    def prepare() -> None:
        original, left = getattr(os, name), [call]

        def counted(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(os, name, counted)

    return prepare


def ending(pid: int) -> str:
    status = os.waitpid(pid, 0)[1]
    return "killed" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else f"status {status}"


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    matmul_rate(torch.float32, device="cpu")
    endings = {"uninterrupted": ending(child(folder / "whole"))}
    chance = random.Random(0)
    cut = folder / "cut"
    # In the sync before the rename, in the rename of a checkpoint, in its sync after it, in removing an old one.
    for name, call in [("fsync", 2), ("rename", 3), ("fsync", 12), ("rmdir", 2), ("fsync", 5)]:
        endings[f"os.{name} {call}"] = ending(child(cut, dying_in(name, call)))
    for i in range(3):
        pid = child(cut)
        time.sleep(chance.uniform(0.02, 0.25))
        os.kill(pid, signal.SIGKILL)
        endings[f"moment {i}"] = ending(pid)
    endings["last"] = ending(child(cut))
    endings["once more"] = ending(child(cut))  # nothing is left to do, and nothing may be written twice
    sys.stdout.write("".join(f"{name}: {how}\n" for name, how in endings.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
