"""Whose voice it is, as a vector of length 1: log-mel frames -> ConvNeXt blocks -> attentive statistics -> a vector.

As in ECAPA-TDNN (Desplanques et al. 2020, arXiv 2005.07143) the outputs of all blocks are looked at together, and
weighted means and deviations over time are taken, whose weights know the whole sound (attentive statistics: Okabe et
al. 2018, arXiv 1803.10963), of the channels and of the mel bands themselves; the blocks are those of `nn/convnext.py`.
The loss is the angular prototypical one (Chung et al. 2020, arXiv 2003.11982, equation 9): of all clips of a batch, the
likeliest to be by the same speaker.

Legend: B batch, T frames of 10 ms, S steps of 20 ms, M mel bands, D width, C channels of the statistics, E embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.codecs.log_mel import Mel, log_mel
from conjure.codecs.voice_activity import Floats
from conjure.core.errors import ConjureError
from conjure.nn.convnext import ConvNeXt, TimeConvolution
from conjure.nn.linear import Linear
from conjure.nn.norm import LayerNorm

MEL = Mel(bands=64, high=7600.0)
RATE = MEL.rate
LEAST = 4 * MEL.hop
"""Samples below which there is nothing to hear."""
RANGE = 6.0
"""Powers of ten below the loudest that are heard."""
LOUD = 2.0
"""Powers of ten below the loudest frame: what is softer does not count for the level."""
PART, MOST = 3.0, 60.0
"""Seconds of speech that are looked at together, and of which a voice is made."""
AT_ONCE = 16
_TINY = 1e-5


@dataclass(frozen=True, kw_only=True)
class WhoConfig:
    """The `model:` section of the recipe."""

    dim: int = 128
    hidden: int = 224
    kernel: int = 7
    dilations: tuple[int, ...] = (1, 2, 3, 1)
    """One block for each."""
    channels: int = 192
    """Whose statistics are taken."""
    attention: int = 48
    embedding: int = 128

    def __post_init__(self) -> None:
        widths = (self.dim, self.hidden, self.channels, self.attention, self.embedding)
        if self.kernel % 2 == 0 or min(widths) < 1 or not self.dilations or min(self.dilations) < 1:
            raise ConjureError("model: expected an odd kernel, widths of at least 1, and dilations of at least 1")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What cosines mean, set after training on real readers."""

    same: float = 0.6
    """Of two sounds, from which they are taken for one speaker: there one and two are as probable."""
    slope: float = 12.0
    """Of the logarithm of the odds."""
    alike: float = 0.5
    """The mean of windows' cosines from which two clusters are one speaker."""
    taken: float | None = None
    """Share of pairs of two speakers at or above `same`, of readers on whom it was not set."""
    refused: float | None = None
    """Share of pairs of one speaker below it, likewise."""

    def probability(self, score: float) -> float:
        """That it is one speaker, where one and two were as probable before."""
        return 1 / (1 + math.exp(min(700.0, self.slope * (self.same - score))))


