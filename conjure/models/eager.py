"""A decoder of few and plain calls to PyTorch: `Eager(transformer)`, for machines where nothing can be compiled.

A step of a small network is hundreds of operations on a few hundred numbers, and what they cost is being called. Here a
layer calls no modules and joins operations: a rotation is one product with a matrix made once a step, scale and mask
go into the product of queries and keys, a norm is two calls. Weights are those of the transformer, which stays usable;
activations are float32 but for what the products of small types take and give.

Legend: B rows, T new tokens, N = B T, D width, H query heads, K key heads, G = H / K, C head width, S slots, L layers,
V vocabulary, I inputs and O outputs of a matrix.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.machine_speed import speeds, without_mkldnn
from conjure.models.decoder import FlatCache, Turns, check, embedding_scale, places, unknown
from conjure.models.transformer import Attention, Block, Transformer, TransformerConfig
from conjure.nn import packed
from conjure.nn.feedforward import ACTIVATIONS, FeedForward
from conjure.nn.norm import LayerNorm, RMSNorm
from conjure.nn.position import Rope, alibi_slopes, rotate
from conjure.nn.quantised import QuantisedEmbedding, QuantisedLinear

Map = Callable[[Tensor], Tensor]
parted = torch.split_with_sizes
"""`Tensor.split` is a function of Python's that takes as long as the rest of it."""
ROWS = 256
"""Tokens that go through the network together: a longer prompt is read in pieces."""
FEW = 12
"""Up to so many rows a bfloat16 product beats one with the matrix made float32, on machines without instructions."""
HIDDEN = -1e30
"""The score of what may not be seen; a finite one, so that padding, which sees nothing, gives numbers still."""


