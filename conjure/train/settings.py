"""The `train:` section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from conjure.core.config import to_dict
from conjure.core.errors import ConjureError
from conjure.train.schedule import Schedule

Parallel = Literal["auto", "ddp", "fsdp"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train: the `train:` section of a recipe."""

    steps: int
    """Optimiser steps."""
    batch: int
    """Examples per step, over all processes."""
    micro_batch: int = 0
    """Examples per forward pass; 0 is the whole share of the process. Changes memory, not the result."""
    optimizer: Literal["muon", "adamw"] = "adamw"
    lr: float = 1e-3
    """Peak rate of Muon, and of AdamW without `adam_lr`. Muon's updates are scaled to the size of AdamW's."""
    adam_lr: float | None = None
    """Peak rate of AdamW; null is `lr`."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    """Decoupled, of everything but vectors."""
    schedule: Schedule = "cosine"
    warmup: int = 0
    """Steps in which the rate rises from 0."""
    cooldown: int = 0
    """Last steps in which the rate falls, for `schedule: wsd`."""
    min_lr: float = 0.0
    """Where the rate ends, as a fraction of the peak."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 leaves it alone."""
    ema: float = 0.0
    """Decay of the average of the weights, which is what gets evaluated and saved; 0 keeps none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of activations; weights and optimiser state are always float32."""
    save_dtype: str = "float32"
    """Of the weights in the finished model folder."""
    compile: bool = False
    device: str = "auto"
    parallel: Parallel = "auto"
    """Under torchrun: "ddp" (which is "auto") copies the network, "fsdp" shards it."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice. Another number gives other rounding."""
    prefetch: int = 1
    """Threads that build batches ahead."""
    log_every: int = 10
    evaluate_every: int = 0
    """Steps between evaluations; 0 evaluates at the end only."""
    evaluate_limit: int | None = None
    """At most so many validation examples; null is all."""
    preview_every: int = 0
    """Steps between previews; 0 makes none."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 goes by `checkpoint_minutes` alone."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; 0 goes by `checkpoint_every` alone."""
    keep: int = 2
    """Checkpoints kept."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ConjureError(f"train.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("micro_batch", "warmup", "cooldown", "threads", "prefetch", "clip", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConjureError(f"train.{name}: expected at least 0, got {getattr(self, name)}")
        if self.lr <= 0 or (self.adam_lr is not None and self.adam_lr <= 0):
            raise ConjureError("train.lr and train.adam_lr: expected more than 0")
        if not 0 <= self.ema < 1 or not 0 <= self.min_lr <= 1:
            raise ConjureError("train.ema and train.min_lr: expected a fraction of 1")


MAY_CHANGE = {
    *(
        "micro_batch",
        "compile",
        "device",
        "parallel",
        "threads",
        "prefetch",
        "log_every",
        "keep",
        "save_dtype",
    ),
    *("evaluate_every", "evaluate_limit", "preview_every", "checkpoint_every", "checkpoint_minutes"),
}
"""Settings that a resumed run may have otherwise: they change the result by rounding at most."""


def fixed_settings(config: Training) -> dict[str, Any]:
    """The settings that a resumed run must share."""
    return {name: value for name, value in to_dict(config).items() if name not in MAY_CHANGE}