class Who(nn.Module):
    """`embed` gives vectors of length 1; `forward` is the loss, whose logits are cosines times exp(`log_scale`)."""

    def __init__(self, config: WhoConfig) -> None:
        super().__init__()
        self.config = config
        self.read = TimeConvolution(2 * MEL.bands, config.dim, 3)
        self.blocks = nn.ModuleList(
            ConvNeXt(config.dim, config.hidden, kernel=config.kernel, dilation=each) for each in config.dilations
        )
        self.gather = Linear(config.dim * len(config.dilations), config.channels)
        self.look = Linear(3 * config.channels, config.attention)
        self.weigh = Linear(config.attention, config.channels)
        self.norm, self.norm_mel = LayerNorm(2 * config.channels), LayerNorm(2 * MEL.bands)
        self.out = Linear(2 * config.channels + 2 * MEL.bands, config.embedding, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        with torch.no_grad():  # at first all moments count alike
            self.weigh.weight.zero_()

    def embed(self, mel_BTM: Tensor, lengths_B: Tensor) -> Tensor:
        """`[B, E]` of length 1, float32. Frames behind `lengths` change nothing; of an odd number the last is left."""
        mel_BTM = mel_BTM[:, : mel_BTM.shape[1] // 2 * 2]
        steps_B = lengths_B // 2
        h_BSD = mel_BTM.unflatten(1, (-1, 2)).flatten(2)
        here_BS1 = (torch.arange(h_BSD.shape[1], device=h_BSD.device) < steps_B[:, None])[..., None].to(h_BSD.dtype)
        h_BSD = self.read(h_BSD * here_BS1)
        found = []
        for block in self.blocks:
            h_BSD = block(h_BSD, here_BS1)
            found.append(h_BSD)
        h_BSC = F.gelu(self.gather(torch.cat(found, -1)))
        weights_BSC = self.weights(h_BSC, here_BS1)
        mel_BSM = mel_BTM.unflatten(1, (-1, 2)).mean(2)
        pooled = self.norm(statistics(h_BSC, weights_BSC))
        colour = self.norm_mel(statistics(mel_BSM, weights_BSC.mean(-1, keepdim=True)))
        return F.normalize(self.out(torch.cat([pooled, colour], -1)).float(), dim=-1)

    def weights(self, h_BSC: Tensor, here_BS1: Tensor) -> Tensor:
        """`[B, S, C]`: how much each moment counts for each channel; 1 in all."""
        even_BS1 = here_BS1 / here_BS1.sum(1, keepdim=True).clamp_min(1)
        whole_B1C = statistics(h_BSC, even_BS1)[:, None].expand(-1, h_BSC.shape[1], -1)
        logits_BSC = self.weigh(torch.tanh(self.look(torch.cat([h_BSC, whole_B1C], -1))))
        return logits_BSC.masked_fill(here_BS1 == 0, -1e4).softmax(1)

    def forward(self, mel_BTM: Tensor, lengths_B: Tensor, speakers_B: Tensor) -> Tensor:
        """The sum over B of the nats of finding the other clip of one's own speaker: clips 2 k and 2 k + 1 are by the
        same one. Other clips by a speaker who is there twice do not count."""
        vectors_BE = self.embed(mel_BTM, lengths_B)
        return prototypical(vectors_BE[0::2], vectors_BE[1::2], speakers_B[0::2], self.log_scale.exp())

    def flops(self, rows: int, frames: int) -> float:
        """Of a forward pass: matrices and convolutions."""
        c = self.config
        blocks = len(c.dilations) * (2 * c.dim * c.hidden + c.dim * c.kernel)
        step = 6 * MEL.bands * c.dim + blocks + c.dim * len(c.dilations) * c.channels + 4 * c.channels * c.attention
        return 2.0 * rows * (step * (frames // 2) + 2 * (c.channels + MEL.bands) * c.embedding)


def prototypical(one_GE: Tensor, other_GE: Tensor, speakers_G: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of cosines times `scale`, summed over both ways: 2 G terms."""
    logits_GG = scale * one_GE @ other_GE.T
    twice_GG = (speakers_G[:, None] == speakers_G) & ~torch.eye(len(speakers_G), dtype=torch.bool, device=one_GE.device)
    logits_GG = logits_GG.masked_fill(twice_GG, -1e4)
    own_G = torch.arange(len(speakers_G), device=one_GE.device)
    return sum((F.cross_entropy(each, own_G, reduction="sum") for each in (logits_GG, logits_GG.T)), torch.zeros(()))


def features(samples_N: Tensor) -> Tensor:
    """float32 `[T, M]`, T = 1 + N // 160, of sound at 16 kHz: logarithms of the bands, less the mean level of what is
    loud. The colour stays: it tells voices apart, and microphones too."""
    found_MT = log_mel(samples_N, MEL)
    found_MT = torch.maximum(found_MT, found_MT.max() - RANGE)
    level_T = found_MT.mean(0)
    found_MT = found_MT - found_MT[:, level_T >= level_T.max() - LOUD].mean()
    return found_MT.T.contiguous()


@torch.no_grad()
def embedded(network: Who, sounds: Sequence[Floats]) -> np.ndarray:
    """float32 `[B, E]` of float32 `[N]` sounds at 16 kHz, of at least `LEAST` samples each."""
    mels = [features(torch.from_numpy(np.ascontiguousarray(each))) for each in sounds]
    lengths_B = torch.tensor([len(mel) for mel in mels])
    return network.embed(nn.utils.rnn.pad_sequence(mels, True), lengths_B).numpy()


def voice(network: Who, speech_N: Floats) -> np.ndarray:
    """float32 `[E]` of length 1 of the first minute of speech: the mean over parts of `PART` seconds that overlap by
    half."""
    speech_N = speech_N[: round(MOST * RATE)]
    size = round(PART * RATE)
    starts = list(range(0, max(1, len(speech_N) - size // 2), size // 2))
    parts = [speech_N[start : start + size] for start in starts]
    sum_E = sum(embedded(network, parts[k : k + AT_ONCE]).sum(0) for k in range(0, len(parts), AT_ONCE))
    return np.asarray(sum_E / np.linalg.norm(sum_E), np.float32)


def statistics(h_BSC: Tensor, weights_BSC: Tensor) -> Tensor:
    """`[B, 2 C]`: weighted means, then deviations."""
    mean_BC = (weights_BSC * h_BSC).sum(1)
    variance_BC = (weights_BSC * (h_BSC - mean_BC[:, None]).square()).sum(1)
    return torch.cat([mean_BC, (variance_BC + _TINY).sqrt()], -1)
