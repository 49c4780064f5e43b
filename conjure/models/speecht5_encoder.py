"""What SpeechT5 reads with: text or a wave in front, then one kind of encoder whose keys know how far they are away.

Ao et al. 2021, arXiv 2110.07205; relative positions after Shaw et al. 2018, arXiv 1803.02155; scaled sinusoids after
Li et al. 2018, arXiv 1809.08895.

Legend: B rows, N samples, M tokens or frames, D width, H heads, C width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.speech_tower import Conv1d, FrontLayer, SpeechTowerConfig
from conjure.nn.feedforward import ACTIVATIONS, Activation, FeedForward
from conjure.nn.linear import Linear
from conjure.nn.norm import LayerNorm
from conjure.nn.position import sinusoid_table


@dataclass(frozen=True, kw_only=True)
class SpeechT5EncoderConfig:
    dim: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    farthest: int = 160
    """How far away two places are still told apart."""
    activation: Activation = "gelu"
    norm_eps: float = 1e-5
    vocab: int = 0
    """Characters; 0: it hears waves."""
    most: int = 450
    """Characters that it reads."""
    wave: SpeechTowerConfig | None = None
    """The convolutions of a wave, and those of places; nothing else of it counts."""

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.dim % 2:
            raise ConjureError(f"SpeechT5: {self.heads} heads do not divide the width {self.dim}")
        if bool(self.vocab) == (self.wave is not None):
            raise ConjureError("SpeechT5: expected either characters or waves to read")


def interleaved_sinusoids(first: int, count: int, dim: int) -> Tensor:
    """float32 `[count, dim]` of sin and cos in turn at the places from `first` on."""
    rates = torch.exp(torch.arange(0, dim, 2).float() * -(math.log(10000.0) / dim))
    angles = torch.arange(first, first + count).float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class ScaledPlaces(nn.Module):
    """x + alpha times where it stands."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.alpha = dim, nn.Parameter(torch.tensor(1.0))

    def forward(self, x_BMD: Tensor, first: int = 0) -> Tensor:
        return x_BMD + self.alpha * interleaved_sinusoids(first, x_BMD.shape[1], self.dim).to(x_BMD)


class TextFront(nn.Module):
    """Ids `[B, M]` -> `[B, M, D]`."""

    def __init__(self, config: SpeechT5EncoderConfig) -> None:
        super().__init__()
        self.most = config.most
        self.embed, self.places = nn.Embedding(config.vocab, config.dim), ScaledPlaces(config.dim)

    def forward(self, ids_BM: Tensor) -> Tensor:
        if ids_BM.shape[1] > self.most:
            raise ConjureError(f"this model reads at most {self.most} characters, got {ids_BM.shape[1]}",
                               hint="give the text in shorter sentences")  # fmt: skip
        return self.places(self.embed(ids_BM))


class WaveFront(nn.Module):
    """Samples `[B, N]` -> `[B, M, D]`, rows of one length."""

    def __init__(self, config: SpeechT5EncoderConfig) -> None:
        super().__init__()
        assert config.wave is not None
        self.config = wave = config.wave
        self.layers = nn.ModuleList(FrontLayer(wave, layer) for layer in range(len(wave.widths)))
        self.norm = LayerNorm(wave.widths[-1], config.norm_eps)
        self.project = Linear(wave.widths[-1], config.dim)
        self.place = Conv1d(
            config.dim, config.dim, wave.position_kernel, padding=wave.position_kernel // 2, groups=wave.position_groups
        )

    def forward(self, samples_BN: Tensor) -> Tensor:
        if int(self.config.frames(torch.tensor(samples_BN.shape[1]))) < 1:
            raise ConjureError(f"{samples_BN.shape[1]} samples are too few for a frame", hint="give more sound")
        x_BCM = samples_BN[:, None]
        for layer in self.layers:
            x_BCM = layer(x_BCM)
        x_BMD = self.project(self.norm(x_BCM.mT))
        M, dim = x_BMD.shape[1:]
        near_BDM = self.place(x_BMD.mT)[..., :M]  # an even kernel gives one frame too many
        x_BMD = x_BMD + ACTIVATIONS[self.config.activation](near_BDM).mT
        # Row 0 of the table is never used, and row 1 stands for padding.
        return x_BMD + sinusoid_table(M + 2, dim, 1)[2:].to(x_BMD)


class RelativeBlock(nn.Module):
    """Attention and feed-forward, each with a norm behind."""

    def __init__(self, config: SpeechT5EncoderConfig) -> None:
        super().__init__()
        c, self.heads = config, config.heads
        self.qkv, self.out = Linear(c.dim, 3 * c.dim), Linear(c.dim, c.dim)
        self.norm_attention, self.norm_feedforward = LayerNorm(c.dim, c.norm_eps), LayerNorm(c.dim, c.norm_eps)
        self.feedforward = FeedForward(c.dim, c.hidden, activation=c.activation, gated=False, bias=True)

    def forward(self, x_BMD: Tensor, near_MMC: Tensor) -> Tensor:
        """`[B, M, D] -> [B, M, D]`; `near` is added to the keys, another for each query."""
        q, k, v = rearrange(self.qkv(x_BMD), "B M (three H C) -> three B H M C", three=3, H=self.heads)
        q = q * q.shape[-1] ** -0.5
        bias_BHMM = torch.einsum("bhmc,mnc->bhmn", q, near_MMC)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_BHMM, scale=1.0)
        x_BMD = self.norm_attention(x_BMD + self.out(rearrange(out, "B H M C -> B M (H C)")))
        return self.norm_feedforward(x_BMD + self.feedforward(x_BMD))


class SpeechT5Encoder(nn.Module):
    """Ids or samples -> states `[B, M, D]`."""

    def __init__(self, config: SpeechT5EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.front = TextFront(config) if config.wave is None else WaveFront(config)
        self.norm = LayerNorm(config.dim, config.norm_eps)
        self.near = nn.Embedding(2 * config.farthest, config.dim // config.heads)
        self.blocks = nn.ModuleList(RelativeBlock(config) for _ in range(config.layers))

    def forward(self, given: Tensor) -> Tensor:
        x_BMD = self.norm(self.front(given))
        far, at_M = self.config.farthest, torch.arange(x_BMD.shape[1], device=x_BMD.device)
        near_MMC = self.near((at_M[:, None] - at_M[None]).clamp(-far, far - 1) + far)
        for block in self.blocks:
            x_BMD = block(x_BMD, near_MMC)
        return x_BMD
