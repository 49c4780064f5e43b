"""Weights that lie in a file as length and direction (Salimans and Kingma 2016, arXiv 1602.07868), in its old names
(`weight_g`, `weight_v`) and its new ones (`parametrizations.weight.original0`, `original1`), seen as plain weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.checkpoint import Tensors

LENGTH, DIRECTION = "weight_g", "weight_v"


class Folded:
    """The tensors of a checkpoint with each such pair as one, `weight`; a `Checkpoint` gives both forms one name."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        there = set(tensors.names())
        ends = (name.removesuffix(LENGTH) for name in there if name.endswith(f".{LENGTH}"))
        self._pairs = {f"{top}weight": top for top in ends if top + DIRECTION in there}

    def names(self) -> Sequence[str]:
        halves = {top + end for top in self._pairs.values() for end in (LENGTH, DIRECTION)}
        return sorted((set(self._tensors.names()) - halves) | set(self._pairs))

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors.shape(self._pairs[name] + DIRECTION if name in self._pairs else name)

    def tensor(self, name: str) -> Tensor:
        if name not in self._pairs:
            return self._tensors.tensor(name)
        top = self._pairs[name]
        length, direction = self._tensors.tensor(top + LENGTH), self._tensors.tensor(top + DIRECTION)
        # The axes over which lengths were taken are those along which there is one length alone.
        over = [axis for axis, size in enumerate(length.shape) if size == 1]
        if length.dim() != direction.dim() or not over:
            raise ConjureError(f"{top}{LENGTH} {list(length.shape)} does not fit {DIRECTION} {list(direction.shape)}")
        norm = torch.linalg.vector_norm(direction.float(), dim=over, keepdim=True)
        return (direction.float() * (length.float() / norm)).to(direction.dtype)
