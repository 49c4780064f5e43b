"""How far apart two sounds are to the ear, by their mel spectrograms.

Legend: B rows, N samples.
"""

from __future__ import annotations

from torch import Tensor

from conjure.codecs.log_mel import Mel, log_mel

EAR = Mel(window=512, fft=512, hop=128, floor=1e-5)
"""Of `mel_decibels`, for sounds within -1 and 1."""


def mel_decibels(made_BN: Tensor, true_BN: Tensor, rate: int) -> Tensor:
    """Mean absolute difference of the levels of 80 mel bands in dB, 8 ms a frame at 16 kHz, `[B]`: what is measured."""
    mel = Mel(rate=rate, window=_even(EAR.window, rate), fft=_even(EAR.window, rate), hop=_even(EAR.hop, rate),
              high=min(8000.0, rate / 2), floor=EAR.floor)  # fmt: skip
    return 10 * (log_mel(made_BN, mel) - log_mel(true_BN, mel)).abs().mean((1, 2))


def _even(samples: int, rate: int) -> int:
    """So many samples of 16 kHz at another rate, an even number."""
    return 2 * round(samples * rate / 32_000)
