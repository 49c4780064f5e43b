"""How well a voice is understood: word errors of an independent recogniser over sentences that were not in training.

The teacher's sound is put to it beside ours: the same sentences, voice for voice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from conjure.codecs.plain_letters import encode
from conjure.codecs.spoken_text import Utterance, Word, read
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress
from conjure.core.seeds import rng
from conjure.data.read_sentences import ReadSentences
from conjure.data.teacher import RATE, VOICES
from conjure.metrics.confidence import bootstrap_mean, wilson
from conjure.metrics.recogniser import heard
from conjure.metrics.word_errors import word_errors
from conjure.models.speaker import Saying, Speaker
from conjure.tasks.heard_again import proof_ear

Tell = Callable[[Event], None]
PROVED = 60
"""Sentences that the ear is put to the test with: not those that its margins were chosen by."""


def published(speaker: Speaker, tell: Tell | None = None, limit: int | None = None) -> dict[str, dict[str, Any]]:
    """name -> {"value", "low", "high", "n", "protocol"}: word errors of ours and of the teacher's, their distance."""
    held = ReadSentences("val")
    count = min(limit or len(held), len(held))
    wanted, teacher = [], []
    for index in range(count):
        _, read_ = held[index]
        wanted.append(read(read_.text).words)
        teacher.append(np.asarray(read_.samples, np.int16))
    ours = (spoken_by(speaker, held[index][1].text, VOICES[held[index][0]], index) for index in range(count))
    found = {}
    rates: dict[str, list[float]] = {}
    for name, sounds in (("wer", ours), ("wer_teacher", teacher)):
        texts = list(heard(sounds, count, name, tell))
        errors, (low, high) = word_errors(texts, wanted)
        rates[name] = _each(texts, wanted)
        whose = "our" if name == "wer" else "the teacher's own"
        found[name] = {"value": errors.rate, "low": low, "high": high, "n": count, "protocol":
                       f"word error rate of pocketsphinx (its own model) on {whose} speech, {count} unseen sentences "
                       "of ljspeech_text, four voices in turn; synthetic speech; 95 % bootstrap"}  # fmt: skip
    apart = [a - b for a, b in zip(rates["wer"], rates["wer_teacher"], strict=True)]
    value, low, high = bootstrap_mean(apart, seed=0)
    found["wer_above_teacher"] = {"value": value, "low": low, "high": high, "n": count,
                                  "protocol": "the same, ours less the teacher's, mean over sentences; 95 % bootstrap"}
    return found


def listening(speaker: Speaker, tell: Tell | None = None, limit: int | None = None) -> dict[str, dict[str, Any]]:
    """How well our own ear finds a word that is missing, or said twice, in what the voice says: sentences that neither
    of them was taught, said as they are, without one word, and with one twice; the word is drawn."""
    ear = proof_ear()
    if ear is None:
        raise ConjureError("listening takes starter/ear, which is not here", hint="`conjure train ear` makes one")
    held, draw = ReadSentences("val"), rng(0)
    found: dict[str, list[bool]] = {"false_alarms": [], "missing_found": [], "twice_found": []}
    count = min(limit or PROVED, PROVED)
    for index in range(len(held) - count, len(held)):
        voice, sentence = held[index]
        utterance = max(read(sentence.text).utterances, key=lambda each: len(each.parts))
        places = [n for n, part in enumerate(utterance.parts) if isinstance(part, Word) and encode(part.text)]
        place, parts = places[int(draw.integers(len(places)))], utterance.parts
        other = {"false_alarms": parts, "missing_found": (*parts[:place], *parts[place + 1 :]),
                 "twice_found": (*parts[: place + 1], *parts[place:])}  # fmt: skip
        for name, its in other.items():
            said = speaker.say([replace(utterance, parts=its)], Saying(voice=VOICES[voice]), index)
            judged = ear.judge(np.concatenate([each.samples for each in said]), RATE, utterance.words.split())
            found[name].append(judged is not None and bool(judged.faults))
        if tell:
            tell(Progress(len(found["false_alarms"]), count, "sentence", "listening"))
    told = {"false_alarms": "as they are, thought wrong", "missing_found": "without one word, thought wrong",
            "twice_found": "with one word twice, thought wrong"}  # fmt: skip
    return {name: _share(each, f"{count} unseen sentences said {told[name]}; Wilson") for name, each in found.items()}


def _share(found: Sequence[bool], protocol: str) -> dict[str, Any]:
    value, low, high = wilson(sum(found), len(found))
    return {"value": value, "low": low, "high": high, "n": len(found), "protocol": protocol}


def spoken_by(speaker: Speaker, text: str, voice: str, seed: int = 0, how: Saying | None = None) -> np.ndarray:
    """int16 `[T]` of a text, its sentences joined."""
    utterances: Sequence[Utterance] = read(text).utterances
    said = how or Saying(voice=voice)
    samples = np.concatenate([sound.samples for sound in speaker.say(utterances, said, seed)])
    return np.rint(samples * 32767).astype(np.int16)


def _each(found: Sequence[str], wanted: Sequence[str]) -> list[float]:
    """The rate of each sentence."""
    return [word_errors([a], [b])[0].rate for a, b in zip(found, wanted, strict=True)]
