"""`conjure train RECIPE --check`: a run audited before it costs anything, in under a minute.

Looks for the faults that training code has shipped for months: a loss averaged over micro batches of unequal
length, a loss mask lost, documents that see each other, tokens that see the future, examples or optimiser state
that a resumed run does not find again. Everything touched is restored.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from conjure.core.device import matmul_rate, pick
from conjure.core.errors import ConjureError
from conjure.core.protocol import Trainable
from conjure.train import checkpoint
from conjure.train.batches import Batch
from conjure.train.distributed import World
from conjure.train.guards import cpu_threads
from conjure.train.report import duration
from conjure.train.run import Run, accumulate, begin, copy_weights, scale_gradients
from conjure.train.settings import Training

OVERFIT_SECONDS = 15
OVERFIT_STEPS = (10, 60)
OVERFIT_FACTOR = 0.8
"""The loss on one batch must fall at least to this part of itself."""
TOKENS = ("tokens", "ids", "inputs")
"""Names under which a causal task's batch holds int `[B, T]` tokens."""
SEARCHED = 32
"""Examples among which one with two documents is looked for."""
SAVED_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class Finding:
    """One line of the table; `passed` is None where there is nothing to pass."""

    name: str
    passed: bool | None
    detail: str

    def __str__(self) -> str:
        mark = {True: "PASS", False: "FAIL", None: "    "}[self.passed]
        return f"{mark}  {self.name}: {self.detail}"


def audit(task: Trainable, config: Training, *, seed: int = 0) -> list[Finding]:
    """Every check of `task` under `config`, in the order of the table."""
    with cpu_threads(config.threads), untouched(task.network) as restore:
        few = affordable(task, config)
        batch = task.batch(range(few))
        run = fresh(task, config, few, seed)
        found = read_batch(task, batch, config)
        if any(finding.passed is False for finding in found):
            return found  # nothing that follows would mean anything
        found += [pure_examples(task, few), same_gradient(run, few), all_parameters(run, batch)]
        held = activation_bytes(run, batch)
        restore()
        found.append(same_after_resume(task, config, few, seed, restore))
        restore()
        run = fresh(task, config, few, seed)
        overfitted, seconds = overfits(run, batch)
        found.append(overfitted)
        if run.state.network is not task.network:
            copy_weights(run.state.weights(), task.network)
        found += [*causality(task, batch), evaluates(task)]
        found += forecast(run, config, held / few, seconds / few)
        return found


@contextmanager
def untouched(network: torch.nn.Module) -> Iterator[Callable[[], None]]:
    """Puts weights, gradients, modes and the random state back at the end, or by the callable."""
    tensors = {name: tensor.detach().clone() for name, tensor in checkpoint.named_tensors(network).items()}
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    modes = [(module, module.training, getattr(module, "compute_dtype", None)) for module in network.modules()]
    random = torch.get_rng_state()

    @torch.no_grad()
    def restore() -> None:
        for name, tensor in checkpoint.named_tensors(network).items():
            tensor.copy_(tensors[name])
        for name, parameter in network.named_parameters():
            parameter.grad = gradients[name]
        for module, training, dtype in modes:
            module.training = training
            if dtype is not None:
                module.compute_dtype = dtype  # type: ignore[assignment]
        torch.set_rng_state(random)

    try:
        yield restore
    finally:
        restore()


def affordable(task: Trainable, config: Training) -> int:
    """How many examples the checks can use: as many as take about a second, two to four."""
    second = matmul_rate(config.precision, device=str(pick(config.device))) / 3
    return min(max(2, min(4, int(second / max(1.0, task.flops(task.batch(range(1))))))), max(2, config.batch))


def fresh(task: Trainable, config: Training, few: int, seed: int) -> Run:
    """A run whose batch is `few` examples at the full learning rate after a short rise."""
    small = replace(config, batch=few, micro_batch=few, schedule="constant", warmup=3, compile=False)
    return begin(task, small, seed=seed, device=pick(config.device), world=World())


def read_batch(task: Trainable, batch: Batch, config: Training) -> list[Finding]:
    """The batch for human eyes, and how much of it carries loss."""
    with torch.no_grad():
        loss_sum, counted = task.loss(batch)
    count, positions, examples = int(counted), task.tokens(batch), len(next(iter(batch.values())))
    per_step = round(count / examples * config.batch)
    said = f"{count:,} in {examples} examples of {positions:,} positions, about {per_step:,} in a step"
    found = [
        Finding("batch", None, "\n" + task.describe(batch)),
        Finding("effective targets", count > 0, said),
        Finding("first loss", bool(torch.isfinite(loss_sum)), f"{float(loss_sum) / max(1, count):.4f}"),
    ]
    if "targets" in batch and not batch["targets"].is_floating_point():
        idle = int((batch["targets"] < 0).sum())
        found.append(Finding("padding and prompts", None, f"{idle / batch['targets'].numel():.1%} without loss"))
    if task.causal:
        found.append(Finding("documents", None, f"{borders(batch)} borders within {examples} rows"))
    return found


