"""The key-value cache of autoregressive decoding: preallocated, filled from the left.

Legend: B rows, K key-value heads, S slots, D head width, T new tokens, N tokens of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.nn.rounding import pack, unpack

SLACK = 64
"""Slots that a layer with a window keeps beyond it, so that the last few tokens can be taken back."""


class Cache:
    """Keys and values of all layers for up to `capacity` tokens a row.

    Rows of different length are padded on the left: `padding[b]` slots of row b hold nothing, its first token stands
    in slot `padding[b]` and has position 0. All rows grow together. A layer with a window keeps the slots it can still
    see and `SLACK` more. With `value_dim` 0 a layer stores keys only, as latent attention does. `int8` holds keys and
    values in eight bits, with a scale for each token and head.
    """

    def __init__(
        self,
        *,
        layers: int,
        batch: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        value_dim: int | None = None,
        windows: Sequence[int] = (),
        padding: Sequence[int] | None = None,
        int8: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.windows = tuple(windows) or (0,) * layers
        self.capacity = capacity
        self.first = dict.fromkeys(self.windows, 0)
        """Window -> the slot that stands first in the memory of the layers with this window."""
        width = head_dim if value_dim is None else value_dim
        sizes = [self._size(window) for window in self.windows]
        held = torch.int8 if int8 else dtype
        self.keys = [torch.zeros(batch, kv_heads, size, head_dim, dtype=held, device=device) for size in sizes]
        self.values = [torch.zeros(batch, kv_heads, size, width, dtype=held, device=device) for size in sizes]
        self.scales = [torch.zeros(batch, kv_heads, size, 2, device=device) for size in sizes] if int8 else []
        """Of eight-bit keys and values: what a key, and a value, of each slot is multiplied by."""
        self.dtype = dtype
        self.padding_B = torch.tensor(list(padding or [0] * batch), device=device)
        assert self.padding_B.shape == (batch,), "one padding a row"
        self.padded = bool(self.padding_B.any())
        self.length = 0
        """Slots in use."""
        self.ids_BN: Tensor | None = None
        """The ids so far, for networks whose embedding looks back; they keep it themselves."""
        self.memory: list[tuple[Tensor, Tensor]] = []
        """Keys and values of what a decoder reads across, a pair a layer, for encoder-decoders."""
        self.memory_mask: Tensor | None = None
        """True where that is no padding, `[B, M]`."""

    def append(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Write behind the tokens that are there; returns the keys and values from slot `begins(window, T)` on."""
        T = k_BKTD.shape[2]
        if self.length + T > self.capacity:
            raise ConjureError(
                f"the cache holds {self.capacity} tokens a row, {self.length + T} were asked for",
                hint="ask for fewer tokens",
            )
        window = self.windows[layer]
        begin, kept = self.begins(window, T), self._kept(window, T)
        held = slice(begin - self.first[window], self.length - self.first[window])
        if self.scales:
            (k, k_scale), (v, v_scale) = pack(k_BKTD), pack(v_BKTD)
            scales = _appended(self.scales[layer], held, torch.cat([k_scale, v_scale], dim=-1), kept)
            return (
                unpack(_appended(self.keys[layer], held, k, kept), scales[..., :1], self.dtype),
                unpack(_appended(self.values[layer], held, v, kept), scales[..., 1:], self.dtype),
            )
        return (
            _appended(self.keys[layer], held, k_BKTD, kept),
            _appended(self.values[layer], held, v_BKTD, kept),
        )

    def begins(self, window: int, tokens: int) -> int:
        """The slot of the first key that a layer with this window gets when `tokens` more come."""
        if self.length - self.first[window] + tokens <= self._size(window):
            return self.first[window]
        return max(self.first[window], self.length - (window - 1 + SLACK))

    def advance(self, tokens: int) -> None:
        """All layers have appended `tokens` tokens."""
        self.first = {w: self.length + tokens - self._kept(w, tokens) for w in self.first}
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
        self.scales = [s.index_select(0, index) for s in self.scales]
        self.memory = [(k.index_select(0, index), v.index_select(0, index)) for k, v in self.memory]
        self.padding_B = self.padding_B.index_select(0, index)
        self.padded = bool(self.padding_B.any())
        self.memory_mask = None if self.memory_mask is None else self.memory_mask.index_select(0, index)
        self.ids_BN = None if self.ids_BN is None else self.ids_BN.index_select(0, index)

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` slots. Layers with a window can go back `SLACK` tokens at least."""
        assert length <= self.length, "a cache cannot be truncated to more than it holds"
        for window, first in self.first.items():
            assert first == 0 or first + window - 1 <= length, f"a window of {window} has forgotten what comes before"
        self.length = length
        if self.ids_BN is not None:
            self.ids_BN = self.ids_BN[:, :length]

    def state(self) -> dict[str, Tensor]:
        """What is in use, as tensors by name, for `restore` into a new cache of the same network."""
        tensors = {"padding": self.padding_B, "length": torch.tensor(self.length)}
        for layer, window in enumerate(self.windows):
            used = self.length - self.first[window]
            tensors[f"{layer}.keys"] = self.keys[layer][:, :, :used].contiguous()
            tensors[f"{layer}.values"] = self.values[layer][:, :, :used].contiguous()
            if self.scales:
                tensors[f"{layer}.scales"] = self.scales[layer][:, :, :used].contiguous()
        for layer, (k, v) in enumerate(self.memory):
            tensors[f"{layer}.memory_keys"], tensors[f"{layer}.memory_values"] = k.contiguous(), v.contiguous()
        if self.memory_mask is not None:
            tensors["memory_mask"] = self.memory_mask.contiguous()
        if self.ids_BN is not None:
            tensors["ids"] = self.ids_BN.contiguous()
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        """Fill an empty cache with what `state` gave; the capacity must hold it."""
        length = int(state["length"])
        if length > self.capacity:
            raise ConjureError(f"the cache holds {self.capacity} tokens a row, what was stored has {length}")
        self.padding_B, self.length = state["padding"].to(self.padding_B.device), length
        self.padded = bool(self.padding_B.any())
        self.ids_BN, self.memory_mask = state.get("ids"), state.get("memory_mask")
        for layer, window in enumerate(self.windows):
            keys, values = state[f"{layer}.keys"], state[f"{layer}.values"]
            used = keys.shape[2]
            if used > self.keys[layer].shape[2]:  # it came from a longer cache: the window needs only its last slots
                used = min(window - 1 + SLACK, self.keys[layer].shape[2])
                keys, values = keys[:, :, -used:], values[:, :, -used:]
            self.keys[layer][:, :, :used] = keys
            self.values[layer][:, :, :used] = values
            if self.scales:
                self.scales[layer][:, :, :used] = state[f"{layer}.scales"][:, :, -used:]
            self.first[window] = length - used
        pairs = len([name for name in state if name.endswith("memory_keys")])
        self.memory = [(state[f"{i}.memory_keys"], state[f"{i}.memory_values"]) for i in range(pairs)]

    def _size(self, window: int) -> int:
        return min(self.capacity, 2 * (window - 1 + SLACK)) if window else self.capacity

    def _kept(self, window: int, tokens: int) -> int:
        """Slots in the memory of a layer once `tokens` more have come."""
        end = self.length + tokens
        total = end - self.begins(window, tokens)
        return total if total <= self._size(window) else min(window - 1 + SLACK, total)


def _appended(memory_BKSD: Tensor, held: slice, new_BKTD: Tensor, kept: int) -> Tensor:
    """`memory[held]` and `new` in one; the last `kept` of them lie at the front of the memory afterwards."""
    count = held.stop - held.start
    total = count + new_BKTD.shape[2]
    if held.start:  # to the front; a copy in between, since the places may overlap
        memory_BKSD[:, :, :count] = memory_BKSD[:, :, held].clone()
    if total == kept:
        memory_BKSD[:, :, count:total] = new_BKTD
        return memory_BKSD[:, :, :total]
    whole_BKSD = torch.cat([memory_BKSD[:, :, :count], new_BKTD], dim=2)
    memory_BKSD[:, :, :kept] = whole_BKSD[:, :, total - kept :]
    return whole_BKSD
