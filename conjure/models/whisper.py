"""Whisper: an encoder-decoder that hears thirty seconds of sound and writes what was said (Radford et al. 2022, arXiv
2212.04356).

Legend: B rows, F frames of 10 ms, M frames of 20 ms, T tokens, D width, H chosen heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, Reading
from conjure.models.speech_tower import Conv1d
from conjure.models.transformer import CrossAttention, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class WhisperConfig:
    encoder: TransformerConfig
    """Without vocabulary; its positions are the frames of 20 ms that it hears."""
    decoder: TransformerConfig
    bins: int = 80
    """Of the mel spectrogram."""

    @property
    def frames(self) -> int:
        """Of the spectrogram."""
        return 2 * self.encoder.max_length


class Whisper(nn.Module):
    """Two convolutions in front of an encoder-decoder."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.encoder.dim
        self.first = Conv1d(config.bins, dim, 3, padding=1)
        self.second = Conv1d(dim, dim, 3, stride=2, padding=1)
        self.pair = EncoderDecoder(EncoderDecoderConfig(encoder=config.encoder, decoder=config.decoder, shared=False))

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.pair.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.pair.compute_dtype = dtype

    def embedded(self, input_features: Tensor | None) -> Tensor:
        """`[B, bins, F] -> [B, M, D]`, positions not yet added."""
        c = self.config
        if input_features is None or tuple(input_features.shape[1:]) != (c.bins, c.frames):
            got = "none" if input_features is None else list(input_features.shape)
            raise ConjureError(
                f"this model hears {c.frames / 100:g} s: expected input_features [B, {c.bins}, {c.frames}], got {got}",
                hint="a log-mel spectrogram, padded or cut to that length",
            )
        x_BDF = F.gelu(self.first(input_features.to(self.compute_dtype)))
        return F.gelu(self.second(x_BDF)).mT

    def hidden(
        self, input_features: Tensor | None = None, decoder_input_ids: Tensor | None = None, **_: Any
    ) -> Tensor:
        """The decoder's last states `[B, T, D]`; the encoder's `[B, M, D]` where no target is given."""
        memory_BMD = self.pair.encode(embedded=self.embedded(input_features))
        if decoder_input_ids is None:
            return memory_BMD
        return self.pair.decoder.hidden(decoder_input_ids, memory=memory_BMD)

    def logits(
        self, input_features: Tensor | None = None, decoder_input_ids: Tensor | None = None, **_: Any
    ) -> Tensor:
        """float32 `[B, T, V]`."""
        if decoder_input_ids is None:
            raise ConjureError("an encoder-decoder gives logits of a target: expected decoder_input_ids")
        return self.pair.decoder.logits(self.hidden(input_features, decoder_input_ids))

    def reading(self, input_features: Tensor) -> Reading:
        """The decoder with the sound heard: what can be decoded."""
        return self.pair.reading(embedded=self.embedded(input_features))

    def attention(
        self, memory_BMD: Tensor, ids_BT: Tensor, heads: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """What the (layer, head) pairs look at while these tokens are read: weights float32 `[B, H, T, M]`, in the
        order of `heads`; and the logits `[B, T, V]` after each token."""
        layers = dict[int, Tensor]()

        def note(cross: CrossAttention, given: tuple[Tensor, Any]) -> None:
            q_BHTC = cross.q(given[0]).unflatten(-1, (cross.config.heads, cross.config.width)).transpose(1, 2)
            k_BHMC, _ = cross.read(memory_BMD)
            chosen = [head for layer, head in heads if layer == cross.layer]
            scores = q_BHTC[:, chosen] @ k_BHMC[:, chosen].mT * cross.scale
            layers[cross.layer] = scores.float().softmax(-1)

        crosses = [each for each in self.pair.decoder.modules() if isinstance(each, CrossAttention)]
        with ExitStack() as hooks:
            for layer in {layer for layer, _ in heads}:
                hooks.callback(crosses[layer].register_forward_pre_hook(note).remove)
            x_BTD = self.pair.decoder.hidden(ids_BT, memory=memory_BMD)
        taken = dict.fromkeys(layers, 0)
        found = []
        for layer, _ in heads:
            found.append(layers[layer][:, taken[layer]])
            taken[layer] += 1
        return torch.stack(found, dim=1), self.pair.decoder.logits(x_BTD)
