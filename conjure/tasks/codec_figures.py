"""What is published of a codec of speech beside distances: words that a recogniser gets wrong, and the use of codes.

Legend: T samples of a sentence, Q books, C codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from conjure.codecs.spoken_text import read
from conjure.core.events import Event
from conjure.data.speech_clips import held, held_texts
from conjure.metrics.bits import code_usage
from conjure.metrics.recogniser import heard
from conjure.metrics.word_errors import word_errors

SPEECH = {
    "librispeech": "two readers of LibriSpeech who were held out (real)",
    "lj": "the reader of LJSpeech, who was held out (real)",
    "teacher": "flite's voices saying held-out sentences (synthetic)",
}  # fmt: skip
WITH_TEXTS = ("lj", "teacher")
MOST = 8
"""Sentences of a set that the recogniser hears, twice."""

Figures = dict[str, dict[str, Any]]


def understood(
    back: Callable[[np.ndarray], np.ndarray], name: str, tell: Callable[[Event], None] | None = None
) -> Figures:
    """Word errors of pocketsphinx on the same sentences before and after; `back` sends one through the codec."""
    sounds_T, texts = held(name, MOST), [read(text).words for text in held_texts(name)[:MOST]]
    found: Figures = {}
    for label, when, sounds in (("wer_before", "before", iter(sounds_T)), ("wer_after", "after", map(back, sounds_T))):
        whole = (np.rint(np.clip(sound_T, -1, 1) * 32767).astype(np.int16) for sound_T in sounds)
        errors, (low, high) = word_errors(list(heard(whole, len(texts), name, tell)), texts)
        found[f"{label}_{name}"] = {
            "value": errors.rate, "low": low, "high": high, "n": len(texts),
            "protocol": f"word error rate of pocketsphinx (its own model) {when} the codec, {SPEECH[name]}; "
                        "95 % bootstrap",
        }  # fmt: skip
    return found


def usage(counts_QC: Tensor) -> Figures:
    """Codes that occur, and exp(entropy) of how often each does, over books."""
    usages, found = [code_usage(each_C) for each_C in counts_QC], Figures()
    for name, values in (("codes_used", [u.used for u in usages]), ("perplexity", [u.perplexity for u in usages])):
        listed = ", ".join(f"{value:.0f}" for value in values)
        protocol = f"mean, least and most over books of {counts_QC.shape[1]} codes: {listed}"
        found[name] = {"value": float(np.mean(values)), "low": min(values), "high": max(values), "n": len(values),
                       "protocol": protocol}  # fmt: skip
    return found
