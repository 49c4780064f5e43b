"""Exponential moving average of the weights, with a warm-up of the decay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


def decay_at(step: int, decay: float) -> float:
    """min(decay, (1 + step) / (10 + step)): the average forgets the initial weights quickly."""
    return min(decay, (1 + step) / (10 + step))


class EMA:
    """`average[name]` follows `parameters[name]`: average += (1 - decay) * (parameter - average)."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.parameters = dict(parameters)
        self.average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after optimiser step `step` (counted from 0)."""
        current = [parameter.detach() for parameter in self.parameters.values()]
        torch._foreach_lerp_(list(self.average.values()), current, 1 - decay_at(step, self.decay))

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within the context the network has the averaged weights; afterwards its own, bit for bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self.parameters.items():
            own = parameter.detach().clone()
            parameter.copy_(self.average[name])
            self.average[name].copy_(own)
