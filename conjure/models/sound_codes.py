"""What a neural codec makes of a sound: numbers of codes, and what they cost.

Legend: B rows, C channels, N samples, Q books, T frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

SCALE_BITS = 32
"""A part's loudness is a float32."""


@dataclass(frozen=True)
class SoundCodes:
    """Codes of `samples` samples in parts that follow one another, perhaps overlapping."""

    parts: tuple[Tensor, ...]
    """int64 `[B, Q, T]` each."""
    scales: tuple[Tensor | None, ...]
    """Of each part what it was divided by, `[B, 1]`."""
    samples: int

    def bits(self, codes: int) -> float:
        """Of one row, where each book has so many codes and every one is as likely as any other."""
        numbers = sum(part.shape[1] * part.shape[2] for part in self.parts)
        return numbers * math.log2(codes) + SCALE_BITS * sum(scale is not None for scale in self.scales)


class CodecConfig(Protocol):
    """What the configs of codecs have in common."""

    @property
    def rate(self) -> int:
        """Samples a second that the codec takes and gives."""
        ...

    @property
    def channels(self) -> int: ...

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        ...

    @property
    def books(self) -> int:
        """At most."""
        ...

    @property
    def codes(self) -> int:
        """In each book."""
        ...


class SoundCodec(Protocol):
    """EnCodec, DAC and our own."""

    @property
    def config(self) -> CodecConfig: ...

    def encode(self, x_BCN: Tensor, books: int = 0) -> SoundCodes:
        """By the first `books` books (0: all)."""
        ...

    def decode(self, codes: SoundCodes) -> Tensor:
        """`[B, C, N]`, as long as what was encoded."""
        ...


def books_for(config: CodecConfig, kilobits: float) -> int:
    """How many books so many kbit/s pay for: at least 1, at most all; all for 0."""
    if not kilobits:
        return config.books
    each = math.ceil(config.rate / config.hop) * math.log2(config.codes)
    return min(config.books, max(1, math.floor(1000 * kilobits / each)))
