"""A decoder whose steps run in compiled code: `Compiled(transformer, "int8")`, used like the transformer by decoding.

The answers are those of `Transformer` up to rounding: of sums in fp32, of weights in bf16, int8 and int4. Activations
are fp32, but for the inputs of int8 and int4 products, which are rounded to int8 in groups of 32 values.

A decoder that reads across has the keys and values of what it reads in its cache: `compiled_reading`.

Legend: B rows, T tokens, K key-value heads, S slots, C head width, V vocabulary, L layers, N sources that are
read across, M slots of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.decoder import FlatCache, Turns, check, embedding_scale, places, unknown
from conjure.models.transformer import Attention, Block, Transformer, TransformerConfig
from conjure.nn.feedforward import FeedForward
from conjure.nn.native import structs
from conjure.nn.native.build import native
from conjure.nn.native.pack import LANES, Arena, Packed, Stored, forget, pack, trim
from conjure.nn.norm import LayerNorm, RMSNorm
from conjure.nn.pages import zeros
from conjure.nn.position import alibi_slopes
from conjure.nn.quantised import QuantisedEmbedding, QuantisedLinear

Weights = Literal["fp32", "bf16", "int8", "int4"]
ROWS = 128
"""Tokens that go through the network together: a longer prompt is read in pieces."""


@dataclass
class Memory:
    """What a decoder reads across: keys `[L, N, H, M/16, C, 16]` and values `[L, N, H, M, C padded to 16]`. Row b of a
    cache reads source `places_B[b]`, as far as `lengths_B[b]`."""

    keys: Tensor
    values: Tensor
    places_B: Tensor
    lengths_B: Tensor

    def keep(self, rows: Sequence[int]) -> None:
        """Of a cache that goes on with these rows: nothing is copied."""
        index = torch.tensor(list(rows))
        self.places_B, self.lengths_B = self.places_B[index], self.lengths_B[index]


class CompiledCache(FlatCache):
    """Keys and values as `step.cpp` keeps them: [L, B, K, S/16, C, 16] and [L, B, K, S, C padded to 16]. They take
    memory as they are filled."""

    memory: Memory | None = None
    """Of a decoder that reads across."""

    def __init__(
        self, config: TransformerConfig, batch: int, capacity: int, padding: Sequence[int] | None, dtype: torch.dtype
    ) -> None:
        self.slots, C = -(-max(capacity, 1) // LANES) * LANES, config.width
        head = (config.layers, batch, config.key_heads)
        keys = zeros((*head, self.slots // LANES, C, LANES), dtype)
        super().__init__(keys, zeros((*head, self.slots, -(-C // LANES) * LANES), dtype), capacity, padding)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order (a row may come twice)."""
        super().keep(rows)
        if self.memory is not None:
            self.memory.keep(rows)

    def state(self) -> dict[str, Tensor]:
        """What is in use, as tensors by name, for `restore` into a new cache of the same network."""
        keys = self.keys[:, :, :, : -(-self.length // LANES)].contiguous()
        return self._state() | {
            "packed_keys": keys, "packed_values": self.values[:, :, :, : self.length].contiguous()
        }  # fmt: skip

    def restore(self, state: dict[str, Tensor]) -> None:
        """Fill an empty cache with what `state` gave; the capacity must hold it."""
        keys = state.get("packed_keys")
        length = self._restore(state, keys is not None and keys.dtype == self.keys.dtype)
        assert keys is not None
        self.keys[:, :, :, : keys.shape[3]] = keys
        self.values[:, :, :, :length] = state["packed_values"]


class Compiled:
    """A network for decoding, made from a transformer, whose matrices it takes out one by one as it packs them, so that
    they are never held twice: the transformer cannot be used any more.

    `weights` says in which type the matrices run; matrices that are quantised already stay as they are. `fill(name)` is
    called before a part is read ("blocks.0", ..., "embed", "head"): a transformer on the meta device can be filled from
    its file then, so that its weights are in memory a layer at a time. Raises `ConjureError` where `supports` gives a
    reason.
    """

    def __init__(
        self, transformer: Transformer, weights: Weights = "fp32", *, threads: int | None = None,
        fill: Callable[[str], object] | None = None,
    ) -> None:  # fmt: skip
        library = native().library
        if (reason := self.supports(transformer.config)) or library is None:
            raise ConjureError(f"this network cannot run in compiled code: {reason}")
        self.config = transformer.config
        self.threads = threads
        """Null is as many as PyTorch has."""
        self._pass = library.conjure_pass
        self._packer = _Packer(weights)  # it keeps alive what the structs point to
        self._fill: Callable[[str], object] | None = fill or (lambda name: None)
        self.half = weights != "fp32"
        """Keys and values are float16."""
        self._cache_dtype = torch.float16 if self.half else torch.float32
        self._ngram = transformer.ngram
        self._scale = embedding_scale(transformer)
        self._model = self._describe(transformer)
        self._fill = None  # and with it the transformer, whose file need not stay mapped
        self._turns = Turns()

    @property
    def reach(self) -> int:
        """At how many tokens before its own the embedding of a token looks."""
        return 0 if self._ngram is None else self._ngram.reach

    @torch.inference_mode()
    def looked_back(self, known_BN: Tensor) -> Tensor | None:
        """What that adds, `[B, N - reach, D]`, to ids behind `reach` earlier ones (`vocab` for none); None where
        nothing does."""
        return None if self._ngram is None else self._ngram.behind(known_BN).float().contiguous()

    @staticmethod
    def supports(config: TransformerConfig) -> str:
        """Why a network of this shape cannot run in compiled code here; empty where it can."""
        if config.cross and (config.parallel != "none" or config.attention_softcap):
            return "attention across beside other layers, or with a cap, is not written in it"
        return unknown(replace(config, cross=False)) or native().reason

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> CompiledCache:
        """An empty cache for `batch` rows of up to `capacity` tokens, `padding[b]` of which are padding on the left."""
        return CompiledCache(self.config, batch, capacity, padding, self._cache_dtype)

    def __call__(self, ids_BT: Tensor, *, cache: CompiledCache, last_only: bool = False) -> Tensor:
        """float32 logits `[B, 1, V]` (`last_only`) or `[B, T, V]` after these next ids of each row."""
        B, T = ids_BT.shape
        check(ids_BT, cache, self.config)
        if B * T <= ROWS or T == 1:
            return self._run(ids_BT, cache, last_only, wanted=True)
        pieces = ids_BT.split(max(ROWS // B, 1), dim=1)
        ended = [self._run(p, cache, last_only, wanted=not last_only or p is pieces[-1]) for p in pieces]
        return ended[-1] if last_only else torch.cat(ended, dim=1)

    def _run(self, ids_BT: Tensor, cache: CompiledCache, last_only: bool, wanted: bool) -> Tensor:
        B, T = ids_BT.shape
        more_BTD = None
        if self._ngram is not None:
            with torch.inference_mode():
                more_BTD = self._ngram(ids_BT, cache=cache).float().contiguous()
        lengths_B, places_B = torch.full((B,), cache.length), torch.arange(B)
        logits = self.read(ids_BT, cache, lengths_B, places_B, last_only=last_only, wanted=wanted, more_BTD=more_BTD)
        cache.advance(T)
        return logits

    def read(
        self, ids_BT: Tensor, cache: CompiledCache, lengths_B: Tensor, places_B: Tensor, *, last_only: bool = True,
        wanted: bool = True, more_BTD: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits float32 `[B, 1 or T, V]` (`[.., 0]` where they are not `wanted`) after these next ids of rows that
        stand at `places_B` of the cache and hold `lengths_B` tokens, each its own number. The cache stays as it is."""
        B, T = ids_BT.shape
        padding_B = cache.padding_B[places_B]
        call = structs.Call(
            padding=padding_B.data_ptr(), lengths=lengths_B.data_ptr(), places=places_B.data_ptr(),
            keys=cache.keys.data_ptr(), values=cache.values.data_ptr(), batch=B, tokens=T,
            held=cache.keys.shape[1], capacity=cache.slots, last_only=last_only,
            threads=self.threads or torch.get_num_threads(),
        )  # fmt: skip
        if (memory := cache.memory) is not None:
            call.memory_keys, call.memory_values = memory.keys.data_ptr(), memory.values.data_ptr()
            call.memory_places, call.memory_lengths = memory.places_B.data_ptr(), memory.lengths_B.data_ptr()
            call.memory_held, call.memory_slots = memory.values.shape[1], memory.values.shape[3]
        assert memory is not None or not self.config.cross, "a decoder that reads across needs a memory"
        for number, rope in enumerate((self.config.rope, self.config.rope_local)):
            if rope is not None:
                cos, sin = self._turns(rope, cache.slots)
                call.cos[number], call.sin[number] = cos.data_ptr(), sin.data_ptr()
                call.rotated[number] = 2 * cos.shape[1]
        ids_BT = ids_BT.contiguous()
        call.ids = ids_BT.data_ptr()
        call.more = None if more_BTD is None else more_BTD.data_ptr()
        logits = torch.empty(B, 1 if last_only else T, self.config.vocab if wanted else 0)
        call.logits = logits.data_ptr() if wanted else None
        self._pass(self._model, call)
        return logits

    def _describe(self, transformer: Transformer) -> structs.Model:
        c, p = self.config, self._packer
        layers = (structs.Layer * c.layers)(*[self._layer(transformer, i) for i in range(c.layers)])
        assert self._fill is not None
        self._fill("embed")  # and packed before the head is read
        assert transformer.embed is not None
        tied = transformer.head is None
        embed = p.matrix(transformer.embed, bias=transformer.head_bias if tied else None)
        self._fill("head")
        head = embed if transformer.head is None else p.matrix(transformer.head, bias=transformer.head_bias)
        final = p.norm(transformer.norm, c.logit_scale, c.dim)
        return structs.Model(
            embed=embed, head=head, embed_norm=p.norm(transformer.norm_embedding), final_norm=final,
            place=p.pointer(places(transformer)), layers=layers,
            count=c.layers, dim=c.dim, heads=c.heads, key_heads=c.key_heads, width=c.width, hidden=c.feedforward,
            activation=structs.ACTIVATIONS[c.activation], parallel=c.parallel != "none",
            interleaved=c.rope is not None and c.rope.interleaved,
            half_cache=self.half, softcap=c.attention_softcap, logit_softcap=c.logit_softcap,
            embedding_scale=self._scale,
        )  # fmt: skip

    def _layer(self, transformer: Transformer, number: int) -> structs.Layer:
        assert self._fill is not None
        self._fill(f"blocks.{number}")
        block = transformer.blocks[number]
        assert isinstance(block, Block) and isinstance(block.attention, Attention)
        assert isinstance(block.feedforward, FeedForward)
        c, p, attention, forward = self.config, self._packer, block.attention, block.feedforward
        up = p.matrices(forward.up, 2 if c.gated else 1)
        window = c.windows[number] if c.windows else 0
        rope = -1 if c.rope is None else int(window > 0 and c.rope_local is not None)
        post = c.placement == "post"
        second = block.norm_attention if block.norm_feedforward is None else block.norm_feedforward
        layer = structs.Layer(
            qkv=p.matrix(attention.qkv), out=p.matrix(attention.out), up=up[-1], down=p.matrix(forward.down),
            attention_in=p.norm(None if post else block.norm_attention), attention_out=p.norm(block.norm_attention_out),
            attention_post=p.norm(block.norm_attention if post else None),
            mlp_in=p.norm(None if post else second), mlp_out=p.norm(block.norm_feedforward_out),
            mlp_post=p.norm(second if post else None), q=p.norm(attention.norm_q), k=p.norm(attention.norm_k),
            sinks=p.pointer(attention.sinks), slopes=p.pointer(alibi_slopes(c.heads) if c.alibi == "bloom" else None),
            scale=c.scale(number), window=window, rope=rope,
        )  # fmt: skip
        if c.gated:
            layer.gate = up[0]
        if block.cross is not None:
            layer.cross_q, layer.cross_out = p.matrix(block.cross.q), p.matrix(block.cross.out)
            layer.cross_in = p.norm(None if post else block.norm_cross)
            layer.cross_post = p.norm(block.norm_cross if post else None)
        return layer


class _Packer:
    """Turns modules into structs and remembers what these point to."""

    def __init__(self, weights: Weights) -> None:
        self.weights: Weights = weights
        self.arena = Arena()
        self.kept: list[Tensor | Packed] = []

    def matrix(self, module: nn.Module, bias: Tensor | None = None) -> structs.Matrix:
        return self.matrices(module, 1, bias)[0]

    def matrices(self, module: nn.Module, count: int, bias: Tensor | None = None) -> list[structs.Matrix]:
        """The matrix of a module in `count` equal parts; the module is empty afterwards."""
        if isinstance(module, QuantisedEmbedding):
            module = module.table
        bias = getattr(module, "bias", None) if bias is None else bias
        biases = [None] * count if bias is None else bias.detach().chunk(count)
        if isinstance(module, QuantisedLinear):
            module.use("restore")
            kind, (taken, scale) = module.weights, module.stored()
            parts = [Stored(*pair, kind) for pair in zip(taken.chunk(count), scale.chunk(count))]
            module.q = module.scale = None
        else:
            assert isinstance(module, nn.Linear | nn.Embedding)
            kind, taken = self.weights, module.weight.detach()
            parts = taken.chunk(count)
            module.weight = nn.Parameter(taken.new_empty(0), requires_grad=False)
        packed = [pack(part, kind, self.arena, own) for part, own in zip(parts, biases)]
        self.kept += packed
        forget(taken)
        trim()
        return [part.matrix() for part in packed]

    def norm(self, module: nn.Module | None, scale: float = 1.0, dim: int = 0) -> structs.Norm:
        """`scale` multiplies the `dim` values that come out."""
        weight = bias = None
        kind, eps = "none", 0.0
        if isinstance(module, RMSNorm | LayerNorm):
            kind, eps = "rms" if isinstance(module, RMSNorm) else "layer", module.eps
            weight, bias = module.weight, module.bias if isinstance(module, LayerNorm) else None
            if weight is not None and isinstance(module, RMSNorm) and module.plus_one:
                weight = weight.float() + 1
        if scale != 1:
            weight = scale * (torch.ones(dim) if weight is None else weight.float())
            bias = None if bias is None else scale * bias.float()
        return structs.Norm(weight=self.pointer(weight), bias=self.pointer(bias), kind=structs.NORMS[kind], eps=eps)

    def pointer(self, tensor: Tensor | None) -> int | None:
        """To a copy in float32."""
        if tensor is None:
            return None
        own = tensor.detach().float().clone()
        self.kept.append(own)
        return own.data_ptr()
