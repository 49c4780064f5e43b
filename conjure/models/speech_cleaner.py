"""Speech without the noise and the room around it: a gain for each bin of a spectrogram, and below a few kHz a short
filter along time that also turns phases, as in DeepFilterNet (Schroeter et al., arXiv 2110.05588).

Windows are roots of periodic Hann windows with a hop of half their length, so that their squares add up to 1 and a
spectrogram that nothing was done to gives the samples back. The network is ConvNeXt blocks over frames; it reaches a
fixed number of frames to either side, so long sound may be cleaned in overlapping pieces with the same result.

Legend: B batch, N samples, T frames, F bins, L low bins, K taps, D width, W window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.convnext import ConvNeXt
from conjure.nn.linear import Linear
from conjure.nn.norm import LayerNorm

RATE = 16_000
LEVEL = 0.05
"""Loudness (root mean square) that the network expects of what is not silence."""
QUIET = 1e-4
"""Share of the loudest tenth of a second's power (40 dB below) under which another one counts as silence."""
SILENCE = 1e-6
"""Loudness of nothing at all, 120 dB below full scale."""
COMPRESSED = 0.3
"""Power to which magnitudes are taken, about as ears hear them."""
_TINY = 1e-8


@dataclass(frozen=True, kw_only=True)
class CleanerConfig:
    """The `model:` section of the recipe."""

    window: int = 512
    """Samples; the hop is half of it."""
    dim: int = 160
    hidden: int = 320
    kernel: int = 5
    dilations: tuple[int, ...] = (1, 2, 4, 8, 2)
    """One block for each: frames between the taps of its convolution."""
    low: int = 96
    """Bins, from the lowest on, whose phases are seen and turned."""
    taps: int = 3
    """Frames that the filter of a low bin takes, its own in the middle."""

    def __post_init__(self) -> None:
        if self.window < 4 or self.window % 2 or not 0 <= self.low <= self.bins:
            raise ConjureError(f"model: expected an even window and at most {self.bins} low bins, got {self.window} "
                               f"and {self.low}")  # fmt: skip
        if self.kernel % 2 == 0 or self.taps % 2 == 0 or min(self.kernel, self.taps, self.dim, self.hidden) < 1:
            raise ConjureError("model: expected odd kernel and taps, and widths of at least 1")
        if not self.dilations or min(self.dilations) < 1:
            raise ConjureError("model.dilations: expected at least one, each at least 1")

    @property
    def hop(self) -> int:
        return self.window // 2

    @property
    def bins(self) -> int:
        return self.window // 2 + 1

    @property
    def reach(self) -> int:
        """Samples before and behind one that may have a part in it."""
        frames = sum(self.dilations) * (self.kernel // 2) + self.taps // 2
        return (frames + 2) * self.hop


class SpeechCleaner(nn.Module):
    """Noisy spectrogram -> clean one."""

    window_W: Tensor

    def __init__(self, config: CleanerConfig) -> None:
        super().__init__()
        self.config = config
        hann_W = torch.hann_window(config.window, periodic=True, dtype=torch.float64)
        self.register_buffer("window_W", hann_W.sqrt().float(), persistent=False)
        self.read = Linear(config.bins + 2 * config.low, config.dim)
        self.blocks = nn.ModuleList(
            ConvNeXt(config.dim, config.hidden, kernel=config.kernel, dilation=each) for each in config.dilations
        )
        self.norm = LayerNorm(config.dim, eps=1e-6)
        self.gain = Linear(config.dim, config.bins)
        self.filter = Linear(config.dim, 2 * config.taps * config.low)
        with torch.no_grad():  # a new network lets most through and turns nothing
            self.gain.weight.mul_(0.1)
            self.filter.weight.mul_(0.02)

    def forward(self, noisy_BTF: Tensor) -> tuple[Tensor, Tensor]:
        """(clean complex `[B, T, F]`, gains `[B, T, F]` from 0 to 1) of the spectrogram of sound at `LEVEL`."""
        hidden_BTD = self.read(self.features(noisy_BTF))
        for block in self.blocks:
            hidden_BTD = block(hidden_BTD)
        hidden_BTD = self.norm(hidden_BTD)
        gain_BTF = torch.sigmoid(self.gain(hidden_BTD) + 1)
        low, taps = self.config.low, self.config.taps
        kernel_BTLK = torch.view_as_complex(self.filter(hidden_BTD).float().unflatten(-1, (low, taps, 2)))
        around_BTLK = F.pad(noisy_BTF[..., :low], (0, 0, taps // 2, taps // 2)).unfold(1, taps, 1)
        turned_BTL = (kernel_BTLK * around_BTLK).sum(-1)
        return gain_BTF * noisy_BTF + F.pad(turned_BTL, (0, self.config.bins - low)), gain_BTF

    def features(self, noisy_BTF: Tensor) -> Tensor:
        """Compressed magnitudes of all bins and compressed complex values of the low ones, `[B, T, F + 2 L]`."""
        magnitude_BTF = noisy_BTF.abs() + _TINY
        small_BTF = magnitude_BTF**COMPRESSED
        low = self.config.low
        phase_BTL = noisy_BTF[..., :low] * (small_BTF / magnitude_BTF)[..., :low]
        return torch.cat([small_BTF, phase_BTL.real, phase_BTL.imag], -1)

    def spectrogram(self, samples_BN: Tensor) -> Tensor:
        """complex `[B, T, F]`; one more frame than hops are begun, since the first one is half before the sound."""
        hop = self.config.hop
        behind = hop + -samples_BN.shape[-1] % hop
        frames_BTW = F.pad(samples_BN, (hop, behind)).unfold(-1, self.config.window, hop)
        return torch.fft.rfft(frames_BTW * self.window_W)

    def sound(self, spectrogram_BTF: Tensor, count: int) -> Tensor:
        """float32 `[B, N]`, the inverse of `spectrogram`: the two windows that lie over each sample, added."""
        hop = self.config.hop
        frames_BTW = torch.fft.irfft(spectrogram_BTF, n=self.config.window) * self.window_W
        return (frames_BTW[:, 1:, :hop] + frames_BTW[:, :-1, hop:]).flatten(1)[:, :count]

    @torch.no_grad()
    def clean(self, samples_BN: Tensor) -> tuple[Tensor, Tensor]:
        """(clean sound `[B, N]`, gains `[B, T, F]`) of sound that stands at `LEVEL`."""
        made_BTF, gain_BTF = self(self.spectrogram(samples_BN))
        return self.sound(made_BTF, samples_BN.shape[-1]), gain_BTF

    def flops(self, samples: int) -> float:
        """Of a forward pass over so many samples: matrices and convolutions."""
        config = self.config
        ends = config.dim * (2 * config.bins + 2 * config.low + 2 * config.taps * config.low)
        block = 2 * config.dim * config.hidden + config.dim * config.kernel
        return 2.0 * (ends + block * len(config.dilations)) * samples / config.hop


def level(samples_N: np.ndarray, rate: int = RATE) -> float:
    """Loudness of a sound: the root mean square over those tenths of a second that are at most 40 dB below the loudest
    one, so that pauses do not count. 0 where nothing is louder than `SILENCE`."""
    size = max(1, rate // 10)
    parts = (samples_N[start : start + size] for start in range(0, len(samples_N), size))
    power_S = np.array([float(np.square(part, dtype=np.float64).mean()) for part in parts])
    found = float(np.sqrt(power_S[power_S >= QUIET * power_S.max()].mean()))
    return found if found > SILENCE else 0.0
