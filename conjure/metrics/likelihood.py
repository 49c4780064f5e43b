"""How well a language model predicts text: bits per byte, token and word perplexity, with error bars.

Legend: B windows, T tokens of a window, N tokens of a text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.metrics.confidence import Interval

Logits = Callable[[Tensor], Tensor]
"""ids int64 [B, T] -> logits float32 [B, T, V]"""


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood of a text in nats, and what it is a text of."""

    nats: float
    tokens: int
    bytes: float
    """UTF-8."""
    words: int = 0

    @property
    def bits_per_byte(self) -> float:
        """log2 of how many times likelier than a uniform byte; comparable between any two tokenizers."""
        return self.nats / math.log(2) / self.bytes

    @property
    def token_perplexity(self) -> float:
        """exp(nats per token); comparable for one tokenizer only."""
        return math.exp(self.nats / self.tokens)

    @property
    def word_perplexity(self) -> float:
        """exp(nats per word), whatever tokens the words were cut into."""
        return math.exp(self.nats / self.words)


def token_nats(
    logits: Logits, ids: Sequence[int], *, context: int, stride: int, rows: int = 8
) -> Iterator[np.ndarray]:
    """-log p of ids[1:], in nats, float64; several arrays, in order, which together hold N - 1 values.

    A window of `context` tokens moves by `stride`; each token is predicted once, by the first window that holds
    it, so it sees at least context - stride tokens before it (all there are near the beginning). `rows` windows are
    read at a time.
    """
    assert 0 < stride <= context, "windows must touch"
    inputs, targets = np.asarray(ids[:-1], dtype=np.int64), np.asarray(ids[1:], dtype=np.int64)
    if len(inputs) == 0:
        return
    ends = [min(context, len(inputs))]
    while ends[-1] < len(inputs):
        ends.append(min(ends[-1] + stride, len(inputs)))
    fresh = [0, *ends[:-1]]  # where the targets of each window begin that were not predicted before
    windows = [(max(0, end - context), begin, end) for begin, end in zip(fresh, ends, strict=True)]
    for at in range(0, len(windows), rows):
        part = windows[at : at + rows]  # all of one length: only a text shorter than the context has a shorter one
        ids_BT = torch.from_numpy(np.stack([inputs[start:end] for start, _, end in part]))
        targets_BT = torch.from_numpy(np.stack([targets[start:end] for start, _, end in part]))
        logp_BTV = logits(ids_BT).log_softmax(-1)
        nats_BT = -logp_BTV.gather(-1, targets_BT[..., None])[..., 0].double().cpu().numpy()
        for row, (start, begin, end) in zip(nats_BT, part, strict=True):
            yield row[begin - start : end - start]


def ratio_interval(
    nats: Sequence[float], sizes: Sequence[float], *, seed: int = 0, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """sum(nats) / sum(sizes) over chunks of text, with its bootstrap percentile interval (Efron 1979): chunks, which
    are roughly independent, are drawn anew with replacement, tokens are not."""
    top, bottom = np.asarray(nats, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    if top.shape != bottom.shape or top.ndim != 1 or not bottom.sum() > 0:
        raise ConjureError("expected chunks of text with their sizes, got none", hint="is the text empty?")
    draw = rng(seed)
    ratios = []
    for _ in range(resamples):
        chosen = draw.integers(len(top), size=len(top))
        ratios.append(top[chosen].sum() / max(bottom[chosen].sum(), 1e-12))
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(top.sum() / bottom.sum()), float(low), float(high))


def mapped(interval: Interval, change: Callable[[float], float]) -> Interval:
    """A rising function of an interval: bits from nats, perplexity from nats per word."""
    return Interval(*(change(value) for value in interval))
