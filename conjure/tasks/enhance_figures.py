"""How much better speech is after cleaning: SI-SDR and STOI, before and after, over held-out speech.

The noises are those of `data/noisy_speech.py` in other draws, with the recorded sounds and the voices that were held
out; the kind goes round with the sentence. Real and synthetic speech are measured apart.

Legend: N samples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress
from conjure.core.seeds import derive, rng
from conjure.data.noisy_speech import KINDS, Noises
from conjure.data.speech_clips import RATE, held
from conjure.data.spoilt_sound import Floats, echoing, mixed
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.sound_quality import si_sdr, stoi
from conjure.models.speech_cleaner import LEVEL, SpeechCleaner, level

DECIBELS = (0.0, 5.0, 10.0)
SETS = {
    "librispeech": "real: two readers of LibriSpeech who were held out",
    "lj": "real: the reader of LJSpeech, who was held out",
    "teacher": "synthetic: flite's voices saying held-out sentences",
}
BABBLE = {"librispeech": "lj", "lj": "librispeech", "teacher": "lj"}
"""Whose voices babble in the noise of a set."""
Row = dict[str, float]


def published(
    network: SpeechCleaner, data: Sequence[str] = (), tell: Callable[[Event], None] | None = None
) -> dict[str, dict[str, Any]]:
    """name -> {"value", "low", "high", "n", "protocol"}."""
    strange = [name for name in data if name not in SETS]
    if strange:
        raise ConjureError(f"expected some of {', '.join(SETS)}, got '{strange[0]}'")
    found: dict[str, dict[str, Any]] = {}
    for name in [name for name in SETS if not data or name in data]:
        for decibels in (*DECIBELS, None):
            where = "room" if decibels is None else f"{decibels:g}db"
            said = "in a room, no noise" if decibels is None else f"in noise at {decibels:g} dB"
            measured = rows(network, name, decibels, understood=True, tell=tell)
            for figure in ("si_sdr_db", "stoi"):
                before = float(np.nanmean([row[f"{figure}_heard"] for row in measured]))
                gained = [row[figure] - row[f"{figure}_heard"] for row in measured]
                kept = [each for each in gained if math.isfinite(each)]
                value, low, high = bootstrap_mean(kept, seed=0)
                found[f"{figure}_gained_{where}_{name}"] = {
                    "value": value, "low": low, "high": high, "n": len(kept),
                    "protocol": f"mean over sentences, {said} ({before:.3g} before), {SETS[name]}; 95 % bootstrap",
                }  # fmt: skip
    return found


def rows(network: SpeechCleaner, name: str, decibels: float | None, limit: int | None = None, *,
         understood: bool = False, tell: Callable[[Event], None] | None = None) -> list[Row]:  # fmt: skip
    """Figures of each sentence of a set, of what is heard and of what is made of it; `decibels` None: in a room."""
    sounds, found = _held(name)[:limit], []
    for place, clean_N in enumerate(sounds):
        heard_N, clean_N = mixture(name, place, decibels)
        made_N = whole(network, heard_N)
        row = {"si_sdr_db": si_sdr(made_N, clean_N), "si_sdr_db_heard": si_sdr(heard_N, clean_N)}
        if understood:
            row |= {"stoi": stoi(made_N, clean_N, RATE), "stoi_heard": stoi(heard_N, clean_N, RATE)}
        found.append(row)
        if tell:
            where = "in a room" if decibels is None else f"{decibels:g} dB"
            tell(Progress(place + 1, len(sounds), "sentence", f"{name}, {where}"))
    return found


def mixture(name: str, place: int, decibels: float | None) -> tuple[Floats, Floats]:
    """(as it is heard, clean) of a held-out sentence; the same noise at each level."""
    clean_N, draw = _held(name)[place], rng(derive(0, "held-out noise", name, place))
    if decibels is None:
        return echoing(clean_N, draw), clean_N
    other_N = _noises(name).of(KINDS[place % len(KINDS)], len(clean_N), draw)
    return mixed(clean_N, other_N, decibels).astype(np.float32), clean_N


def whole(network: SpeechCleaner, heard_N: Floats) -> Floats:
    """A sentence cleaned in one go."""
    scale = LEVEL / max(level(heard_N), 1e-6)
    made_BN, _ = network.clean(torch.from_numpy(heard_N * np.float32(scale))[None])
    return np.asarray(made_BN[0].numpy() / np.float32(scale), np.float32)


@functools.lru_cache
def _held(name: str) -> list[Floats]:
    return held(name)


@functools.lru_cache
def _noises(name: str) -> Noises:
    return Noises(_held(BABBLE[name]), held_out=True)
