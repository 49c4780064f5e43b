"""Encoder and decoder: one stack reads, the other writes and attends to what was read (Vaswani et al. 2017, arXiv
1706.03762).

Legend: B rows, M tokens of the source, T tokens of the target, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.transformer import Block, Transformer, TransformerConfig
from conjure.nn.cache import Cache
from conjure.nn.cross_entropy import IGNORED, linear_cross_entropy


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    encoder: TransformerConfig
    decoder: TransformerConfig
    shared: bool = True
    """Both stacks have one embedding."""

    def __post_init__(self) -> None:
        if self.encoder.causal or not self.decoder.causal or not self.decoder.cross:
            raise ConjureError("expected an encoder that sees all and a decoder that is causal and attends across")

    def with_tie(self, tie: bool) -> EncoderDecoderConfig:
        return replace(self, decoder=replace(self.decoder, tie=tie))


class EncoderDecoder(nn.Module):
    """forward(source ids, target ids) -> logits of the target."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Transformer(config.encoder), Transformer(config.decoder)
        if config.shared:
            self.encoder.embed = self.decoder.embed

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.decoder.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.encoder.compute_dtype = self.decoder.compute_dtype = dtype

    def encode(
        self, ids_BM: Tensor | None = None, *, mask_BM: Tensor | None = None, embedded: Tensor | None = None
    ) -> Tensor:
        """What the encoder makes of the source, `[B, M, D]`."""
        return self.encoder.hidden(ids_BM, mask_BT=mask_BM, embedded=embedded)

    def hidden(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, decoder_input_ids: Tensor | None = None, **_: Any
    ) -> Tensor:
        """The decoder's last hidden states `[B, T, D]`; the encoder's `[B, M, D]` where no target is given."""
        memory = self.encode(input_ids, mask_BM=attention_mask)
        if decoder_input_ids is None:
            return memory
        return self.decoder.hidden(decoder_input_ids, memory=memory, memory_mask=attention_mask)

    def logits(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, decoder_input_ids: Tensor | None = None, **_: Any
    ) -> Tensor:
        """float32 `[B, T, V]`."""
        if decoder_input_ids is None:
            raise ConjureError("an encoder-decoder gives logits of a target: expected decoder_input_ids")
        return self.decoder.logits(self.hidden(input_ids, attention_mask, decoder_input_ids))

    def forward(
        self, source_BM: Tensor, ids_BT: Tensor, *, mask_BM: Tensor | None = None, targets: Tensor | None = None,
        smoothing: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """Logits float32 `[B, T, V]`; given `targets` `[B, T]`, the sum of their cross-entropies instead, leaving out
        those at `cross_entropy.IGNORED`.

        With `smoothing` e that of (1 - e) the target and e all tokens alike (Szegedy et al. 2016, arXiv 1512.00567),
        for a network without a cap on its logits. Its difference from the plain one, e (w_target - mean w) x, needs no
        logits.
        """
        x_BTD = self.hidden(source_BM, mask_BM, ids_BT)
        if targets is None:
            return self.decoder.logits(x_BTD)
        weight_VD, targets_N = self.decoder.head_weight, targets.flatten()
        x_ND = x_BTD.flatten(0, 1)
        total = linear_cross_entropy(x_ND, weight_VD, targets_N, self.config.decoder.logit_softcap)
        if not smoothing:
            return total
        own_ND = F.embedding(targets_N.clamp_min(0), weight_VD) - weight_VD.mean(0)
        return total + smoothing * (x_ND * own_ND * (targets_N != IGNORED)[:, None]).sum(dtype=torch.float32)

    def reading(
        self, ids_BM: Tensor | None = None, mask_BM: Tensor | None = None, embedded: Tensor | None = None
    ) -> Reading:
        """The decoder with its source read: what can be decoded."""
        return Reading(self, self.encode(ids_BM, mask_BM=mask_BM, embedded=embedded), mask_BM)


class Reading:
    """A network that decodes, see `decoding`: the source is in its cache."""

    def __init__(self, pair: EncoderDecoder, memory_BMD: Tensor, mask_BM: Tensor | None) -> None:
        self.pair, self.memory_BMD, self.mask_BM = pair, memory_BMD, mask_BM
        self.config = pair.config.decoder
        self.sources = len(memory_BMD)

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> Cache:
        """Row b reads source b; a single source is read by all rows."""
        cache = self.pair.decoder.cache(batch, capacity, padding)
        for block in self.pair.decoder.blocks:
            assert isinstance(block, Block) and block.cross is not None
            k, v = block.cross.read(self.memory_BMD)
            cache.memory.append((k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1)))
        cache.memory_mask = None if self.mask_BM is None else self.mask_BM.expand(batch, -1)
        return cache

    def __call__(self, ids_BT: Tensor, *, cache: Cache, last_only: bool) -> Tensor:
        return self.pair.decoder(ids_BT, cache=cache, last_only=last_only)

    def hidden_of(self, ids_BT: Tensor, *, cache: Cache) -> tuple[Tensor, Tensor]:
        """Of the next ids, the hidden states `[B, T, D]`, and the logits after the last of them `[B, V]`."""
        return self.pair.decoder.hidden_of(ids_BT, cache=cache)