def pure_examples(task: Trainable, few: int) -> Finding:
    """Whether example i depends on nothing but i: asked twice, and alone instead of among others."""
    together, again = task.batch(range(few)), task.batch(range(few))
    wrong = {name for name, tensor in together.items() if not torch.equal(tensor, again[name])}
    for i in range(few):
        for name, tensor in task.batch([i]).items():
            same_width = tensor.shape[1:] == together[name].shape[1:]  # else it was padded to its neighbours
            if same_width and not torch.equal(tensor[0], together[name][i]):
                wrong.add(name)
    detail = f"{few} examples asked for three times" if not wrong else f"differ: {', '.join(sorted(wrong))}"
    return Finding("examples depend on their index alone", not wrong, detail)


def same_gradient(run: Run, few: int) -> Finding:
    """Whether examples one by one give the gradient of all at once."""
    run.state.network.eval()  # dropout would draw otherwise
    large, small = gradient(run, [range(few)]), gradient(run, [range(i, i + 1) for i in range(few)])
    run.state.network.train()
    error = (large - small).norm() / large.norm().clamp_min(1e-30)
    limit = 1e-4 if run.config.precision == "float32" else 3e-2
    detail = f"{few} small against 1 large: relative error {error:.1e}, allowed {limit:.0e}"
    return Finding("gradient of small batches", bool(error <= limit), detail)


