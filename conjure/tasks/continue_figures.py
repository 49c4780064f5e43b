"""How well codes of speech are foreseen, and how like speech a continuation is beside what was really said.

No measure here needs a trained network but pocketsphinx, which hears words where there are none too: what counts is the
distance to the same measure of what the person really said.

Legend: N samples, Q books, T frames, V codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conjure.core.events import Event, Progress
from conjure.metrics.bits import code_usage
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.likelihood import ratio_interval
from conjure.metrics.recogniser import heard
from conjure.metrics.voicing import pitches, voiced

GIVEN, MADE = 2.0, 3.0
"""Seconds of a sentence that are given, and that are to follow."""
MOST = 8
"""Sentences of a set that are continued."""

Figures = dict[str, dict[str, Any]]


def predicted(parts: Sequence[tuple[Tensor, Tensor]], name: str, codes: int) -> Figures:
    """Nats a code, of all books and of the first, of stretches (codes, nats) `[Q, T]`; and the entropy of how often
    codes occur in these very stretches, which nobody who ignores what came before can beat."""
    found: Figures = {}
    counts_QV = sum(torch.stack([torch.bincount(row, minlength=codes) for row in ids_QT]) for ids_QT, _ in parts)
    assert isinstance(counts_QV, Tensor)
    entropies = [math.log(code_usage(counts_V).perplexity) for counts_V in counts_QV]
    for label, chosen, entropy in (
        ("nats_per_code", slice(None), float(np.mean(entropies))), ("nats_first_book", slice(1), entropies[0])
    ):  # fmt: skip
        sums = [float(nats_QT[chosen].sum()) for _, nats_QT in parts]
        value, low, high = ratio_interval(sums, [nats_QT[chosen].numel() for _, nats_QT in parts])
        found[f"{label}_{name}"] = {
            "value": value, "low": low, "high": high, "n": len(parts),
            "protocol": f"-log p of codes in nats; entropy of how often they occur in these stretches {entropy:.2f}, a "
                        f"uniform guess {math.log(codes):.2f}; held-out stretches of {name}; 95 % bootstrap",
        }  # fmt: skip
    return found


def likeness(
    goes_on: Callable[[np.ndarray, float, int], np.ndarray], sounds: Sequence[np.ndarray], rate: int, name: str,
    tell: Callable[[Event], None] | None = None,
) -> Figures:  # fmt: skip
    """Three measures of what a model says after `GIVEN` seconds, and of what was really said there: the share of frames
    with voice, how far the median pitch is from that of what was given, and words that pocketsphinx hears.

    `goes_on(sound, seconds, seed)` gives what follows alone. Sentences that are too short are left out.
    """
    first, more = round(GIVEN * rate), round(MADE * rate)
    long = [sound_N for sound_N in sounds if len(sound_N) >= first + more][:MOST]
    said: dict[str, list[np.ndarray]] = {"made": [], "real": [sound_N[first : first + more] for sound_N in long]}
    for number, sound_N in enumerate(long):
        said["made"].append(goes_on(sound_N[:first], MADE, number))
        if tell:
            tell(Progress(number + 1, len(long), "sentence", name))
    before = [voiced(pitches(sound_N[:first], rate))[1] for sound_N in long]
    rows = {whose: list(_measured(sounds, before, rate, name)) for whose, sounds in said.items()}
    what = {"voiced": "share of frames with voice", "semitones": "median pitch, semitones from that of what was given",
            "words": "words a second that pocketsphinx hears"}  # fmt: skip
    found: Figures = {}
    for key, sentence in what.items():
        for whose, label in (("made", "what the model says"), ("real", "what was really said")):
            values = [row[key] for row in rows[whose] if math.isfinite(row[key])]
            if values:
                value, low, high = bootstrap_mean(values, seed=0)
                found[f"{key}_{whose}_{name}"] = {
                    "value": value, "low": low, "high": high, "n": len(values),
                    "protocol": f"{sentence}, {label} in {MADE:g} s after {GIVEN:g} s of sentences of {name}; "
                                "95 % bootstrap"}  # fmt: skip
    return found


def _measured(
    sounds: Sequence[np.ndarray], before: Sequence[float], rate: int, name: str
) -> Iterator[dict[str, float]]:
    """Of each sound; `before` is the median pitch of what came before it."""
    whole = (np.rint(np.clip(sound_N, -1, 1) * 32767).astype(np.int16) for sound_N in sounds)
    texts = heard(whole, len(sounds), name)
    for sound_N, text, pitch in zip(sounds, texts, before, strict=True):
        share, high = voiced(pitches(sound_N, rate))
        yield {"voiced": share, "semitones": abs(12 * math.log2(high / pitch)), "words": len(text.split()) / MADE}
