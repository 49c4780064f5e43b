"""One process or many under torchrun: who we are, how the network is wrapped, how tensors meet."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from conjure.train.settings import Parallel


@dataclass(frozen=True)
class World:
    """This process (`rank` of `size`), and the network: "single", "ddp" (copies) or "fsdp" (shards)."""

    rank: int = 0
    size: int = 1
    mode: Literal["single", "ddp", "fsdp"] = "single"

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes; float64."""
        if self.size == 1:
            return list(values)
        device = f"cuda:{torch.cuda.current_device()}" if dist.get_backend() == "nccl" else "cpu"
        total = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return total.tolist()

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def joined(parallel: Parallel, device: torch.device) -> Iterator[World]:
    """The world that torchrun's environment variables describe; a world of one without them.

    "auto" is DDP. FSDP2 cuts parameters, gradients, optimiser state and averages into `size` parts.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    ours = not dist.is_initialized()
    if ours:
        # The others wait while the first process evaluates and saves, which may take long.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=6))
    try:
        yield World(dist.get_rank(), dist.get_world_size(), "fsdp" if parallel == "fsdp" else "ddp")
    finally:
        if ours:
            dist.destroy_process_group()


def wrap(network: nn.Module, world: World, compiled: bool = False) -> nn.Module:
    """What to call in training; `network` itself keeps the parameters.

    FSDP2 cuts them up in place and gathers one entry of an outermost nn.ModuleList at a time; then comes
    torch.compile, then DDP. Rank 0's initial weights are everyone's.
    """
    if world.mode == "fsdp":
        with torch.no_grad():
            for tensor in [*network.parameters(), *network.buffers()]:
                dist.broadcast(tensor, src=0)
        for block in outermost_blocks(network):
            fully_shard(block, reshard_after_forward=True)
        fully_shard(network, reshard_after_forward=True)
    called = network
    if compiled:
        called = copy.copy(network)  # shares all parameters; the task goes on evaluating the plain network
        called.compile()
    return DistributedDataParallel(called) if world.mode == "ddp" else called


def outermost_blocks(network: nn.Module) -> list[nn.Module]:
    """The entries of every nn.ModuleList that lies in no other one."""
    if isinstance(network, nn.ModuleList):
        return list(network)
    return [block for child in network.children() for block in outermost_blocks(child)]


@contextlib.contextmanager
def synchronised(network: nn.Module, last: bool) -> Iterator[None]:
    """Gradients meet in the backward pass of the `last` micro batch; before, each process adds up its own."""
    if isinstance(network, DistributedDataParallel) and not last:
        with network.no_sync():
            yield
        return
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(last)
    yield


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, gathered if it is spread over processes: every process must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
