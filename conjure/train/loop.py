"""The one training loop. It knows a task's `loss`, `preview` and `evaluate`, and no medium."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch

from conjure.core.config import to_dict
from conjure.core.device import pick
from conjure.core.protocol import Trainable
from conjure.train import checkpoint
from conjure.train.distributed import joined, whole
from conjure.train.guards import claimed, cpu_threads, deferred_interrupt
from conjure.train.report import Report, Silence
from conjure.train.run import Run, begin
from conjure.train.settings import Training, fixed_settings

__all__ = ["Training", "train"]


def train(
    task: Trainable,
    config: Training,
    folder: Path,
    *,
    resume: bool = False,
    seed: int = 0,
    recipe: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train `task` and save the model in `folder`; returns the last loss and the final validation figures.

    `folder` also gets checkpoints/, previews/ and metrics.jsonl. With `resume`, continues at the newest
    checkpoint there, or begins where there is none; a checkpoint of another `recipe` (plain values), seed or
    config is refused. Ctrl-C finishes the step, saves a checkpoint and raises KeyboardInterrupt. Divergence
    raises ConjureError and leaves the last good checkpoint as it is. Under torchrun every process calls this;
    the figures are the first one's.
    """
    device = pick(config.device)
    with ExitStack() as stack:
        world = stack.enter_context(joined(config.parallel, device))
        stack.enter_context(claimed(folder, world, resume))
        stack.enter_context(cpu_threads(config.threads))
        interrupted = stack.enter_context(deferred_interrupt())

        run = begin(task, config, seed=seed, device=device, world=world)
        settings = {"train": fixed_settings(config), "seed": seed, "recipe": to_dict(recipe or {})}
        place = checkpoint.latest(folder) if resume else None
        if place:
            run.watch.restore(checkpoint.load(place, run.state, settings, world=world))
        report = stack.enter_context(closing(make_report(run, folder)))
        if place:
            report.note(f"continuing at step {run.state.step}, from {place}")

        def save() -> None:
            facts = {"settings": settings, **run.watch.facts()}
            checkpoint.save(folder, run.state, facts, world=world, keep=config.keep)

        loss = run_steps(run, report, save, interrupted)
        figures = run.evaluate()
        report.figures(run.state.step, figures)
        weights = {name: whole(tensor).cpu() for name, tensor in run.state.weights().items()}
        task.network.eval()
        if world.first:
            task.save(folder, weights=weights, dtype=config.save_dtype)
            report.note(f"saved in {folder}")
        world.wait()
        return {"train_loss": loss, **figures}


def run_steps(run: Run, report: Report | Silence, save: Callable[[], None], interrupted: threading.Event) -> float:
    """Every step that is left, with what is due after each; returns the last loss."""
    config, state = run.config, run.state
    loss, saved_at = run.watch.losses[-1] if run.watch.losses else math.nan, time.monotonic()

    def due() -> tuple[bool, bool]:
        overdue = 0 < 60 * config.checkpoint_minutes < time.monotonic() - saved_at
        return interrupted.is_set(), overdue and run.world.first

    with closing(run.micro_batches()) as upcoming:
        for micro_batches in upcoming:
            began = time.perf_counter()
            done = run.step(micro_batches, flags=due)
            stop, overdue = done.flags
            loss, last = done.loss, state.step == config.steps
            report.step(done, state.step, time.perf_counter() - began)

            if every(config.evaluate_every, state.step) and not last:
                report.figures(state.step, run.evaluate())
            if config.preview_every and (every(config.preview_every, state.step) or last):
                report.previews(state.step, run.preview())
            if every(config.checkpoint_every, state.step) or overdue or stop or last:
                save()
                saved_at = time.monotonic()
            if stop and not last:
                report.note(f"stopped at step {state.step}, which is saved: go on with --resume")
                raise KeyboardInterrupt
    return loss


def every(interval: int, step: int) -> bool:
    return interval > 0 and step % interval == 0


def make_report(run: Run, folder: Path) -> Report | Silence:
    if not run.world.first:
        return Silence()
    config, dtype = run.config, getattr(torch, run.config.precision)
    return Report(
        folder,
        steps=config.steps,
        start=run.state.step,
        log_every=config.log_every,
        device=run.device,
        dtype=dtype,
    )