def gradient(run: Run, parts: Sequence[range]) -> Tensor:
    """All gradients in one vector, float64, as the loop accumulates them."""
    network = run.state.network
    network.zero_grad()
    batches = [(part, run.task.batch(part)) for part in parts]
    totals = accumulate(run.task, network, batches, run.device, run.config.precision)
    scale_gradients(network, 1 / max(1, totals.count), clip=0)
    found = [p.grad.double().flatten() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    return torch.cat(found)


def all_parameters(run: Run, batch: Batch) -> Finding:
    """Whether every parameter that trains takes part in the loss."""
    network = run.state.network
    accumulate(run.task, network, [(range(len(batch)), batch)], run.device, run.config.precision)
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    idle = [name for name, parameter in trained.items() if parameter.grad is None]
    network.zero_grad()
    detail = f"{len(trained)} tensors, {sum(p.numel() for p in trained.values()):,} values"
    detail = f"no gradient for {', '.join(idle[:5])}" if idle else detail
    return Finding("every parameter gets a gradient", not idle, detail)


def same_after_resume(task: Trainable, config: Training, few: int, seed: int, restore: Callable[[], None]) -> Finding:
    """Whether a step after saving and loading changes the same bits as one without."""
    parts = [[(part, task.batch(part))] for part in (range(few), range(few, 2 * few))]
    with tempfile.TemporaryDirectory() as folder:
        straight = fresh(task, config, few, seed)
        straight.step(parts[0])
        facts = {"settings": {}, **straight.watch.facts()}
        place = checkpoint.save(Path(folder), straight.state, facts, world=World(), keep=1)
        straight.step(parts[1])
        expected = {name: tensor.clone() for name, tensor in straight.state.tensors().items()}
        restore()
        resumed = fresh(task, config, few, seed)
        checkpoint.load(place, resumed.state, {}, world=World())
        resumed.step(parts[1])
    wrong = [name for name, tensor in resumed.state.tensors().items() if not torch.equal(tensor, expected[name])]
    detail = f"{len(expected)} tensors equal bit for bit" if not wrong else f"differ: {', '.join(wrong[:5])}"
    return Finding("saved and resumed step", not wrong, detail)


def overfits(run: Run, batch: Batch) -> tuple[Finding, float]:
    """Whether one batch can be learnt by heart, and the seconds of one step."""
    losses: list[float] = []
    at_least, at_most = OVERFIT_STEPS
    name, began, seconds = "one batch can be overfitted", time.perf_counter(), math.inf
    examples = len(next(iter(batch.values())))
    try:
        while len(losses) < at_most:
            if len(losses) >= at_least and time.perf_counter() - began > OVERFIT_SECONDS:
                break
            step_began = time.perf_counter()
            losses.append(run.step([(range(examples), batch)]).loss)
            seconds = min(seconds, time.perf_counter() - step_began)
    except ConjureError as error:
        return Finding(name, False, error.message), seconds
    factor = losses[-1] / losses[0]
    detail = f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {len(losses)} steps: x {factor:.2f}"
    return Finding(name, factor <= OVERFIT_FACTOR, f"{detail}, allowed {OVERFIT_FACTOR}"), seconds


@torch.no_grad()
def causality(task: Trainable, batch: Batch) -> list[Finding]:
    """Whether the future, or a neighbouring document in the same row, leaks into a logit."""
    if not task.causal:
        return [Finding("later tokens change no earlier logit", None, "this task is not causal")]
    key = next((name for name in TOKENS if name in batch), None)
    if key is None:
        raise ConjureError(f"a causal task's batch names its tokens {' or '.join(TOKENS)}, got {', '.join(batch)}")
    task.network.eval()
    length, vocabulary = batch[key].size(1), int(batch[key].max()) + 1
    leak = effect = allowed = 0.0
    for cut in sorted({1, length // 2, length - 1}):
        late_T = torch.arange(length) >= cut
        change_BT, allowed = changes(task, batch, key, late_T, vocabulary)
        leak, effect = max(leak, float(change_BT[:, :cut].max())), max(effect, float(change_BT[:, cut:].max()))
    detail = f"largest change before the token {leak:.1e} (allowed {allowed:.1e}), after it {effect:.1e}"
    found = [Finding("later tokens change no earlier logit", leak <= allowed < effect, detail)]

    name = "documents do not see each other"
    packed = next((each for each in map(task.batch, ([i] for i in range(SEARCHED))) if borders(each)), None)
    if packed is None:
        return [*found, Finding(name, None, f"no row of the first {SEARCHED} holds two")]
    first_BT = packed["documents"] == packed["documents"][:, :1]
    change_BT, allowed = changes(task, packed, key, first_BT, vocabulary)
    leak = float(change_BT[~first_BT].max())
    detail = f"{borders(packed)} borders in a row, largest change across {leak:.1e} (allowed {allowed:.1e})"
    return [*found, Finding(name, leak <= allowed, detail)]


def changes(task: Trainable, batch: Batch, key: str, where: Tensor, vocabulary: int) -> tuple[Tensor, float]:
    """How much each position's logits change `[B, T]` if the tokens `where` are others; what rounding may do."""
    logits_BTV = task.logits(batch)
    other_BT = torch.where(where, (batch[key] + 1) % vocabulary, batch[key])
    change_BT = (task.logits({**batch, key: other_BT}) - logits_BTV).abs().amax(-1)
    return change_BT, 1e-5 * float(logits_BTV.abs().max())


def borders(batch: Batch) -> int:
    """Places within rows where another document begins."""
    if "documents" not in batch:
        return 0
    return int((batch["documents"][:, 1:] != batch["documents"][:, :-1]).sum())


def evaluates(task: Trainable) -> Finding:
    """Whether the validation, which may come hours into a run, works at all."""
    task.network.eval()
    with torch.no_grad():
        figures = task.evaluate(2)
    detail = ", ".join(f"{name} {value:.4f}" for name, value in figures.items()) + " on 2 examples"
    return Finding("evaluation", all(math.isfinite(value) for value in figures.values()), detail)


def activation_bytes(run: Run, batch: Batch) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in run.state.network.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        accumulate(run.task, run.state.network, [(range(1), batch)], run.device, run.config.precision)
    run.state.network.zero_grad()
    return sum(held.values())


def forecast(run: Run, config: Training, held: float, seconds: float) -> list[Finding]:
    """Memory, time and size; `held` bytes of activations and `seconds` are per example."""
    state = sum(tensor.nbytes for tensor in run.state.tensors().values())
    gradients = sum(p.nbytes for p in run.state.network.parameters() if p.requires_grad)
    activations = held * min(config.batch, config.micro_batch or config.batch)
    total, there = state + gradients + activations, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory = f"weights, optimisers and average {size(state)}, gradients {size(gradients)}, activations "
    memory += f"{size(activations)}: {size(total)} of this machine's {size(there)}"
    step = seconds * config.batch
    values = sum(tensor.numel() for tensor in checkpoint.named_tensors(run.state.network).values())
    result = values * SAVED_BYTES.get(config.save_dtype, 4)
    return [
        Finding("memory", total < there if run.device.type == "cpu" else None, memory),
        Finding("time", None, f"{step:.2f} s a step, {duration(step * config.steps)} for {config.steps:,} steps"),
        Finding("size", None, f"model {size(result)} as {config.save_dtype}, a checkpoint {size(state)}"),
    ]


def size(count: float) -> str:
    """Bytes for human eyes: `1.5 GB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
