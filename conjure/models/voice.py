"""From phones to a mel spectrogram, in two steps: how long each phone lasts, then what each frame sounds like.

Durations are said outright and never searched for, so no phone can be skipped or said twice. An encoder reads the whole
sentence; its states are spread over frames by the durations, and a first part gives the mean spectrogram they suggest.
Around it a conditional flow (Lipman et al., arXiv 2210.02747, here `diffusion/flow.py`) draws the spectrogram itself in
a few steps, as in Matcha-TTS (Mehta et al., arXiv 2309.03199), whose alignment is not needed: the teacher tells its
own.

Legend: B batch, P phones, D width, T frames, M mel bands. Times are in frames; frame t is centred on time t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from conjure.codecs.log_mel import Mel
from conjure.core.errors import ConjureError
from conjure.diffusion.flow import RectifiedFlow
from conjure.models.istft_vocoder import SPEECH
from conjure.nn.attention import attend
from conjure.nn.convnext import ConvNeXt
from conjure.nn.linear import Linear
from conjure.nn.modulation import Embedder, Ending, Modulation, leave_to_adam
from conjure.nn.norm import LayerNorm
from conjure.nn.position import timestep_embedding

MEAN, STD = -5.7, 2.25
"""Of log-mel values of speech: the network sees (mel - MEAN) / STD."""
TIMES = 64
"""Features of the flow's time."""
PLACES = 5
"""Features of a frame's place in its phone."""


@dataclass(frozen=True, kw_only=True)
class VoiceConfig:
    voices: tuple[str, ...] = ("awb", "kal16", "rms", "slt")
    phones: int = 41
    dim: int = 192
    heads: int = 3
    encoder_layers: int = 3
    hidden: int = 448
    """Width inside the encoder's blocks."""
    prior_layers: int = 2
    dilations: tuple[int, ...] = (1, 2, 4, 2, 1)
    """One block of the flow's network each."""
    frame_hidden: int = 384
    """Width inside the blocks that see frames."""
    mel: Mel = field(default_factory=lambda: SPEECH)
    flow: RectifiedFlow = field(default_factory=lambda: RectifiedFlow(predict="sample", floor=0.5))
    vocoder: str = ""
    """The folder of the vocoder that the voice is saved with; the recipe names it."""

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.dim % 2 or not self.dilations or not self.voices:
            raise ConjureError(f"voice: expected heads and 2 to divide dim, a voice and a dilation, got {self}")


class EncoderBlock(nn.Module):
    """Attention over the sentence, then a ConvNeXt block."""

    def __init__(self, config: VoiceConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = LayerNorm(config.dim)
        self.qkv = Linear(config.dim, 3 * config.dim, bias=False)
        self.out = Linear(config.dim, config.dim)
        self.local = ConvNeXt(config.dim, config.hidden, kernel=5)

    def forward(self, x_BPD: Tensor, mask_BP1: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm(x_BPD)), "b p (three h d) -> three b h p d", three=3, h=self.heads)
        seen_B11P = (mask_BP1[..., 0] > 0)[:, None, None]
        mixed = rearrange(attend(q, k, v, mask=seen_B11P), "b h p d -> b p (h d)")
        return self.local(x_BPD + self.out(mixed), mask_BP1)


