"""What the two lean decoders share, `Compiled` and `Eager`: the shapes they know, their cache, tables, and checks.

Legend: L layers, B rows, T tokens, K key-value heads, S slots, C head width, R rotated width, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.feedforward import Activation
from conjure.nn.position import Rope, rope_tables, sinusoid_table

_KNOWN = frozenset(
    "vocab dim layers heads kv_heads head_dim hidden activation gated norm norm_eps norm_affine placement "
    "final_norm parallel qkv_bias out_bias mlp_bias qk_norm rope rope_local positions positions_from "
    "position_offset pad max_length alibi windows attention_scale scale_by_layer sinks embedding_scale "
    "embedding_norm tie head_bias logit_scale logit_softcap attention_softcap ngram".split()
)
_ACTIVATIONS: tuple[Activation, ...] = ("silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "relu2")


def unknown(config: TransformerConfig) -> str:
    """What of a network of this shape is written in `Transformer` alone; empty where all is known."""
    for field in dataclasses.fields(config):
        if field.name not in _KNOWN and getattr(config, field.name) != field.default:
            return f"{field.name} is not written in it"
    if config.activation not in _ACTIVATIONS:
        return f"the activation {config.activation} is not written in it"
    if config.alibi == "falcon" or config.positions_from == "ids":
        return "these positions are not written in it"
    for rope in (config.rope, config.rope_local):
        if rope is not None and rope.scaling is not None and rope.scaling.kind in ("dynamic", "longrope"):
            return f"{rope.scaling.kind} rotary positions change with the length of the text"
    return ""


class FlatCache:
    """Keys `[L, B, K, ...]` and values `[L, B, K, S, ...]` of all layers in two tensors, filled from the left.

    Rows are padded on the left as in `conjure.nn.cache.Cache`, which has the same methods.
    """

    def __init__(self, keys: Tensor, values: Tensor, capacity: int, padding: Sequence[int] | None) -> None:
        self.keys, self.values, self.capacity = keys, values, capacity
        batch = keys.shape[1]
        self.padding_B = torch.tensor(list(padding or [0] * batch))
        assert self.padding_B.shape == (batch,), "one padding a row"
        self.padded = bool(self.padding_B.any())
        self.length = 0
        """Slots in use."""
        self.ids_BN: Tensor | None = None
        """The ids so far, for networks whose embedding looks back; they keep it themselves."""

    def positions(self, tokens: int) -> Tensor:
        """Positions of the next `tokens` tokens, int64 `[T]`, or `[B, T]` where rows are padded (below 0: padding)."""
        slots_T = torch.arange(self.length, self.length + tokens)
        return slots_T - self.padding_B[:, None] if self.padded else slots_T

    def advance(self, tokens: int) -> None:
        """`tokens` more tokens are in."""
        self.length += tokens

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order (a row may come twice)."""
        index = torch.tensor(list(rows))
        self.keys, self.values = self.keys.index_select(1, index), self.values.index_select(1, index)
        self.padding_B = self.padding_B.index_select(0, index)
        self.padded = bool(self.padding_B.any())
        if self.ids_BN is not None:
            self.ids_BN = self.ids_BN.index_select(0, index)

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` slots."""
        assert length <= self.length, "a cache cannot be truncated to more than it holds"
        self.length = length
        if self.ids_BN is not None:
            self.ids_BN = self.ids_BN[:, :length]

    def _state(self) -> dict[str, Tensor]:
        """What `state` gives beside keys and values."""
        tensors = {"padding": self.padding_B, "length": torch.tensor(self.length)}
        return tensors if self.ids_BN is None else {**tensors, "ids": self.ids_BN.contiguous()}

    def _restore(self, state: dict[str, Tensor], fits: bool) -> int:
        """The same the other way; the length. `fits`: the stored keys are of a kind that can be put in here."""
        length = int(state["length"])
        if length > self.capacity:
            raise ConjureError(f"the cache holds {self.capacity} tokens a row, what was stored has {length}")
        if not fits:
            raise ConjureError(
                "what was stored belongs to a network that runs in another way",
                hint="store it again with the weights in the type that is used now",
            )
        self.padding_B, self.length, self.ids_BN = state["padding"], length, state.get("ids")
        self.padded = bool(self.padding_B.any())
        return length


def check(ids_BT: Tensor, cache: FlatCache, config: TransformerConfig) -> None:
    """Raises `ConjureError` where these next ids cannot be read."""
    end = cache.length + ids_BT.shape[1]
    if end > cache.capacity:
        raise ConjureError(
            f"the cache holds {cache.capacity} tokens a row, {end} were asked for", hint="ask for fewer tokens"
        )
    if 0 < config.max_length < end:
        raise ConjureError(f"this model reads at most {config.max_length} tokens, got {end}")
    low, high = (int(x) for x in ids_BT.aminmax()) if ids_BT.numel() > 1 else (int(ids_BT),) * 2
    if low < 0 or high >= config.vocab:
        raise ConjureError(f"ids: expected 0 to {config.vocab - 1}, got {low if low < 0 else high}")


class Turns:
    """Tables of rotation, made once for the longest cache so far."""

    def __init__(self) -> None:
        self._found: dict[Rope, tuple[Tensor, Tensor]] = {}

    def __call__(self, rope: Rope, slots: int) -> tuple[Tensor, Tensor]:
        """cos and sin float32 `[S, R/2]` of at least the first `slots` positions."""
        found = self._found.get(rope)
        if found is None or len(found[0]) < slots:
            cos, sin = rope_tables(torch.arange(slots), rope)
            found = self._found[rope] = cos.contiguous(), sin.contiguous()
        return found


def places(transformer: Transformer) -> Tensor | None:
    """What is added at each position `[max_length, D]`, for networks that have such a table."""
    c = transformer.config
    if transformer.place is not None:
        return transformer.place.weight[c.position_offset :]
    if c.positions == "none":
        return None
    rows = c.max_length + c.position_offset
    return sinusoid_table(rows, c.dim, spacing=int(c.positions == "sinusoid_spaced"))[c.position_offset :]


def embedding_scale(transformer: Transformer) -> float:
    """In the precision of the weights: in bfloat16 Gemma's sqrt(3072) is 55.5."""
    dtype = transformer.embed.weight.dtype if isinstance(transformer.embed, nn.Embedding) else torch.float32
    return float(torch.tensor(transformer.config.embedding_scale, dtype=dtype))
