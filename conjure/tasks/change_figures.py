"""How well a voice is changed: word errors of an independent recogniser (pocketsphinx) before and after; how far the
spectrum and the pitch are from those of the wanted voice, whose sample is of other sentences; and how alike the two are
to starter/who, which had no part in it.

The words of people are heard by it badly as they are, so what is said is synthetic (flite's voices, held-out
sentences); the wanted voices are flite's, and apart from them people's whom no training saw.

Legend: N samples, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conjure.codecs.spoken_text import read
from conjure.core import shelf
from conjure.core.config import from_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress
from conjure.data.read_sentences import ReadSentences
from conjure.data.speech_clips import HELD_OUT, held, readers
from conjure.data.teacher import RATE, VOICES
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.recogniser import heard
from conjure.metrics.word_errors import word_errors
from conjure.models.folder import load_weights, read_config
from conjure.models.voice_change import VoiceChanger, Voiced, speech_of
from conjure.models.who import Who, WhoConfig, voice

Tell = Callable[[Event], None]
COUNT = 16
"""Sentences that are said."""
LIKES = (0.3, 1.0)
"""Shares of the sample's own frames that are measured."""
SAMPLE = 20.0
"""Seconds of a sample."""


@dataclass(frozen=True, eq=False)
class Take:
    """Speech by itself and in frames."""

    sound: np.ndarray
    seen: Voiced


def published(using: VoiceChanger, tell: Tell | None = None, limit: int | None = None) -> dict[str, dict[str, Any]]:
    """name -> {"value", "low", "high", "n", "protocol"}."""
    every = ReadSentences("val")
    own = min(limit or COUNT, COUNT)
    sentences = [every[index + 20] for index in range(own)]
    texts = [read(sentence.text).words for _, sentence in sentences]
    who, said = _who(), [_take(using, _float(sentence.samples)) for _, sentence in sentences]
    flite = [_take(using, _together(_float(every[index][1].samples) for index in range(number, 20, 4)))
             for number in range(len(VOICES))]  # fmt: skip
    people = [_take(using, _together(each)) for each in _people()]
    voices = {"synthetic": [flite[(number + 1 + n // 4 % 3) % 4] for n, (number, _) in enumerate(sentences)],
              "real": [people[n % len(people)] for n in range(own)]}  # fmt: skip
    found = {"wer": _words([take.sound for take in said], texts, "as it was said", tell)}
    for kind, wanted in voices.items():
        told = f"{kind} voices, samples of at most {SAMPLE:g} s"
        found |= _distances(f"{kind}_before", said, wanted, f"as it was said, to {told}", who)
        for like in LIKES:
            made = [using.changed(a.seen, b.seen, like) for a, b in zip(said, wanted, strict=True)]
            name, how = f"{kind}_like_{like:g}", f"changed to {told}, like {like:g}"
            found[f"{name}_wer"] = _words(made, texts, how, tell)
            found |= _distances(name, [_take(using, sound) for sound in made], wanted, how, who)
    return found


def spectrum_apart(a: Voiced, b: Voiced) -> float:
    """dB between the mean spectra of what is spoken in two sounds, their levels aside: root of the mean square over
    mel bands."""
    means = [(each.mel * each.speaking).sum(0) / each.speaking.sum() for each in (a, b)]
    apart_M = means[0] - means[1]
    return float((apart_M - apart_M.mean()).square().mean().sqrt()) * 20 / float(np.log(10))


def pitch_apart(a: Voiced, b: Voiced) -> float:
    """Semitones between the medians."""
    return abs(12 * float(np.log2(max(a.pitch, 1.0) / max(b.pitch, 1.0))))


def _distances(
    name: str, made: Sequence[Take], wanted: Sequence[Take], told: str, who: Who | None
) -> dict[str, dict[str, Any]]:
    measures: dict[str, Callable[[Take, Take], float]] = {
        "spectrum_db": lambda a, b: spectrum_apart(a.seen, b.seen),
        "pitch_semitones": lambda a, b: pitch_apart(a.seen, b.seen),
    }
    if who is not None:
        measures["likeness"] = lambda a, b: float(voice(who, a.sound) @ voice(who, b.sound))
    found = {}
    for what, measure in measures.items():
        value, low, high = bootstrap_mean([measure(*pair) for pair in zip(made, wanted, strict=True)], seed=0)
        found[f"{name}_{what}"] = {"value": value, "low": low, "high": high, "n": len(made),
                                   "protocol": f"sentences of flite's, {told}; mean, 95 % bootstrap"}  # fmt: skip
    return found


def _who() -> Who | None:
    """starter/who, where it is there."""
    try:
        folder = shelf.find("starter/who")
    except ConjureError:
        return None
    network = Who(from_dict(WhoConfig, read_config(folder)["model"], where="model"))
    load_weights(network, folder / "model.safetensors")
    return network.eval().requires_grad_(False)


def _take(using: VoiceChanger, sound: np.ndarray) -> Take:
    return Take(sound, using.seen(sound))


def _words(sounds: Sequence[np.ndarray], texts: Sequence[str], told: str, tell: Tell | None) -> dict[str, Any]:
    whole = (np.rint(np.clip(sound, -1, 1) * 32767).astype(np.int16) for sound in sounds)
    errors, (low, high) = word_errors(list(heard(whole, len(sounds), told, tell)), texts)
    if tell:
        tell(Progress(len(sounds), len(sounds), "sentence", told))
    return {"value": errors.rate, "low": low, "high": high, "n": len(texts),
            "protocol": f"word error rate of pocketsphinx on flite's speech, {told}; 95 % bootstrap"}  # fmt: skip


def _people() -> list[list[np.ndarray]]:
    """Sentences of three people: two of LibriSpeech's held-out readers, and the reader of LJSpeech."""
    found = [[sound for speaker, _, sound in readers() if speaker == name] for name in HELD_OUT]
    return [*found, held("lj")]


def _together(sounds: Any) -> np.ndarray:
    return speech_of(np.concatenate(list(sounds)), RATE, SAMPLE)


def _float(samples_N: np.ndarray) -> np.ndarray:
    return np.asarray(samples_N, np.float32) / 32768