class EagerCache(FlatCache):
    """Keys [L, B, K, C, S], so that a product with them reads along the slots, and values [L, B, K, S, C]."""

    def __init__(self, config: TransformerConfig, batch: int, capacity: int, padding: Sequence[int] | None) -> None:
        head = (config.layers, batch, config.key_heads)
        slots, C = max(capacity, 1), config.width
        super().__init__(torch.zeros(*head, C, slots), torch.zeros(*head, slots, C), capacity, padding)

    def state(self) -> dict[str, Tensor]:
        """What is in use, as tensors by name, for `restore` into a new cache; named as by `conjure.nn.cache.Cache`."""
        tensors = self._state()
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            tensors[f"{layer}.keys"] = keys[..., : self.length].mT.contiguous()
            tensors[f"{layer}.values"] = values[:, :, : self.length].contiguous()
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        """Fill an empty cache with what `state` gave, this one's or the transformer's; the capacity must hold it."""
        stored = state.get("0.keys")
        length = self._restore(state, stored is not None and stored.dtype.is_floating_point)
        for layer in range(len(self.keys)):
            keys, values = state[f"{layer}.keys"], state[f"{layer}.values"]
            begin = length - keys.shape[2]  # of layers with a window only the last slots may be there
            self.keys[layer][..., begin:length] = keys.mT
            self.values[layer][:, :, begin:length] = values


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What a layer does, as functions; a norm that is not there is None."""

    attention_in: Map | None
    attention_out: Map | None
    attention_post: Map | None
    mlp_in: Map | None
    mlp_out: Map | None
    mlp_post: Map | None
    qkv: Map
    qk_norm: Map | None
    out: Map
    up: Map
    down: Map
    sinks: Tensor | None
    scale: float
    window: int
    rope: Rope | None


@dataclass(frozen=True)
class Sight:
    """What the layers of one pass share. Of a single new token a row, T is left out of shapes."""

    turns: dict[Rope, Map]
    """What turns queries and keys `[B, H + K, T, C]`."""
    key_slots: Sequence[Tensor]
    """Where the new keys go, a layer each `[B, K, T, C]`."""
    value_slots: Sequence[Tensor]
    keys: dict[int, Sequence[Tensor]]
    """Window -> all keys that any of the new tokens sees, a layer each `[B K, C, S]`."""
    values: dict[int, Sequence[Tensor]]
    masks: dict[int, Tensor | None]
    """Window -> what is added to scores `[B K, G T, S]`."""


class Turn:
    """A rotation of single tokens: a linear map like any other, so one product with a matrix made once a step.

    Its row j is what becomes of the j-th unit vector, which is itself times a cosine and its partner times a sine.
    """

    def __init__(self, rope: Rope, width: int, cos: Tensor, sin: Tensor) -> None:
        one, none = torch.ones(rope.dim // 2), torch.zeros(rope.dim // 2)
        self._own, ones = torch.eye(width), torch.ones(len(cos), width)
        self._partner = rotate(self._own, none, one, rope.interleaved)
        self._partner[rope.dim :] = 0
        self._cos_SC = rotate(ones, cos, torch.zeros_like(sin), rope.interleaved)
        self._sin_SC = rotate(ones, sin, torch.zeros_like(sin), rope.interleaved)

    def __call__(self, at: Tensor | int, batch: int) -> Map:
        """For `[B, H, C]` at this position, or these `[B]`."""
        cos, sin = self._cos_SC[at].unsqueeze(-2), self._sin_SC[at].unsqueeze(-2)
        turn_BCC = torch.addcmul(self._own * cos, self._partner, sin).expand(batch, -1, -1)
        return lambda x_BHC: torch.bmm(x_BHC, turn_BCC)


class Eager:
    """A network for decoding with the weights of a transformer, used like it; float32 logits. `supports` says which."""

    def __init__(self, transformer: Transformer) -> None:
        assert not self.supports(transformer), "ask `supports` first"
        self.config = c = transformer.config
        assert transformer.embed is not None
        self._embed, self._ngram = transformer.embed, transformer.ngram
        self._scale, self._places = embedding_scale(transformer), places(transformer)
        self._norm_embedding, self._norm = normaliser(transformer.norm_embedding), normaliser(transformer.norm)
        self._layers = [_layer(block, c) for block in transformer.blocks if isinstance(block, Block)]
        self._head = product(transformer.embed if transformer.head is None else transformer.head)
        self._head_bias = None if transformer.head_bias is None else transformer.head_bias.detach().float()
        self._activation, self._gate_up = ACTIVATIONS[c.activation], (c.feedforward, c.feedforward)
        self._tables, self._nothing = Turns(), torch.zeros(1, 1, 1)
        self._turns: dict[Rope, tuple[int, Turn]] = {}
        self._ropes = {layer.rope for layer in self._layers if layer.rope is not None}
        half = any(parameter.dtype == torch.bfloat16 for parameter in transformer.parameters())
        self._plain = half and speeds().plain_decoding()

    @staticmethod
    def supports(transformer: Transformer) -> str:
        """Why this network cannot run here; empty where it can."""
        if transformer.int8_cache:
            return "keys and values in eight bits are not written in it"
        held = (*transformer.parameters(), *transformer.buffers())
        if any(not tensor.is_cpu for tensor in held):
            return "it is written for the CPU"
        return unknown(transformer.config)

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> EagerCache:
        """An empty cache for `batch` rows of up to `capacity` tokens, `padding[b]` of which are padding on the left."""
        return EagerCache(self.config, batch, capacity, padding)

    @torch.inference_mode()
    def __call__(self, ids_BT: Tensor, *, cache: EagerCache, last_only: bool = False) -> Tensor:
        """float32 logits `[B, 1, V]` (`last_only`) or `[B, T, V]` after these next ids of each row."""
        B, T = ids_BT.shape
        check(ids_BT, cache, self.config)
        if T == 1:
            with without_mkldnn() if self._plain and B == 1 else contextlib.nullcontext():
                return self._logits(self._pass(ids_BT, cache)).view(B, 1, -1)
        ended = [self._pass(piece, cache).view(B, -1, self.config.dim) for piece in ids_BT.split(max(ROWS // B, 1), 1)]
        x_BTD = ended[-1][:, -1:] if last_only else torch.cat(ended, dim=1)
        return self._logits(x_BTD.flatten(0, 1)).view(*x_BTD.shape[:2], -1)

    def _logits(self, x_ND: Tensor) -> Tensor:
        c = self.config
        x_ND = x_ND if self._norm is None else self._norm(x_ND)
        logits_NV = self._head(x_ND if c.logit_scale == 1 else x_ND * c.logit_scale).float()
        if self._head_bias is not None:
            logits_NV = logits_NV + self._head_bias
        return logits_NV if not c.logit_softcap else c.logit_softcap * torch.tanh(logits_NV / c.logit_softcap)

    def _pass(self, ids_BT: Tensor, cache: EagerCache) -> Tensor:
        """The residual stream `[N, D]` after the last layer."""
        B, T = ids_BT.shape
        sight = self._sight(cache, B, T)
        x_ND = self._embedded(ids_BT, cache)
        for number, layer in enumerate(self._layers):
            n_ND = x_ND if layer.attention_in is None else layer.attention_in(x_ND)
            beside_ND = None
            if self.config.parallel != "none":  # then the feed-forward layer reads x as it was before
                beside_ND = n_ND if layer.mlp_in is None else layer.mlp_in(x_ND)
            y_ND = layer.out(self._attend(number, layer, n_ND, sight, B, T))
            x_ND.add_(y_ND if layer.attention_out is None else layer.attention_out(y_ND.float()))
            x_ND = x_ND if layer.attention_post is None else layer.attention_post(x_ND)
            if beside_ND is None:
                beside_ND = x_ND if layer.mlp_in is None else layer.mlp_in(x_ND)
            h_NF = layer.up(beside_ND)
            if self.config.gated:
                gate_NF, h_NF = parted(h_NF, self._gate_up, 1)
                y_ND = layer.down(self._activation(gate_NF).mul_(h_NF))
            else:
                y_ND = layer.down(self._activation(h_NF))
            x_ND.add_(y_ND if layer.mlp_out is None else layer.mlp_out(y_ND.float()))
            x_ND = x_ND if layer.mlp_post is None else layer.mlp_post(x_ND)
        cache.advance(T)
        return x_ND

    def _attend(self, number: int, layer: Layer, n_ND: Tensor, sight: Sight, B: int, T: int) -> Tensor:
        c = self.config
        H, K, C, window = c.heads, c.key_heads, c.width, layer.window
        qkv = layer.qkv(n_ND).float()
        qkv = qkv.view(B, -1, C) if T == 1 else qkv.view(B, T, -1, C).transpose(1, 2)
        qk, v = parted(qkv, (H + K, K), 1)
        if layer.qk_norm is not None:
            qk = layer.qk_norm(qk)
        if layer.rope is not None:
            qk = sight.turns[layer.rope](qk)
        q, k = parted(qk, (H, K), 1)
        sight.key_slots[number].copy_(k)
        sight.value_slots[number].copy_(v)
        q_nrC, keys_nCS, mask = q.reshape(B * K, -1, C), sight.keys[window][number], sight.masks[window]
        if c.attention_softcap:
            scores_nrS = torch.tanh(torch.bmm(q_nrC, keys_nCS).mul_(layer.scale / c.attention_softcap))
            scores_nrS = scores_nrS.mul_(c.attention_softcap) + (self._nothing if mask is None else mask)
        elif mask is None:
            scores_nrS = torch.baddbmm(self._nothing, q_nrC, keys_nCS, beta=0, alpha=layer.scale)
        else:
            scores_nrS = torch.baddbmm(mask, q_nrC, keys_nCS, alpha=layer.scale)
        if layer.sinks is not None:
            sinks_nr1 = layer.sinks.view(1, K, H // K, 1, 1).expand(B, K, H // K, T, 1).reshape(B * K, -1, 1)
            scores_nrS = torch.cat([scores_nrS, sinks_nr1], dim=-1).softmax(-1)[..., :-1]
        else:
            scores_nrS = scores_nrS.softmax(-1)
        out_nrC = torch.bmm(scores_nrS, sight.values[window][number])
        return out_nrC.view(B, -1) if T == 1 else out_nrC.view(B, H, T, C).transpose(1, 2).reshape(B * T, -1)

    def _embedded(self, ids_BT: Tensor, cache: EagerCache) -> Tensor:
        x_BTD: Tensor = self._embed(ids_BT).float()
        if self._scale != 1:
            x_BTD = x_BTD * self._scale
        if self._ngram is not None:
            x_BTD = x_BTD + self._ngram(ids_BT, cache=cache)
        if self._places is not None:
            x_BTD = x_BTD + F.embedding(cache.positions(ids_BT.shape[1]).clamp_min(0), self._places)
        x_ND = x_BTD.flatten(0, 1)
        return x_ND if self._norm_embedding is None else self._norm_embedding(x_ND)

    def _sight(self, cache: EagerCache, B: int, T: int) -> Sight:
        start, end = cache.length, cache.length + T
        keys, values = cache.keys.flatten(1, 2), cache.values.flatten(1, 2)  # rows and heads: one batch of products
        seen: dict[int, Sequence[Tensor]] = {}
        read: dict[int, Sequence[Tensor]] = {}
        masks: dict[int, Tensor | None] = {}
        for window in set(self.config.windows or (0,)):
            begin = max(0, start + 1 - window) if window else 0
            seen[window] = keys.narrow(3, begin, end - begin).unbind(0)
            read[window] = values.narrow(2, begin, end - begin).unbind(0)
            masks[window] = self._mask(cache, begin, B, T, window)
        turns = {rope: self._turn(rope, cache, B, T) for rope in self._ropes}
        if T == 1:
            slots = cache.keys.select(4, start).unbind(0), cache.values.select(3, start).unbind(0)
        else:
            slots = cache.keys.narrow(4, start, T).mT.unbind(0), cache.values.narrow(3, start, T).unbind(0)
        return Sight(turns, *slots, seen, read, masks)

    def _mask(self, cache: EagerCache, begin: int, B: int, T: int, window: int) -> Tensor | None:
        c, end = self.config, cache.length + T
        if T == 1 and not cache.padded and c.alibi == "none":
            return None
        at_S, at_T1 = torch.arange(begin, end), torch.arange(cache.length, end)[:, None]
        pad_B111 = cache.padding_B[:, None, None, None]
        hidden = (at_S > at_T1) | (at_S < pad_B111)
        if window:
            hidden = hidden | (at_T1 - at_S >= window)
        mask = torch.zeros(1)
        if c.alibi != "none":
            mask = alibi_slopes(c.heads)[:, None, None] * (at_S - pad_B111).clamp_min(0)
        mask = torch.where(hidden, HIDDEN, mask)
        return mask.expand(B, c.heads, T, end - begin).reshape(B * c.key_heads, -1, end - begin)

    def _turn(self, rope: Rope, cache: EagerCache, B: int, T: int) -> Map:
        cos, sin = self._tables(rope, cache.capacity)
        if T > 1:
            at = cache.positions(T).clamp_min(0)
            cos, sin = cos[at], sin[at]
            return lambda x_BHTC: rotate(x_BHTC, cos, sin, rope.interleaved)
        found = self._turns.get(rope)
        if found is None or found[0] < len(cos):
            found = self._turns[rope] = len(cos), Turn(rope, self.config.width, cos, sin)
        return found[1](cache.positions(1)[:, 0].clamp_min(0) if cache.padded else cache.length, B)


def _layer(block: Block, c: TransformerConfig) -> Layer:
    attention, forward = block.attention, block.feedforward
    assert isinstance(attention, Attention) and isinstance(forward, FeedForward)
    post = c.placement == "post"
    local = attention.window > 0 and c.rope_local is not None
    first, second = normaliser(block.norm_attention), normaliser(block.norm_feedforward)
    return Layer(
        attention_in=None if post else first, attention_out=normaliser(block.norm_attention_out),
        attention_post=first if post else None, mlp_in=None if post else second,
        mlp_out=normaliser(block.norm_feedforward_out), mlp_post=second if post else None,
        qkv=product(attention.qkv), qk_norm=_by_heads(attention, c), out=product(attention.out),
        up=product(forward.up), down=product(forward.down),
        sinks=None if attention.sinks is None else attention.sinks.detach().float(),
        scale=attention.scale, window=attention.window, rope=c.rope_local if local else c.rope,
    )  # fmt: skip


def normaliser(module: nn.Module | None) -> Map | None:
    """A norm as a function of float32 `[..., D]`; None for None."""
    if module is None:
        return None
    assert isinstance(module, RMSNorm | LayerNorm)
    dim, eps = module.dim, module.eps
    weight = torch.ones(dim) if module.weight is None else module.weight.detach().float()
    if isinstance(module, LayerNorm):
        bias = None if module.bias is None else module.bias.detach().float()
        return lambda x: torch.layer_norm(x, (dim,), weight, bias, eps)
    nothing, weight = torch.zeros(dim), weight + 1 if module.plus_one else weight

    def rms(x: Tensor) -> Tensor:
        if x.numel() == dim:  # one row, whose length may be a number of Python's
            scale = max(torch.linalg.vector_norm(x).item() ** 2 / dim + eps, 1e-38) ** -0.5
            return torch.addcmul(nothing, x, weight, value=scale)
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(dim).add_(eps).rsqrt_()
        return (x * scale).mul_(weight)

    return rms


def _by_heads(attention: Attention, c: TransformerConfig) -> Map | None:
    """The norms of queries and keys, of both together `[B, H + K, ..., C]`."""
    of_q, of_k = normaliser(attention.norm_q), normaliser(attention.norm_k)
    if of_q is None or of_k is None:
        return None
    sizes = (c.heads, c.key_heads)

    def both(x: Tensor) -> Tensor:
        q, k = parted(x, sizes, 1)
        return torch.cat([of_q(q), of_k(k)], dim=1)

    return both


def product(module: nn.Module) -> Map:
    """`[N, I] -> [N, O]` with the matrix of a layer, or of an embedding, in the type that is fastest to give."""
    if isinstance(module, QuantisedEmbedding):
        module = module.table
    bias: Tensor | None = getattr(module, "bias", None)
    bias = None if bias is None else bias.detach()
    if isinstance(module, QuantisedLinear):
        multiply = _small(module)
        return multiply if bias is None or module.route == "restore" else lambda x: multiply(x) + bias
    assert isinstance(module, nn.Linear | nn.Embedding)
    weight = module.weight.detach()
    turned = weight.T  # torch.mm is one call, F.linear three
    if weight.dtype != torch.bfloat16:
        if bias is None:
            return lambda x: torch.mm(x.float(), turned)
        return lambda x: torch.addmm(bias, x.float(), turned)
    few = FEW if speeds().bf16_rows > speeds().fp32_rows else float("inf")
    wide = None if bias is None else bias.float()

    def multiply_bf16(x_NI: Tensor) -> Tensor:
        if x_NI.size(0) <= few:
            x_NI = x_NI.bfloat16()
            return torch.mm(x_NI, turned) if bias is None else torch.addmm(bias, x_NI, turned)
        return F.linear(x_NI.float(), weight.float(), wide)

    return multiply_bf16


def _small(module: QuantisedLinear) -> Map:
    """Without the bias, unless the matrix is restored."""
    if module.route == "w8a8" and module.in_features * module.out_features <= packed.choice().little:
        module.use("int8")
    held, many = module.packed, module.many
    if module.route == "w8a8":
        return lambda x: (packed.multiply_w8a8_row if x.size(0) == 1 else packed.multiply_w8a8)(x.float(), held)
    if module.route == "int4":
        return lambda x: held.product(x) if x.size(0) < many else held.product_of_many(x.float())
    if module.route == "int8":
        q, scale = module.stored()
        scale_O = scale[:, 0].bfloat16()
        return lambda x: packed.multiply_int8(x, q, scale_O) if x.size(0) < many else module.by_parts(x.float())
    return lambda x: module.forward(x.float())
