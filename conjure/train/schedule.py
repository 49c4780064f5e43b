"""Learning-rate schedules as pure functions: step -> multiplier of the peak rate, in [0, 1]."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "linear", "cosine", "wsd"]


def multiplier(
    step: int, steps: int, schedule: Schedule, *, warmup: int = 0, cooldown: int = 0, minimum: float = 0.0
) -> float:
    """The factor on the peak learning rate at `step` (0 <= step < steps).

    Every schedule rises linearly over `warmup` steps: (step + 1) / warmup. Then
    constant: 1; linear and cosine: down to `minimum`, which step = `steps` would reach;
    wsd (warm-up, stable, decay; MiniCPM, arXiv 2404.06395): 1, then linearly down for `cooldown` steps.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    start = max(warmup, steps - cooldown) if schedule == "wsd" else warmup
    if step < start:
        return 1.0
    gone = (step - start) / max(1, steps - start)
    shape = 0.5 * (1 + math.cos(math.pi * gone)) if schedule == "cosine" else 1 - gone
    return minimum + (1 - minimum) * shape
