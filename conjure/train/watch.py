"""Notices a training run that has come off the rails."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from conjure.core.errors import ConjureError

WINDOW = 100
"""Steps whose losses make the running median."""
PATIENCE = 20
"""Consecutive steps above the limit before training stops."""
FACTOR = 3.0
"""The limit, in running medians."""


class Watch:
    """Raises `ConjureError` at a loss or gradient that is no number, or a loss that stays far too high. In a `game` one
    network loses what the other wins, so that a loss may rise."""

    def __init__(self, warmup: int, *, game: bool = False) -> None:
        self.warmup, self.game = warmup, game
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.high = 0

    def check(self, step: int, loss: float, norm: float, indices: Sequence[int], guilty: Sequence[int] = ()) -> None:
        """`indices` are the examples of the step, `guilty` those whose own loss is no number, if known."""
        if not math.isfinite(loss) or not math.isfinite(norm):
            what = f"loss {loss:g}" if not math.isfinite(loss) else f"gradient norm {norm:g}"
            raise ConjureError(
                f"training stopped at step {step}: {what} on {name_indices(guilty or indices)}",
                hint="the last good checkpoint is untouched; look at these examples, or lower the rate",
            )
        full = len(self.losses) == WINDOW and step >= self.warmup
        limit = FACTOR * median(self.losses) if full else math.inf
        self.high = self.high + 1 if loss > limit > 0 and not self.game else 0
        if self.high >= PATIENCE:
            raise ConjureError(
                f"training stopped at step {step}: the loss {loss:.4g} has been over {limit:.4g}, three "
                f"times its running median, for {PATIENCE} steps; the last batch was {name_indices(indices)}",
                hint="the last good checkpoint is untouched; lower the rate, lengthen the warm-up, or clip",
            )
        self.losses.append(loss)

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Go on where `facts` were taken."""
        self.losses.extend(facts["losses"])
        self.high = facts["high"]

    def facts(self) -> dict[str, Any]:
        """What to store, so that a resumed run stops where an uninterrupted one does."""
        return {"losses": list(self.losses), "high": self.high}


def name_indices(indices: Sequence[int]) -> str:
    """`examples 64..95`, or a list of a few."""
    ordered = sorted(indices)
    if len(ordered) > 1 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"examples {ordered[0]}..{ordered[-1]}"
    shown = ", ".join(map(str, ordered[:16]))
    return f"example{'s' * (len(ordered) > 1)} {shown}{', ...' * (len(ordered) > 16)}"
