"""What a run tells while it runs: a line on stderr, metrics as JSONL and TensorBoard, previews as files."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from conjure.core.device import matmul_rate
from conjure.core.files import write_atomic
from conjure.core.protocol import Medium
from conjure.media.kinds import writable

if TYPE_CHECKING:
    from conjure.train.run import Step


class Report:
    """One run's voice. A run continued at step `start` keeps the metrics up to there, and no others."""

    def __init__(
        self,
        folder: Path,
        *,
        steps: int,
        start: int,
        log_every: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.folder, self.steps, self.log_every = folder, steps, log_every
        self.console = Console(stderr=True, highlight=False)
        self.peak = matmul_rate(dtype, device=str(device))
        self.tokens = self.flops = self.seconds = 0.0
        self.counted = 0
        keep_until(folder / "metrics.jsonl", start, steps)
        self.metrics = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self.board = tensorboard(folder, start)
        if self.board is None and start == 0:
            self.note("tensorboard is not installed: the curves are in metrics.jsonl only")
        self.bar: Progress | None = None
        self.task = TaskID(0)
        if sys.stderr.isatty():
            self.bar = Progress(
                BarColumn(20), TextColumn("{task.description}", table_column=Column()), console=self.console
            )
            self.task = self.bar.add_task("starting", total=steps, completed=start)
            self.bar.start()

    def step(self, done: Step, step: int, seconds: float) -> None:
        """After `step` optimiser steps; the last one took `seconds`."""
        self.tokens += done.tokens
        self.flops += done.flops
        self.seconds += seconds
        self.counted += 1
        logged = step % self.log_every == 0 or step == self.steps
        if not logged and self.bar is None:
            return
        rate = self.tokens / self.seconds
        fraction = self.flops / self.seconds / self.peak
        left = duration((self.steps - step) * self.seconds / self.counted)
        line = f"step {step}/{self.steps}  loss {done.loss:.4f}  lr {done.lr:.2e}  {rate:,.0f} tokens/s"
        line += f"  {fraction:.1%} of matmul rate  {left} left"
        if self.bar is not None:
            self.bar.update(self.task, completed=step, description=line)
        if not logged:
            return
        if self.bar is None:
            self.note(line)
        values = {"loss": done.loss, "norm": done.norm, "lr": done.lr}
        self._record(step, {**values, "tokens_per_second": rate, "matmul_fraction": fraction})
        self.tokens = self.flops = self.seconds = 0.0
        self.counted = 0

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Validation figures after `step` steps."""
        self._record(step, {f"evaluation/{name}": value for name, value in figures.items()})
        said = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self.note(f"step {step}/{self.steps}  evaluation: {said}")

    def previews(self, step: int, media: Mapping[str, Medium]) -> None:
        """Samples after `step` steps, as previews/step-N/NAME.SUFFIX."""
        place = self.folder / "previews" / f"step-{step:08d}"
        place.mkdir(parents=True, exist_ok=True)
        for stem, medium in media.items():
            suffix = writable(medium.kind)[0]
            medium.save(place / f"{stem}{suffix}")
        self.note(f"step {step}/{self.steps}  previews in {place}")

    def note(self, text: str) -> None:
        """One line for the user."""
        self.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.board is not None:
            self.board.close()
        self.metrics.close()

    def _record(self, step: int, values: Mapping[str, float]) -> None:
        self.metrics.write(json.dumps({"step": step, **values}) + "\n")
        self.metrics.flush()
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)


class Silence:
    """The report of every process but the first."""

    def step(self, done: Step, step: int, seconds: float) -> None: ...
    def figures(self, step: int, figures: Mapping[str, float]) -> None: ...
    def previews(self, step: int, media: Mapping[str, Medium]) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


def tensorboard(folder: Path, start: int) -> Any | None:
    """A TensorBoard writer where the package is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)


def keep_until(path: Path, step: int, steps: int) -> None:
    """Drop what a run of `steps` steps continued at `step` will record again, and a line left half written.

    The last checkpoint is older than the last figures: a run continued at its end evaluates once more.
    """
    if not path.exists():
        return

    def stays(row: Mapping[str, float]) -> bool:
        final = row["step"] == steps and any(name.startswith("evaluation/") for name in row)
        return row["step"] <= step and not final

    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and stays(json.loads(line))]
    write_atomic(path, "".join(kept).encode())


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
