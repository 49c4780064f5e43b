"""What the pitch of a voice does to its log-mel spectrogram, apart from its mouth: ripples where harmonics fall into
separate bands. `Comb` knows them for every pitch, so they can be taken out of a spectrogram and put in at another one.

Source and filter in the terms of Fant (1960, "Acoustic Theory of Speech Production"); the smoothing is that of cepstra.

Legend: T frames, M mel bands, H pitches.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from conjure.codecs.log_mel import Mel, log_mel

LOWEST, HIGHEST, STEPS = 60.0, 420.0, 128
"""Hz of the pitches that are known, and how many there are between."""
SMOOTH = 30
"""Cosines that what a mouth does to bands is made of."""


@functools.lru_cache(maxsize=4)
def comb_of(mel: Mel) -> Comb:
    """The comb of a front end, made once."""
    return Comb(mel)


class Comb:
    """Ripples of a front end: `ripples` `[H, M]`, log-mel of a flat spectrum of harmonics less that of white noise."""

    def __init__(self, mel: Mel) -> None:
        n_N = np.arange(mel.rate // 2) + 0.5
        rows = []
        for hertz in np.geomspace(LOWEST, HIGHEST, STEPS):
            count, turn_N = int(0.99 * mel.high / hertz), 2 * math.pi * hertz / mel.rate * n_N
            pulses_N = 0.5 * np.sin((count + 0.5) * turn_N) / np.sin(turn_N / 2) - 0.5  # the sum of cos(k turn), k > 0
            rows.append(pulses_N * math.sqrt(4 * hertz / mel.rate))  # as much power as the noise
        rows.append(np.random.default_rng(0).standard_normal(len(n_N)))
        found = log_mel(torch.from_numpy(np.stack(rows).astype(np.float32)), mel).mean(-1)
        self.ripples = found[:-1] - found[-1]

    def __call__(self, hertz_T: np.ndarray) -> Tensor:
        """float32 `[T, M]`; 0 where there is no pitch (0 Hz)."""
        at_T = (np.log(np.clip(hertz_T, LOWEST, HIGHEST) / LOWEST) / math.log(HIGHEST / LOWEST)) * (STEPS - 1)
        low_T = np.minimum(at_T.astype(int), STEPS - 2)
        share_T1 = torch.from_numpy(at_T - low_T).float()[:, None]
        found_TM = self.ripples[low_T] * (1 - share_T1) + self.ripples[low_T + 1] * share_T1
        return found_TM * torch.from_numpy(hertz_T > 0).float()[:, None]


def smoothed(mel_TM: Tensor, cosines: int = SMOOTH) -> Tensor:
    """What the first cosines over the bands make of each frame, `[T, M]`."""
    M = mel_TM.shape[1]
    at_M, k_K = torch.arange(M) + 0.5, torch.arange(min(cosines, M))
    basis_MK = torch.cos(math.pi / M * at_M[:, None] * k_K) * math.sqrt(2 / M)
    basis_MK[:, 0] /= math.sqrt(2)
    return (mel_TM @ basis_MK) @ basis_MK.T
