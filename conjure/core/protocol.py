"""The three shapes that rooms agree on: a medium, something that trains, something that generates.

`train/` knows a task only as `Trainable`; the command line and the server know it only as `Generative`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from conjure.core.events import Event


class Medium(Protocol):
    """A small frozen value such as `media.text.Text` or `media.image.Image`."""

    @property
    def kind(self) -> str:
        """ "text", "image", ..."""
        ...

    def save(self, path: str | Path) -> Path:
        """Writes the medium in the format that the suffix of `path` names."""
        ...

    def digest(self) -> str:
        """`sha256:<hex>` of the content."""
        ...


class Trainable(Protocol):
    """A network with its data and loss. Example i is a pure function of (recipe seed, i), so that resuming,
    accumulating gradients and any number of processes all see the same examples."""

    network: torch.nn.Module
    """All parameters that train."""

    sets: tuple[str, ...]
    """Names of the data sets it trains on, for the model card."""

    causal: bool
    """True where `logits` at a position may depend on earlier positions only."""

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The examples with these indices as CPU tensors, `[len(indices), ...]` each; holds `seeds`
        int64 `[B]` where the loss draws noise."""
        ...

    def loss(self, batch: dict[str, Tensor], network: torch.nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum of the loss over targets, number of targets), both scalars; the caller divides by the global
        number. `network` is the wrapped module (compiled, distributed) where there is one."""
        ...

    def tokens(self, batch: dict[str, Tensor]) -> int:
        """Tokens, or positions, that the network processes in this batch."""
        ...

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Floating-point operations of forward and backward pass over this batch."""
        ...

    def describe(self, batch: dict[str, Tensor]) -> str:
        """The batch for human eyes, with the targets that carry loss."""
        ...

    def preview(self, seed: int) -> dict[str, Medium]:
        """Samples of the network as it stands: file stem -> medium."""
        ...

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Validation figures over at most `limit` examples; the first is the one to minimise."""
        ...

    def save(
        self,
        folder: Path,
        *,
        weights: dict[str, Tensor] | None = None,
        dtype: str = "float32",
    ) -> None:
        """Writes the model folder, with `weights` (an average, say) in place of the network's own if
        given."""
        ...

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """`[B, T, vocabulary]`; asked only where `causal`."""
        ...


class Generative(Protocol):
    """A loaded task, ready for use."""

    def generate(self, inputs: list[Any], options: Any, seeds: list[int]) -> Iterator[Event]:
        """One medium per seed; yields events, `Result` last. Closing the iterator cancels the work."""
        ...

    def evaluate_published(
        self, data: list[str], on_progress: Callable[[Event], None] | None = None
    ) -> Mapping[str, Mapping[str, Any]]:
        """The published figures measured again: name -> {"value", "low", "high", "n", "protocol"}."""
        ...
