"""How much of a sound is left: SI-SDR, and STOI for how well it can be understood.

Legend: T samples in time.
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from conjure.core.errors import ConjureError


def si_sdr(made_T: np.ndarray, true_T: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, arXiv 1811.02508, equation 4): the part of
    `made` that lies in the direction of `true`, over the rest. Means are taken off first.

    Infinite where one is a multiple of the other, minus infinity where nothing of it is left.
    """
    if made_T.shape != true_T.shape or true_T.ndim != 1:
        raise ConjureError(f"expected two sounds of one length, got {list(made_T.shape)} and {list(true_T.shape)}")
    made, true = made_T.astype(np.float64), true_T.astype(np.float64)
    made, true = made - made.mean(), true - true.mean()
    power = float(true @ true)
    part = made * 0 if power == 0 else float(made @ true) / power * true
    rest = made - part
    signal, noise = float(part @ part), float(rest @ rest)
    if signal == 0:
        return -math.inf
    return math.inf if noise == 0 else 10 * math.log10(signal / noise)


def stoi(made_T: np.ndarray, true_T: np.ndarray, rate: int) -> float:
    """Short-time objective intelligibility, about 0 to 1 (Taal et al. 2011), by pystoi; NaN where less than 0.4 s of
    the true sound is no silence."""
    try:
        import pystoi
    except ImportError:
        raise ConjureError("STOI takes the package pystoi", hint="pip install 'conjure[sound]'") from None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = float(pystoi.stoi(true_T.astype(np.float64), made_T.astype(np.float64), rate))
    return math.nan if any("intermediate intelligibility" in str(each.message) for each in warned) else found
