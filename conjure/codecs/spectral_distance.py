"""How far apart two sounds are to the ear: log-mel spectrograms at several resolutions, which a network can follow.

As in DAC (Kumar et al. 2023, arXiv 2306.06546, section 3.4): short windows see when, long ones what.

Legend: B rows, N samples.
"""

from __future__ import annotations

import functools

from torch import Tensor

from conjure.codecs.log_mel import Mel, log_mel

WINDOWS = ((128, 12), (256, 24), (512, 48), (1024, 80), (2048, 120))
"""(samples, mel bands) of each resolution."""
FLOOR = 1e-3
"""Magnitudes below this are silence; the sounds are at a loudness of about 1."""
EAR = Mel(window=512, fft=512, hop=128, floor=1e-5)
"""Of `mel_decibels`, for sounds within -1 and 1."""


@functools.lru_cache(maxsize=8)
def resolutions(rate: int) -> tuple[Mel, ...]:
    return tuple(
        Mel(rate=rate, window=window, fft=window, hop=window // 4, bands=bands, high=rate / 2, power=1.0, floor=FLOOR,
            base="e")
        for window, bands in WINDOWS
    )  # fmt: skip


def spectral_distance(made_BN: Tensor, true_BN: Tensor, rate: int) -> Tensor:
    """Mean absolute difference of log mel magnitudes in nats, averaged over the resolutions, `[B]`."""
    total_B = made_BN.new_zeros(len(made_BN))
    for mel in resolutions(rate):
        total_B = total_B + (log_mel(made_BN, mel) - log_mel(true_BN, mel)).abs().mean((1, 2))
    return total_B / len(WINDOWS)


def mel_decibels(made_BN: Tensor, true_BN: Tensor, rate: int) -> Tensor:
    """Mean absolute difference of the levels of 80 mel bands in dB, 8 ms a frame at 16 kHz, `[B]`: what is measured."""
    mel = Mel(rate=rate, window=_even(EAR.window, rate), fft=_even(EAR.window, rate), hop=_even(EAR.hop, rate),
              high=min(8000.0, rate / 2), floor=EAR.floor)  # fmt: skip
    return 10 * (log_mel(made_BN, mel) - log_mel(true_BN, mel)).abs().mean((1, 2))


def _even(samples: int, rate: int) -> int:
    """So many samples of 16 kHz at another rate, an even number."""
    return 2 * round(samples * rate / 32_000)
