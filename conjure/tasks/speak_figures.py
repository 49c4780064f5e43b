"""How well a voice is understood: word errors of an independent recogniser over sentences that were not in training.

The recogniser is pocketsphinx (Huggins-Daines et al. 2006; BSD licence), which carries its own American English model.
It makes mistakes of its own, so the teacher's sound is put to it beside ours: the same sentences, voice for voice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from conjure.codecs.spoken_text import Utterance, read
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress
from conjure.data.read_sentences import ReadSentences
from conjure.data.teacher import RATE, VOICES
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.word_errors import word_errors
from conjure.models.speaker import Saying, Speaker

Tell = Callable[[Event], None]


def published(speaker: Speaker, tell: Tell | None = None, limit: int | None = None) -> dict[str, dict[str, Any]]:
    """name -> {"value", "low", "high", "n", "protocol"}: word errors of ours and of the teacher's, their distance."""
    held = ReadSentences("val")
    count = min(limit or len(held), len(held))
    wanted, teacher = [], []
    for index in range(count):
        _, read_ = held[index]
        wanted.append(words_of(read_.text))
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


def words_of(text: str) -> str:
    """The words of a text as they are read aloud."""
    return " ".join(each.words for each in read(text).utterances)


def spoken_by(speaker: Speaker, text: str, voice: str, seed: int = 0, how: Saying | None = None) -> np.ndarray:
    """int16 `[T]` of a text, its sentences joined."""
    utterances: Sequence[Utterance] = read(text).utterances
    said = how or Saying(voice=voice)
    samples = np.concatenate([sound.samples for sound in speaker.say(utterances, said, seed)])
    return np.rint(samples * 32767).astype(np.int16)


def heard(sounds: Iterable[np.ndarray], count: int, note: str, tell: Tell | None = None) -> Iterator[str]:
    """What the recogniser understands of each sound, int16 at 16 kHz."""
    try:
        from pocketsphinx import Decoder  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConjureError("measuring a voice needs pocketsphinx", hint="pip install 'conjure[sound]'") from None
    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    for number, samples in enumerate(sounds, start=1):
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        if tell:
            tell(Progress(number, count, "sentence", note))
        yield found.hypstr if found else ""


def _each(found: Sequence[str], wanted: Sequence[str]) -> list[float]:
    """The rate of each sentence."""
    return [word_errors([a], [b])[0].rate for a, b in zip(found, wanted, strict=True)]
