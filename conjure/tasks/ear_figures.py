"""The figures of our own ear: errors on synthetic and on real sound apart, digits by a speaker that training never
heard, and words that nobody said.

Legend: S frames, V symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from conjure.codecs.plain_letters import encode, spelled
from conjure.codecs.voice_activity import Floats
from conjure.core.events import Event, Progress
from conjure.core.seeds import rng
from conjure.data.fetch import available
from conjure.data.spoilt_sound import RATE, mixed, noise
from conjure.data.teacher import VOICES, Renderings, sentences
from conjure.data.teaching_speech import ESPEAK, HELD_OUT, NAMES, Clip, as_floats, espeak, real_clips, real_digits
from conjure.data.telephone_prompts import telephone_prompts
from conjure.metrics.confidence import wilson
from conjure.metrics.word_errors import character_errors, word_errors
from conjure.models.listener import Asked, Heard, Listener

Tell = Callable[[Event], None]
NOISE_DB = 10.0
BEAMS = 32
CLIPS, FEWER = 100, 48
"""Synthetic clips, and those of the harder sets: beams with the model of words take half a second a clip."""
AROUND = 0.25
"""Seconds of silence in front of a digit, and behind it: the clips are cut where the voice begins."""
NOBODY = 60.0
"""Seconds of silence and of noise."""


class Hears(Protocol):
    """What is measured."""

    def hear(self, parts: Sequence[Floats]) -> Sequence[Heard]: ...

    def heard(self, clips: Sequence[Clip], *, beams: int = 1) -> list[str]: ...

    def listener(self, *, beams: int = 1) -> Listener: ...


@lru_cache(maxsize=4)
def synthetic(limit: int | None = None, voices: tuple[str, ...] = VOICES) -> list[Clip]:
    """The sentences of the validation part by every voice; with a limit the first of them, voices taking turns."""
    texts = sentences("val")
    count = len(texts) * len(voices) if limit is None else min(limit, len(texts) * len(voices))
    rendered = {voice: Renderings(texts, voice) for voice in voices if voice != ESPEAK}
    said = []
    for n in range(count):
        place, voice = n % len(texts), voices[(n + n // len(texts)) % len(voices)]
        samples = espeak(texts[place]) if voice == ESPEAK else rendered[voice][place].samples
        said.append(Clip(as_floats(samples), spelled(texts[place])))
    return said


def rates(found: Sequence[str], clips: Sequence[Clip]) -> dict[str, float]:
    """Word and character error rates."""
    wanted = [clip.text for clip in clips]
    return {"wer": word_errors(found, wanted)[0].rate, "cer": character_errors(found, wanted)[0].rate}


def published(ear: Hears, tell: Tell | None = None) -> dict[str, dict[str, Any]]:
    """All figures: name -> {"value", "low", "high", "n", "protocol"}."""
    tell = tell or (lambda event: None)
    plain, draw = synthetic(CLIPS), rng(0)
    loud = [Clip(mixed(c.samples, noise(len(c.samples), draw), NOISE_DB), c.text) for c in plain[:FEWER]]
    sets = {
        "synthetic": (plain, "a sentence each that training never saw, flite's four voices in turn"),
        "synthetic_noise": (loud, f"the first of them in noise {NOISE_DB:g} dB below the voice"),
        "espeak": (synthetic(FEWER, (ESPEAK,)), "such sentences by espeak-ng's plain American voice"),
        "real": (real_clips(), "24 sentences of LJSpeech, read by a person whom training never heard"),
    }
    if kept := [Clip(samples_N, text) for text, samples_N in telephone_prompts("test")]:
        sets["prompts"] = (kept, "a telephone exchange's prompts kept for tests, by her who reads those of training")
    made: dict[str, dict[str, Any]] = {}
    for place, (name, (clips, said)) in enumerate(sets.items()):
        tell(Progress(place, len(sets) + 2, "figure", name))
        wanted = [clip.text for clip in clips]
        for beams, ending, how in ((BEAMS, "", f"{BEAMS} beams with the model of words"), (1, "_letters", "best path")):
            found = ear.heard(clips, beams=beams)
            for kind, measure in (("wer", word_errors), ("cer", character_errors)):
                errors, (low, high) = measure(found, wanted)
                what = f"{kind.upper()}, {how}; {said}; bootstrap over sentences"
                made[f"{kind}_{name}{ending}"] = _figure(errors.rate, low, high, len(clips), what)
    tell(Progress(len(sets), len(sets) + 2, "figure", "digits"))
    made |= _digit_figures(ear)
    tell(Progress(len(sets) + 1, len(sets) + 2, "figure", "nobody"))
    return made | _nobody_figures(ear)


def digit_of(heard: Heard, trust: float = 0.0) -> int:
    """The one digit whose name is likeliest over all of its paths (a grammar of ten words), and by the second opinion
    as far as it is trusted."""
    logp_S1V = heard.logits_TV.float().log_softmax(-1)[:, None]
    names = [encode(name) for name in NAMES]
    scores = [-float(F.ctc_loss(logp_S1V, torch.tensor([ids]), torch.tensor([len(logp_S1V)]), torch.tensor([len(ids)]),
                                reduction="sum")) for ids in names]  # fmt: skip
    if heard.opinion is not None and trust:
        scores = [a + trust * b for a, b in zip(scores, heard.opinion(names), strict=True)]
    return int(np.argmax(scores))


def _digit_figures(ear: Hears) -> dict[str, dict[str, Any]]:
    real = real_digits("test")
    if not real:
        return {}
    who = " and ".join(HELD_OUT)
    whose = f"{len(real)} digits of fsdd by {who}, unheard in training, {AROUND:g} s of silence around each; Wilson"
    ruled, free, listener = 0, 0, ear.listener()
    for start in range(0, len(real), 16):
        some = real[start : start + 16]
        sounds = [np.pad(samples_N, round(AROUND * RATE)) for _, _, samples_N in some]
        for (_, digit, _), heard in zip(some, ear.hear(sounds), strict=True):
            ruled += digit_of(heard, listener.trust) == digit
            free += listener.text(heard) == NAMES[digit]
    made = {}
    for name, right, how in (("grammar", ruled, "the likeliest of ten words"), ("free", free, "best path")):
        value, low, high = wilson(right, len(real))
        made[f"digits_{name}"] = _figure(value, low, high, len(real), f"share right, {how}; {whose}")
    return made


def _nobody_figures(ear: Hears) -> dict[str, dict[str, Any]]:
    draw, made = rng(1), {}
    sounds = {
        "silence": np.zeros(round(NOBODY * RATE), np.float32),
        "white_noise": draw.standard_normal(round(NOBODY * RATE), dtype=np.float32) * np.float32(0.05),
    }
    folder = available("audio_clips")
    if folder is not None:
        from conjure.media.audio import read

        song = next(iter(sorted(folder.glob("Karissa*.ogg"))))
        sounds["music"] = read(song).at(RATE).mono()
    for name, samples_N in sounds.items():
        for how, said in ((Asked(), "as it is used"), (Asked(voice=None), "without the gate by loudness")):
            minutes = len(samples_N) / RATE / 60
            words = _words(ear.listener(beams=BEAMS), samples_N, how)
            value = words / minutes
            spread = 1.96 * max(words, 1) ** 0.5 / minutes
            key = f"invented_{name}" + ("" if how.voice else "_no_gate")
            made[key] = _figure(value, max(0.0, value - spread), value + spread, 1,
                                f"words a minute of {minutes:.1f} minutes, {said}; Poisson")  # fmt: skip
    return made


def _words(listener: Listener, samples_N: Floats, how: Asked) -> int:
    return sum(len(each.text.split()) for found, _ in listener.transcribe(samples_N, how) for each in found)


def _figure(value: float, low: float, high: float, n: int, protocol: str) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n, "protocol": protocol}
