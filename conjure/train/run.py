"""One optimiser step, and everything it needs.

A step is a pure function of the state and the step number: examples are drawn by index, noise by example,
dropout by step. A run that is killed and resumed therefore ends with the same bits as one that was not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from conjure.core.device import dtype_support
from conjure.core.errors import ConjureError
from conjure.core.protocol import Medium, Trainable
from conjure.core.seeds import derive
from conjure.train.batches import Batch, built, chunks
from conjure.train.checkpoint import State, named_tensors
from conjure.train.distributed import World, synchronised, whole, wrap
from conjure.train.ema import EMA
from conjure.train.optim import build_optimizers, split_parameters
from conjure.train.schedule import multiplier
from conjure.train.settings import Training
from conjure.train.watch import Watch


@dataclass(frozen=True)
class Step:
    """What one optimiser step was like; `tokens` of all processes, `flops` of this one."""

    loss: float
    norm: float
    lr: float
    tokens: int
    flops: float
    flags: tuple[bool, ...]


@dataclass
class Run:
    """A task on its way: everything that `step` needs."""

    task: Trainable
    config: Training
    seed: int
    device: torch.device
    world: World
    state: State
    network: nn.Module
    """What to call: the state's network, or its wrapper."""
    watch: Watch

    def micro_batches(self) -> Generator[list[tuple[range, Batch]], None, None]:
        """The examples of each step that is left, as this process takes them."""
        config, world = self.config, self.world
        size = config.micro_batch or config.batch
        plan = [
            chunks(step, config.batch, size, world.rank, world.size) for step in range(self.state.step, config.steps)
        ]
        with closing(built(self.task.batch, chain.from_iterable(plan), config.prefetch)) as batches:
            for parts in plan:
                yield [next(batches) for _ in parts]

    def step(self, micro_batches: Sequence[tuple[range, Batch]], flags: Callable[[], Sequence[bool]] = tuple) -> Step:
        """One optimiser step; a pure function of the state and the examples.

        `flags` is asked once per step; what it raises in any process is raised in the `Step` of all.
        """
        state, config = self.state, self.config
        torch.manual_seed(derive(self.seed, "dropout", state.step, self.world.rank))  # for modules that drop
        own = accumulate(self.task, self.network, micro_batches, self.device, config.precision)
        loss_sum, count, tokens, *raised = self.world.sum([own.loss, own.count, own.tokens, *flags()])
        loss = loss_sum / count if count else math.nan
        norm = scale_gradients(state.network, self.world.size / max(count, 1), config.clip)
        indices = range(state.step * config.batch, (state.step + 1) * config.batch)
        self.watch.check(state.step, loss, norm, indices, own.guilty)

        factor = multiplier(
            state.step, config.steps, config.schedule,
            warmup=config.warmup, cooldown=config.cooldown, minimum=config.min_lr,
        )  # fmt: skip
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
            optimizer.zero_grad()
        if state.ema is not None:
            state.ema.update(state.step)
        state.step += 1
        return Step(loss, norm, config.lr * factor, int(tokens), own.flops, tuple(map(bool, raised)))

    def evaluate(self) -> dict[str, float]:
        """The task's validation figures with the weights to use; empty but on the first process."""
        with self._ready():
            return self.task.evaluate(self.config.evaluate_limit) if self.world.first else {}

    def preview(self) -> dict[str, Medium]:
        """The task's samples, likewise; of the same seed every time, so that one sees progress."""
        with self._ready():
            return self.task.preview(derive(self.seed, "preview")) if self.world.first else {}

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """The task's own network with the averaged weights, for the time being."""
        network, state = self.task.network, self.state
        if network is not state.network:
            copy_weights(state.weights(), network)
        averaged = state.ema.swapped() if state.ema is not None and network is state.network else nullcontext()
        network.eval()
        with torch.no_grad(), averaged:
            yield
        network.train()


@torch.no_grad()
def copy_weights(weights: Mapping[str, Tensor], network: nn.Module) -> None:
    """Gather `weights` from all processes and devices into `network`."""
    for name, target in named_tensors(network).items():
        target.copy_(whole(weights[name]))


def begin(task: Trainable, config: Training, *, seed: int, device: torch.device, world: World) -> Run:
    """The run at step 0."""
    if config.batch % world.size:
        raise ConjureError(
            f"train.batch: expected a multiple of the {world.size} processes, got {config.batch}",
            hint=f"train.batch={config.batch // world.size * world.size or world.size}",
        )
    if config.precision == "bfloat16" and dtype_support(device.type)["bfloat16"] != "native":
        hint = "train.precision=float32"
        raise ConjureError(f"train.precision: this {device.type} has no bfloat16", hint=hint)
    task.network.train()
    # The task evaluates with its own network, whole and on the CPU; what cannot be that is trained as a copy.
    apart = world.mode == "fsdp" or device.type != "cpu"
    own = copy.deepcopy(task.network).to(device) if apart else task.network
    for module in own.modules():
        if hasattr(module, "compute_dtype"):  # what embeddings put out; the layers cast their weights to it
            module.compute_dtype = getattr(torch, config.precision)  # type: ignore[assignment]
    split = split_parameters(own)  # before FSDP2 puts its own parameters in place of these
    network = wrap(own, world, compiled=config.compile)
    parameters = dict(own.named_parameters())
    optimizers = build_optimizers(
        parameters, split, optimizer=config.optimizer, lr=config.lr, adam_lr=config.adam_lr,
        betas=config.betas, weight_decay=config.weight_decay,
    )  # fmt: skip
    trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    state = State(own, optimizers, EMA(trained, config.ema) if config.ema else None)
    watch = Watch(config.warmup, game=getattr(task, "game", False))
    return Run(task, config, seed, device, world, state, network, watch)


@dataclass
class Totals:
    """Sums over micro batches; `guilty` are the examples of a micro batch whose loss is no number."""

    loss: float = 0.0
    count: int = 0
    tokens: int = 0
    flops: float = 0.0
    guilty: Sequence[int] = ()


def accumulate(
    task: Trainable,
    network: nn.Module,
    micro_batches: Sequence[tuple[range, Batch]],
    device: torch.device,
    precision: str,
) -> Totals:
    """Add up the gradients of the loss *summed* over targets, not averaged.

    Divided once by the number of targets of the whole step they are the large batch's gradient, however many
    targets each micro batch has; means of means would not be.
    """
    totals = Totals()
    for position, (indices, batch) in enumerate(micro_batches):
        batch = placed(batch, device, getattr(torch, precision))
        with synchronised(network, last=position == len(micro_batches) - 1):
            loss_sum, count = task.loss(batch, network=network)
            loss_sum.backward()
        totals.loss += (value := loss_sum.item())
        totals.count += int(count)
        totals.tokens += task.tokens(batch)
        totals.flops += task.flops(batch)
        if not math.isfinite(value) and not totals.guilty:
            totals.guilty = indices
    return totals


def placed(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """The batch on the device, its floating tensors in the type of the activations; seeds stay on the CPU."""
    return {
        name: tensor
        if name == "seeds"
        else tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking=True)
        for name, tensor in batch.items()
    }


@torch.no_grad()
def scale_gradients(network: nn.Module, factor: float, clip: float) -> float:
    """Multiply the gradients by `factor`, then down to a global norm of `clip`; the norm before clipping."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    norm = float(whole(nn.utils.get_total_norm(gradients))) * factor
    if math.isfinite(norm):
        shrink = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        torch._foreach_mul_(gradients, factor * shrink)
    return norm
