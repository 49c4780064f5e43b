"""Where a voice sounds in a recording, and how high: the autocorrelation of short frames, divided by that of their
window (Boersma 1993, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio").

Legend: N samples, T frames, W samples of a frame, L lags.
"""

from __future__ import annotations

import numpy as np

FRAME, STEP = 0.04, 0.01
"""Seconds of a frame, and from one to the next."""
LOWEST, HIGHEST = 70.0, 400.0
"""Hz of voices that speak."""
ALIKE = 0.5
"""Autocorrelation from which a frame is voiced."""
BELOW = 35.0
"""dB below the loudest frame under which nobody speaks."""
SHORTER = 0.03
"""Of autocorrelation, by which a period must beat one of half its length."""


def pitches(sound_N: np.ndarray, rate: int) -> np.ndarray:
    """Hz in each frame, `[T]`; 0 where there is no voice. Too little sound gives no frames."""
    size, step = round(FRAME * rate), round(STEP * rate)
    if len(sound_N) < size:
        return np.zeros(0)
    window_W = np.hanning(size + 2)[1:-1]
    frames_TW = np.lib.stride_tricks.sliding_window_view(np.asarray(sound_N, np.float64), size)[::step]
    frames_TW = frames_TW - frames_TW.mean(1, keepdims=True)
    power_T = np.square(frames_TW).mean(1)
    found_TL = _autocorrelation(frames_TW * window_W) / _autocorrelation(window_W[None])
    shortest, longest = round(rate / HIGHEST), round(rate / LOWEST)
    within_TL = found_TL[:, shortest : longest + 1]
    within_TL = within_TL - SHORTER * np.log2(np.arange(shortest, longest + 1) / shortest)
    best_T = within_TL.argmax(1) + shortest
    alike_T = found_TL[np.arange(len(found_TL)), best_T]
    loud_T = power_T > max(power_T.max() * 10 ** (-BELOW / 10), 1e-12)
    return np.where(loud_T & (alike_T > ALIKE), rate / best_T, 0.0)


def voiced(pitches_T: np.ndarray) -> tuple[float, float]:
    """(share of frames with voice, median of their pitch in Hz; NaN where there are none)."""
    high_T = pitches_T[pitches_T > 0]
    return len(high_T) / max(1, len(pitches_T)), float(np.median(high_T)) if len(high_T) else np.nan


def _autocorrelation(x_TW: np.ndarray) -> np.ndarray:
    """1 at lag 0, `[T, W]`; 0 of silence."""
    size = x_TW.shape[1]
    spectrum = np.fft.rfft(x_TW, 2 * size, axis=1)
    found_TW = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :size]
    return found_TW / np.maximum(found_TW[:, :1], 1e-20)
