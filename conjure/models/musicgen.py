"""MusicGen: an encoder reads a text, a decoder writes the codes of a sound that fits it, a codec makes the sound (Copet
et al. 2023, arXiv 2306.05284).

Legend: B rows, M tokens of the text, Q books, S steps, D width, T frames, N samples, V codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.code_writer import CodeWriter, CodeWriterConfig
from conjure.models.encodec import Encodec, EncodecConfig
from conjure.models.sound_codes import SoundCodes
from conjure.models.transformer import Block, Transformer, TransformerConfig
from conjure.nn.cache import Cache
from conjure.nn.linear import Linear


@dataclass(frozen=True, kw_only=True)
class MusicGenConfig:
    text: TransformerConfig
    """The encoder of a T5."""
    writer: CodeWriterConfig
    codec: EncodecConfig
    channels: int = 1
    """Of 2, books alternate between left and right, and a pair has one lag."""

    def __post_init__(self) -> None:
        if self.text.causal or not self.writer.transformer.cross:
            raise ConjureError("expected an encoder that sees all and a decoder that attends across")
        if self.channels not in (1, 2) or self.writer.books % self.channels or self.codec.part:
            raise ConjureError("expected one channel or two with books for each, and a codec that reads all at once")


class MusicGen(nn.Module):
    def __init__(self, config: MusicGenConfig) -> None:
        super().__init__()
        self.config = c = config
        self.text = Transformer(c.text)
        apart = c.text.dim != c.writer.transformer.dim
        self.bridge = Linear(c.text.dim, c.writer.transformer.dim) if apart else None
        self.writer, self.codec = CodeWriter(c.writer), Encodec(c.codec)

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.writer.stack.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.text.compute_dtype = self.writer.stack.compute_dtype = dtype

    def read(self, ids_BM: Tensor, mask_BM: Tensor | None = None) -> Tensor:
        """What the decoder attends to, `[B, M, D]`; 0 where the mask is."""
        memory_BMD = self.text.hidden(ids_BM, mask_BT=mask_BM)
        memory_BMD = memory_BMD if self.bridge is None else self.bridge(memory_BMD)
        return memory_BMD if mask_BM is None else memory_BMD * mask_BM[..., None]

    @torch.no_grad()
    def sound(self, ids_BQT: Tensor) -> Tensor:
        """The sound of these codes, `[B, C, N]`."""
        apart = [ids_BQT[:, channel :: self.config.channels] for channel in range(self.config.channels)]
        samples = ids_BQT.shape[2] * self.config.codec.hop
        return torch.cat([self.codec.decode(SoundCodes((ids,), (None,), samples)) for ids in apart], 1)


class Guided:
    """The decoder with a text, as `decoding/delay_pattern.py` asks for it: what the text adds to the logits counts
    several times (Ho and Salimans 2022, arXiv 2207.12598). Without a text attention across gives nothing."""

    def __init__(self, network: MusicGen, memory_1MD: Tensor, guidance: float) -> None:
        self.writer, self.memory_1MD, self.guidance = network.writer, memory_1MD, guidance

    def cache(self, batch: int, capacity: int) -> Cache:
        """For `batch` rows that know the text and, where it is guided, as many that know none."""
        rows = batch if self.guidance == 1 else 2 * batch
        cache = self.writer.stack.cache(rows, capacity)
        known_B = torch.arange(rows) < batch
        memory_BMD = self.memory_1MD * known_B[:, None, None].to(self.memory_1MD)
        for block in self.writer.stack.blocks:
            assert isinstance(block, Block) and block.cross is not None
            cache.memory.append(block.cross.read(memory_BMD))
        return cache

    def hidden(self, ids_BQS: Tensor, *, cache: Cache) -> Tensor:
        """Of all rows of the cache."""
        return self.writer.hidden(ids_BQS if self.guidance == 1 else torch.cat([ids_BQS, ids_BQS]), cache=cache)

    def logits(self, x_BSD: Tensor) -> Tensor:
        """float32 `[B, Q, S, V]` of the rows that know the text."""
        logits_BQSV = self.writer.logits(x_BSD)
        if self.guidance == 1:
            return logits_BQSV
        with_BQSV, without_BQSV = logits_BQSV.chunk(2)
        return without_BQSV + self.guidance * (with_BQSV - without_BQSV)
