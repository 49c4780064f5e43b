"""From a mel spectrogram to sound, frame by frame, with an inverse Fourier transform at the end.

Vocos (Siuzdak 2023, arXiv 2306.00814): the network never leaves the rate of frames; it says magnitude and phase of
every frequency, and overlapping frames are added. That makes it several times cheaper than networks that work at the
rate of samples. Trained here by spectra alone (`spectral_loss`), without a critic.

Legend: B batch, T frames, M mel bands, F frequencies, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from conjure.codecs.log_mel import Mel, log_mel
from conjure.core.errors import ConjureError
from conjure.nn.convnext import ConvNeXt, TimeConvolution
from conjure.nn.linear import Linear
from conjure.nn.modulation import leave_to_adam
from conjure.nn.norm import LayerNorm

SPEECH = Mel(window=800, fft=800, hop=200, power=1.0, floor=1e-5, base="e")
"""The front end of our voices: 80 frames a second at 16 kHz."""
LOUDEST = 100.0
"""Magnitudes are cut here, as in the paper."""
AT_ONCE, MARGIN = 2400, 20
"""Frames that go through the network together in use, half a minute, and those around them that are thrown away."""
RESOLUTIONS = ((1024, 256), (256, 64))
"""(transform, hop) of the spectra that `spectral_loss` compares."""


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    mel: Mel = field(default_factory=lambda: SPEECH)
    dim: int = 160
    layers: int = 5
    hidden: int = 400
    kernel: int = 7

    def __post_init__(self) -> None:
        if self.layers < 1 or self.kernel % 2 == 0:
            raise ConjureError(f"vocoder: expected at least one layer and an odd kernel, got {self}")
        if self.mel.window != self.mel.fft or self.mel.fft % self.mel.hop:
            raise ConjureError("vocoder: expected a window as long as the transform, of whole hops")


class Vocoder(nn.Module):
    """forward(mel_BMT) -> float32 `[B, (T - 1) hop]`."""

    window_N: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.entry = TimeConvolution(config.mel.bands, config.dim, config.kernel)
        self.norm_in = LayerNorm(config.dim, eps=1e-6)
        self.blocks = nn.ModuleList(
            ConvNeXt(config.dim, config.hidden, kernel=config.kernel, gate=1 / config.layers)
            for _ in range(config.layers)
        )
        self.norm_out = LayerNorm(config.dim, eps=1e-6)
        self.head = Linear(config.dim, config.mel.fft + 2)
        leave_to_adam(self.head.weight)
        self.register_buffer("window_N", torch.hann_window(config.mel.window), persistent=False)

    def forward(self, mel_BMT: Tensor) -> Tensor:
        return self.sound(*self.spectrum(mel_BMT))

    def spectrum(self, mel_BMT: Tensor) -> tuple[Tensor, Tensor]:
        """(magnitudes, phases), float32 `[B, F, T]` each."""
        h_BTD = self.norm_in(self.entry(mel_BMT.transpose(1, 2)))
        for block in self.blocks:
            h_BTD = block(h_BTD)
        log_BFT, phase_BFT = self.head(self.norm_out(h_BTD)).float().transpose(1, 2).chunk(2, dim=1)
        return log_BFT.exp().clamp(max=LOUDEST), phase_BFT

    def sound(self, magnitude_BFT: Tensor, phase_BFT: Tensor) -> Tensor:
        """The inverse of `codecs.log_mel.spectrum`: windowed frames added up, and divided by the squared windows."""
        mel = self.config.mel
        return torch.istft(torch.polar(magnitude_BFT, phase_BFT), mel.fft, mel.hop, mel.window, self.window_N)

    @torch.no_grad()
    def whole(self, mel_MT: Tensor) -> Tensor:
        """float32 `[(T - 1) hop]` of one spectrogram of any length, piece by piece, so that memory is bounded."""
        hop, frames = self.config.mel.hop, mel_MT.shape[1]
        pieces = []
        for start in range(0, max(1, frames - 1), AT_ONCE):
            end = min(start + AT_ONCE, frames - 1)
            first, last = max(0, start - MARGIN), min(frames, end + 1 + MARGIN)
            piece_N = self(mel_MT[None, :, first:last])[0]
            pieces.append(piece_N[(start - first) * hop : (end - first) * hop])
        return torch.cat(pieces)

    def flops(self, frames: int) -> float:
        """Multiply-adds times two of a forward pass over so many frames, without the transform."""
        c = self.config
        per_frame = c.dim * (c.kernel * c.mel.bands + c.mel.fft + 2 + c.layers * (2 * c.hidden + c.kernel))
        return 2.0 * frames * per_frame


def spectral_loss(found_BN: Tensor, wanted_BN: Tensor, mel: Mel,
                  resolutions: Sequence[tuple[int, int]] = RESOLUTIONS) -> Tensor:  # fmt: skip
    """float32 `[B]`: how far spectra are apart at several resolutions (Yamamoto et al., arXiv 1910.11480, equations
    4 to 6: spectral convergence and log magnitude), and twice the mean distance of the log-mel spectrograms."""
    total_B = 2 * (log_mel(found_BN, mel) - log_mel(wanted_BN, mel)).abs().mean((1, 2))
    for fft, hop in resolutions:
        found, wanted = magnitudes(found_BN, fft, hop), magnitudes(wanted_BN, fft, hop)
        apart_B = (found - wanted).square().sum((1, 2)).sqrt() / wanted.square().sum((1, 2)).sqrt().clamp_min(1e-3)
        total_B = total_B + (apart_B + (found.log() - wanted.log()).abs().mean((1, 2))) / len(resolutions)
    return total_B


def magnitudes(samples_BN: Tensor, fft: int, hop: int) -> Tensor:
    """`[B, F, T]`, at least 1e-3 so that the logarithm and its gradient are bounded."""
    window = torch.hann_window(fft, device=samples_BN.device)
    found = torch.stft(samples_BN, fft, hop, fft, window, return_complex=True)
    return torch.view_as_real(found).square().sum(-1).clamp_min(1e-6).sqrt()
