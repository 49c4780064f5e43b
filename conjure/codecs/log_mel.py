"""Sound as the networks see it: mel spectrograms on a logarithmic scale, and waves brought to one loudness.

The front ends of Whisper (Radford et al. 2022, arXiv 2212.04356, 2.2) and of SpeechT5 (arXiv 2110.07205) are `Mel`
values; `log_mel` computes any of them. The two mel scales are Slaney's (Auditory Toolbox, 1998), linear below 1 kHz,
and that of HTK, 2595 log10(1 + f / 700).

Legend: B rows, N samples, F frequencies of the transform, M mel bands, T frames.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.core.errors import ConjureError

Scale = Literal["slaney", "htk"]
BEND, STEP = 1000.0, 200.0 / 3
"""Of Slaney's scale: where it turns from linear to logarithmic, and the Hz of a mel below that."""
GROWTH = math.log(6.4) / 27
"""Of its logarithmic part: what a mel multiplies by, as a logarithm."""
QUIETEST = 1e-7
"""Added to a variance, as wav2vec 2.0 does."""


@dataclass(frozen=True, kw_only=True)
class Mel:
    """A front end. `log_mel` gives `bands` numbers for every `hop` samples."""

    rate: int = 16_000
    window: int = 400
    """Samples under the (periodic) Hann window."""
    fft: int = 400
    hop: int = 160
    bands: int = 80
    low: float = 0.0
    high: float = 8000.0
    scale: Scale = "slaney"
    even: bool = True
    """Bands of equal area (Slaney), not of equal height."""
    power: float = 2.0
    """What magnitudes are raised to."""
    floor: float = 1e-10
    base: Literal["10", "e"] = "10"
    """Of the logarithm."""

    def __post_init__(self) -> None:
        if not 0 < self.window <= self.fft or self.hop < 1 or self.bands < 1:
            raise ConjureError(
                f"mel: expected 0 < window <= fft, hop and bands above 0, got window {self.window}, fft {self.fft}, "
                f"hop {self.hop}, bands {self.bands}"
            )
        if not 0 <= self.low < self.high <= self.rate / 2:
            got = f"{self.low:g} and {self.high:g}"
            raise ConjureError(f"mel: expected 0 <= low < high <= {self.rate / 2:g} Hz, got {got}")


WHISPER = Mel()
SPEECHT5 = Mel(window=1024, fft=1024, hop=256, low=80.0, high=7600.0, power=1.0)


def hertz_to_mel(hertz: Tensor, scale: Scale) -> Tensor:
    """Of float64 frequencies."""
    if scale == "htk":
        return 2595 * torch.log10(1 + hertz / 700)
    return torch.where(hertz < BEND, hertz / STEP, BEND / STEP + torch.log(hertz.clamp_min(1.0) / BEND) / GROWTH)


def mel_to_hertz(mel: Tensor, scale: Scale) -> Tensor:
    """The inverse."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    bend = BEND / STEP
    return torch.where(mel < bend, mel * STEP, BEND * torch.exp(GROWTH * (mel - bend)))


@functools.lru_cache(maxsize=16)
def mel_filters(mel: Mel) -> Tensor:
    """float32 `[M, F]`: how much of each frequency goes into each band, triangles that overlap by half."""
    ends = hertz_to_mel(torch.tensor([mel.low, mel.high], dtype=torch.float64), mel.scale)
    steps = torch.linspace(float(ends[0]), float(ends[1]), mel.bands + 2, dtype=torch.float64)
    corners = mel_to_hertz(steps, mel.scale)
    at_F = torch.linspace(0, mel.rate / 2, mel.fft // 2 + 1, dtype=torch.float64)
    widths = corners.diff()
    rising_MF = (at_F - corners[:-2, None]) / widths[:-1, None]
    falling_MF = (corners[2:, None] - at_F) / widths[1:, None]
    filters_MF = torch.minimum(rising_MF, falling_MF).clamp_min(0)
    if mel.even:
        filters_MF = filters_MF * (2 / (corners[2:] - corners[:-2]))[:, None]
    return filters_MF.float()


def spectrum(samples_BN: Tensor, mel: Mel) -> Tensor:
    """Magnitudes to the power `mel.power`, `[B, F, T]` (or `[F, T]` of one row): frame t is centred on sample t hop,
    the ends are mirrored, T = 1 + N // hop.

    Raises `ConjureError` for less sound than half a transform, which cannot be mirrored.
    """
    if samples_BN.shape[-1] <= mel.fft // 2:
        raise ConjureError(
            f"{samples_BN.shape[-1]} samples are too few for a frame of {mel.fft}", hint="give more sound"
        )
    window = torch.hann_window(mel.window, device=samples_BN.device)
    found = torch.stft(samples_BN.float(), mel.fft, mel.hop, mel.window, window, return_complex=True).abs()
    return found if mel.power == 1 else found**mel.power


def log_mel(samples_BN: Tensor, mel: Mel) -> Tensor:
    """float32 `[B, M, T]` (or `[M, T]` of one row), T = 1 + N // hop."""
    return _logarithm(mel_filters(mel).to(samples_BN.device) @ spectrum(samples_BN, mel), mel)


def whisper_features(samples_BN: Tensor, mel: Mel, frames: int = 3000) -> Tensor:
    """What Whisper hears, `[B, M, frames]`: filled up with silence or cut to `frames` hops, without the last frame, all
    more than 80 dB below the loudest lifted to there, and brought near -1 .. 1.

    `[N]` gives `[M, frames]`; rows are measured against their own loudest.
    """
    wanted = frames * mel.hop
    samples_BN = F.pad(samples_BN[..., :wanted].float(), (0, max(0, wanted - samples_BN.shape[-1])))
    power_BFT = spectrum(samples_BN, mel)[..., :-1].contiguous()  # strided, the product takes many times as long
    found = _logarithm(mel_filters(mel).to(power_BFT.device) @ power_BFT, mel)
    return (torch.maximum(found, found.amax((-2, -1), keepdim=True) - 8) + 4) / 4


def levelled(samples_BN: Tensor, lengths: list[int] | None = None) -> Tensor:
    """Rows with mean 0 and variance 1 over their first `lengths[b]` samples, 0 behind them: the input of wav2vec 2.0,
    HuBERT and their kin."""
    rows = samples_BN if samples_BN.dim() == 2 else samples_BN[None]
    out_BN = torch.zeros_like(rows, dtype=torch.float32)
    for row, (samples_N, length) in enumerate(zip(rows, lengths or [rows.shape[1]] * len(rows), strict=True)):
        heard = samples_N[:length].double()
        out_BN[row, :length] = (heard - heard.mean()) / torch.sqrt(heard.var(correction=0) + QUIETEST)
    return out_BN if samples_BN.dim() == 2 else out_BN[0]


def _logarithm(power: Tensor, mel: Mel) -> Tensor:
    power = power.clamp_min(mel.floor)
    return power.log10() if mel.base == "10" else power.log()
