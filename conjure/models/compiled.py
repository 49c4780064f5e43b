"""A decoder whose steps run in compiled code: `Compiled(transformer, "int8")`, used like the transformer by decoding.

The answers are those of `Transformer` up to rounding: of sums in fp32, of weights in bf16, int8 and int4. Activations
are fp32, but for the inputs of int8 and int4 products, which are rounded to int8 in groups of 32 values.

Legend: B rows, T tokens, K key-value heads, S slots, C head width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.transformer import Attention, Block, Transformer, TransformerConfig
from conjure.nn.feedforward import FeedForward
from conjure.nn.native import structs
from conjure.nn.native.build import native
from conjure.nn.native.pack import LANES, Arena, Packed, Stored, forget, pack
from conjure.nn.norm import LayerNorm, RMSNorm
from conjure.nn.position import Rope, alibi_slopes, rope_tables, sinusoid_table
from conjure.nn.quantised import QuantisedEmbedding, QuantisedLinear

Weights = Literal["fp32", "bf16", "int8", "int4"]
ROWS = 128
"""Tokens that go through the network together: a longer prompt is read in pieces."""

_KNOWN = frozenset(
    "vocab dim layers heads kv_heads head_dim hidden activation gated norm norm_eps norm_affine placement "
    "final_norm parallel qkv_bias out_bias mlp_bias qk_norm rope rope_local positions positions_from "
    "position_offset pad max_length alibi windows attention_scale scale_by_layer sinks embedding_scale "
    "embedding_norm tie head_bias logit_scale logit_softcap attention_softcap ngram".split()
)


class CompiledCache:
    """Keys and values as `step.cpp` keeps them: [layers, B, K, S/16, C, 16] and [layers, B, K, S, C padded to 16].

    Rows are padded on the left as in `conjure.nn.cache.Cache`, which has the same methods.
    """

    def __init__(
        self, config: TransformerConfig, batch: int, capacity: int, padding: Sequence[int] | None, dtype: torch.dtype
    ) -> None:
        slots, C = -(-max(capacity, 1) // LANES) * LANES, config.width
        head = (config.layers, batch, config.key_heads)
        self.keys = torch.zeros(*head, slots // LANES, C, LANES, dtype=dtype)
        self.values = torch.zeros(*head, slots, -(-C // LANES) * LANES, dtype=dtype)
        self.padding_B = torch.tensor(list(padding or [0] * batch))
        assert self.padding_B.shape == (batch,), "one padding a row"
        self.padded = bool(self.padding_B.any())
        self.capacity, self.slots = capacity, slots
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

    def state(self) -> dict[str, Tensor]:
        """What is in use, as tensors by name, for `restore` into a new cache of the same network."""
        tiles = -(-self.length // LANES)
        tensors = {"padding": self.padding_B, "length": torch.tensor(self.length)}
        tensors["packed_keys"] = self.keys[:, :, :, :tiles].contiguous()
        tensors["packed_values"] = self.values[:, :, :, : self.length].contiguous()
        return tensors if self.ids_BN is None else {**tensors, "ids": self.ids_BN.contiguous()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Fill an empty cache with what `state` gave; the capacity must hold it."""
        length = int(state["length"])
        if length > self.capacity:
            raise ConjureError(f"the cache holds {self.capacity} tokens a row, what was stored has {length}")
        if "packed_keys" not in state or state["packed_keys"].dtype != self.keys.dtype:
            raise ConjureError(
                "what was stored belongs to a network that runs in another way",
                hint="store it again with the weights in the type that is used now",
            )
        self.padding_B, self.length, self.ids_BN = state["padding"], length, state.get("ids")
        self.padded = bool(self.padding_B.any())
        self.keys[:, :, :, : state["packed_keys"].shape[3]] = state["packed_keys"]
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
        self.config = c = transformer.config
        self.threads = threads
        """Null is as many as PyTorch has."""
        self._pass = library.conjure_pass
        self._packer = _Packer(weights)  # it keeps alive what the structs point to
        self._fill: Callable[[str], object] | None = fill or (lambda name: None)
        self._cache_dtype = torch.float32 if weights == "fp32" else torch.float16
        self._ngram = transformer.ngram
        dtype = transformer.embed.weight.dtype if isinstance(transformer.embed, nn.Embedding) else torch.float32
        self._scale = float(torch.tensor(c.embedding_scale, dtype=dtype))
        self._model = self._describe(transformer)
        self._fill = None  # and with it the transformer, whose file need not stay mapped
        self._turns: dict[Rope, tuple[Tensor, Tensor]] = {}

    @staticmethod
    def supports(config: TransformerConfig) -> str:
        """Why a network of this shape cannot run in compiled code here; empty where it can."""
        for field in dataclasses.fields(config):
            if field.name not in _KNOWN and getattr(config, field.name) != field.default:
                return f"{field.name} is not written in it"
        if config.activation not in structs.ACTIVATIONS:
            return f"the activation {config.activation} is not written in it"
        if config.alibi == "falcon" or config.positions_from == "ids":
            return "these positions are not written in it"
        for rope in (config.rope, config.rope_local):
            if rope is not None and rope.scaling is not None and rope.scaling.kind in ("dynamic", "longrope"):
                return f"{rope.scaling.kind} rotary positions change with the length of the text"
        return native().reason

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> CompiledCache:
        """An empty cache for `batch` rows of up to `capacity` tokens, `padding[b]` of which are padding on the left."""
        return CompiledCache(self.config, batch, capacity, padding, self._cache_dtype)

    def __call__(self, ids_BT: Tensor, *, cache: CompiledCache, last_only: bool = False) -> Tensor:
        """float32 logits `[B, 1, V]` (`last_only`) or `[B, T, V]` after these next ids of each row."""
        B, T = ids_BT.shape
        self._check(ids_BT, cache)
        if B * T <= ROWS or T == 1:
            return self._run(ids_BT, cache, last_only, wanted=True)
        pieces = ids_BT.split(max(ROWS // B, 1), dim=1)
        ended = [self._run(p, cache, last_only, wanted=not last_only or p is pieces[-1]) for p in pieces]
        return ended[-1] if last_only else torch.cat(ended, dim=1)

    def _check(self, ids_BT: Tensor, cache: CompiledCache) -> None:
        end, c = cache.length + ids_BT.shape[1], self.config
        if end > cache.capacity:
            raise ConjureError(
                f"the cache holds {cache.capacity} tokens a row, {end} were asked for", hint="ask for fewer tokens"
            )
        if 0 < c.max_length < end:
            raise ConjureError(f"this model reads at most {c.max_length} tokens, got {end}")
        low, high = (int(x) for x in ids_BT.aminmax()) if ids_BT.numel() > 1 else (int(ids_BT),) * 2
        if low < 0 or high >= c.vocab:
            raise ConjureError(f"ids: expected 0 to {c.vocab - 1}, got {low if low < 0 else high}")

    def _run(self, ids_BT: Tensor, cache: CompiledCache, last_only: bool, wanted: bool) -> Tensor:
        B, T = ids_BT.shape
        call = structs.Call(
            padding=cache.padding_B.data_ptr(), keys=cache.keys.data_ptr(), values=cache.values.data_ptr(),
            batch=B, tokens=T, length=cache.length, capacity=cache.slots, last_only=last_only,
            threads=self.threads or torch.get_num_threads(),
        )  # fmt: skip
        for number, rope in enumerate((self.config.rope, self.config.rope_local)):
            if rope is not None:
                cos, sin = self._tables(rope, cache.slots)
                call.cos[number], call.sin[number] = cos.data_ptr(), sin.data_ptr()
                call.rotated[number] = 2 * cos.shape[1]
        ids_BT = ids_BT.contiguous()
        call.ids = ids_BT.data_ptr()
        if self._ngram is not None:
            with torch.inference_mode():
                more_BTD = self._ngram(ids_BT, cache=cache).float().contiguous()
            call.more = more_BTD.data_ptr()
        logits = torch.empty(B, 1 if last_only else T, self.config.vocab if wanted else 0)
        call.logits = logits.data_ptr() if wanted else None
        self._pass(self._model, call)
        cache.advance(T)
        return logits

    def _tables(self, rope: Rope, slots: int) -> tuple[Tensor, Tensor]:
        found = self._turns.get(rope)
        if found is None or len(found[0]) < slots:
            cos, sin = rope_tables(torch.arange(slots), rope)
            found = self._turns[rope] = cos.contiguous(), sin.contiguous()
        return found

    def _places(self, transformer: Transformer) -> Tensor | None:
        c = self.config
        if transformer.place is not None:
            return transformer.place.weight[c.position_offset :]
        if c.positions == "none":
            return None
        rows = c.max_length + c.position_offset
        return sinusoid_table(rows, c.dim, spacing=int(c.positions == "sinusoid_spaced"))[c.position_offset :]

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
            place=p.pointer(self._places(transformer)), layers=layers,
            count=c.layers, dim=c.dim, heads=c.heads, key_heads=c.key_heads, width=c.width, hidden=c.feedforward,
            activation=structs.ACTIVATIONS[c.activation], parallel=c.parallel != "none",
            interleaved=c.rope is not None and c.rope.interleaved,
            half_cache=self._cache_dtype == torch.float16, softcap=c.attention_softcap, logit_softcap=c.logit_softcap,
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
