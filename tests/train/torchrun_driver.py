"""Run by torchrun: trains the toy with DDP and with FSDP2, and goes on from a one-process checkpoint."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from conjure.train.loop import Training, train
from conjure.train.toy import Toy

CONFIG = Training(
    steps=8, batch=8, micro_batch=2, optimizer="muon", lr=1e-2, ema=0.9, clip=0.5, log_every=1, checkpoint_every=4,
    threads=1,
)  # fmt: skip


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    for parallel in ("ddp", "fsdp"):
        train(Toy(0), replace(CONFIG, parallel=parallel, preview_every=8), folder / parallel)
        train(Toy(0), replace(CONFIG, parallel=parallel), folder / f"single-then-{parallel}", resume=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
