"""The key-value cache of autoregressive decoding: preallocated, filled from the left.

Legend: B rows, K key-value heads, S slots, D head width, T new tokens, N earlier tokens that are remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from conjure.core.errors import ConjureError


class Cache:
    """Keys and values of all layers for up to `capacity` tokens a row.

    Rows of different length are padded on the left: `padding[b]` slots of row b hold nothing, its first token stands
    in slot `padding[b]` and has position 0. All rows grow together.
    """

    def __init__(
        self,
        *,
        layers: int,
        batch: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        padding: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (batch, kv_heads, capacity, head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.padding_B = torch.tensor(list(padding or [0] * batch), device=device)
        assert self.padding_B.shape == (batch,), "one padding a row"
        self.padded = bool(self.padding_B.any())
        self.capacity = capacity
        self.length = 0
        """Slots in use."""
        self.recent_BN: Tensor | None = None
        """The last ids of each row, for networks whose embedding looks back; they keep it themselves."""

    def append(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Write behind the `length` tokens that are there; returns all keys and values so far, as views."""
        end = self.length + k_BKTD.shape[2]
        if end > self.capacity:
            raise ConjureError(
                f"the cache holds {self.capacity} tokens a row, {end} were asked for", hint="ask for fewer tokens"
            )
        self.keys[layer][:, :, self.length : end] = k_BKTD
        self.values[layer][:, :, self.length : end] = v_BKTD
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self, tokens: int) -> None:
        """All layers have appended `tokens` tokens."""
        self.length += tokens

    def positions(self, tokens: int) -> Tensor:
        """Positions of the next `tokens` tokens, int64 `[T]`, or `[B, T]` where rows are padded (below 0: padding)."""
        slots_T = torch.arange(self.length, self.length + tokens, device=self.padding_B.device)
        return slots_T - self.padding_B[:, None] if self.padded else slots_T

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order (a row may come twice)."""
        index = torch.tensor(list(rows), device=self.padding_B.device)
        self.keys = [k.index_select(0, index) for k in self.keys]
        self.values = [v.index_select(0, index) for v in self.values]
        self.padding_B = self.padding_B.index_select(0, index)
        self.padded = bool(self.padding_B.any())
        if self.recent_BN is not None:
            self.recent_BN = self.recent_BN.index_select(0, index)