class Voice(nn.Module):
    """forward gives the losses; `encode`, `frames` and `estimate` are its steps in use."""

    def __init__(self, config: VoiceConfig) -> None:
        super().__init__()
        self.config = config
        dim, bands = config.dim, config.mel.bands
        self.phones, self.voices = nn.Embedding(config.phones, dim), nn.Embedding(len(config.voices), dim)
        self.encoder = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))
        self.norm = LayerNorm(dim)
        self.duration = nn.Sequential(Linear(dim, dim), nn.GELU(), Linear(dim, 1))
        self.place = Linear(PLACES, dim)
        self.prior = nn.ModuleList(ConvNeXt(dim, config.frame_hidden) for _ in range(config.prior_layers))
        self.mean = Linear(dim, bands)
        self.time = Embedder(TIMES, dim)
        self.modulation = Modulation(dim, 3)
        self.offsets = nn.Parameter(torch.zeros(len(config.dilations), 3, dim))
        self.entry = Linear(2 * bands, dim)
        self.blocks = nn.ModuleList(ConvNeXt(dim, config.frame_hidden, dilation=each) for each in config.dilations)
        self.ending = Ending(dim, bands)
        for each in (self.phones.weight, self.voices.weight):
            nn.init.normal_(each, std=0.5)
            leave_to_adam(each)
        for each in (self.place.weight, self.mean.weight, self.entry.weight, self.offsets, self.ending.linear.weight):
            leave_to_adam(each)

    def forward(self, phones_BP: Tensor, ends_BP: Tensor, voice_B: Tensor, first_B: Tensor, mel_BTM: Tensor,
                counted_BT: Tensor, noise_BTM: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Losses `[B]` of a stretch of frames that begins at frame `first_B` of each sentence: of the flow, of the
        mean, of the durations. Phones that are padding are -1, their ends those of the last; `mel` is normalised."""
        h_BPD, mask_BP1 = self.encode(phones_BP, voice_B)
        wanted_BP = torch.diff(ends_BP, dim=1, prepend=torch.zeros_like(ends_BP[:, :1])).clamp_min(0.3).log()
        mask_BP = mask_BP1[..., 0]
        duration_B = ((self.log_durations(h_BPD) - wanted_BP).square() * mask_BP).sum(1) / mask_BP.sum(1)
        at_BT = first_B[:, None] + torch.arange(mel_BTM.shape[1], device=first_B.device)
        counted_BT1 = counted_BT[..., None]
        g_BTD, mean_BTM = self.frames(h_BPD, ends_BP, voice_B, at_BT, counted_BT1)
        weight_BT1 = (counted_BT / counted_BT.mean(1, keepdim=True))[..., None]
        mean_B = ((mean_BTM - mel_BTM).abs() * weight_BT1).mean((1, 2))
        flow_B = self.config.flow.loss(lambda x, t: self.estimate(x, t, g_BTD, mean_BTM.detach(), counted_BT1), mel_BTM,
                                       noise_BTM, t_B, weight_BT1)  # fmt: skip
        return flow_B, mean_B, duration_B

    def encode(self, phones_BP: Tensor, voice_B: Tensor) -> tuple[Tensor, Tensor]:
        """States `[B, P, D]` of phones, and 1 where there is one, `[B, P, 1]`."""
        mask_BP1 = (phones_BP >= 0).float()[..., None]
        place_PD = timestep_embedding(torch.arange(phones_BP.shape[1], device=phones_BP.device), self.config.dim)
        x_BPD = self.phones(phones_BP.clamp_min(0)) + self.voices(voice_B)[:, None] + 0.3 * place_PD
        for block in self.encoder:
            x_BPD = block(x_BPD, mask_BP1)
        return self.norm(x_BPD) * mask_BP1, mask_BP1

    def log_durations(self, h_BPD: Tensor) -> Tensor:
        """Logarithms of frames, `[B, P]`."""
        return self.duration(h_BPD)[..., 0]

    def frames(
        self, h_BPD: Tensor, ends_BP: Tensor, voice_B: Tensor, at_BT: Tensor, counted_BT1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the flow is told of frames `at`, `[B, T, D]`, and their mean spectrogram `[B, T, M]`. `counted` is 1
        where there is a frame; what lies beyond changes nothing."""
        at_BT, ends_BP = at_BT.to(ends_BP.dtype).contiguous(), ends_BP.contiguous()
        last_B1 = torch.searchsorted(ends_BP, ends_BP[:, -1:].contiguous())  # padding ends where the last phone does
        index_BT = torch.minimum(torch.searchsorted(ends_BP, at_BT, right=True), last_B1)
        end_BT = ends_BP.gather(1, index_BT)
        start_BT = torch.where(index_BT > 0, ends_BP.gather(1, (index_BT - 1).clamp_min(0)), 0.0)
        x_BTD = h_BPD.gather(1, index_BT[..., None].expand(-1, -1, h_BPD.shape[2]))
        x_BTD = x_BTD + self.place(_places(at_BT - start_BT, end_BT - start_BT)) + self.voices(voice_B)[:, None]
        for block in self.prior:
            x_BTD = block(x_BTD, counted_BT1)
        return x_BTD, self.mean(x_BTD)

    def estimate(
        self, x_BTM: Tensor, t_B: Tensor, g_BTD: Tensor, mean_BTM: Tensor, counted_BT1: Tensor
    ) -> Tensor:
        """The spectrogram that the noisy one is thought to be, `[B, T, M]`: the mean, and what is added to it."""
        condition_BD = self.time(timestep_embedding(t_B * 1000, TIMES))
        shared = torch.stack(self.modulation(condition_BD), 0)
        h_BTD = g_BTD + self.entry(torch.cat([x_BTM, mean_BTM], -1))
        for block, offsets in zip(self.blocks, self.offsets, strict=True):
            shift, scale, gate = shared + offsets[:, None, None]
            h_BTD = block(h_BTD, counted_BT1, (shift, scale, gate))
        return mean_BTM + self.ending(h_BTD, condition_BD)

    def flops(self, phones: int, frames: int) -> float:
        """Multiply-adds times two of a forward pass over so many phones and frames, attention's scores left out."""
        c = self.config
        of_phone = c.encoder_layers * c.dim * (4 * c.dim + 2 * c.hidden + 5) + c.dim * c.dim
        of_block = c.dim * (2 * c.frame_hidden + 7)
        of_frame = (c.prior_layers + len(c.dilations)) * of_block + 4 * c.dim * c.mel.bands
        return 2.0 * (phones * of_phone + frames * of_frame)


def normalised(mel_BTM: Tensor) -> Tensor:
    return (mel_BTM - MEAN) / STD


def restored(mel_BTM: Tensor) -> Tensor:
    return mel_BTM * STD + MEAN


def _places(into_BT: Tensor, length_BT: Tensor) -> Tensor:
    """`[B, T, 5]`: where in its phone a frame lies, by share and by frames from both ends, and its length."""
    share = (into_BT / length_BT.clamp_min(0.1)).clamp(0, 1)
    left = (length_BT - into_BT).clamp(0, 8) / 8
    long = length_BT.clamp_min(0.3).log()
    return torch.stack([share, (math.pi * share).cos(), into_BT.clamp(0, 8) / 8, left, long], -1)
