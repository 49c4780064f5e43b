"""A public SpeechT5 that writes what it hears, one part after the other.

It gives no times: a segment is as long as the part that was read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from conjure.codecs.tokenizer import Tokenizer
from conjure.codecs.voice_activity import Chunk, Floats, VoiceActivity, chunks, spans
from conjure.core.errors import ConjureError
from conjure.media.captions import Segment
from conjure.models.checkpoint import Checkpoint
from conjure.models.language import read_config
from conjure.models.listener import Listening
from conjure.models.public.load import build
from conjure.models.speecht5 import SpeechT5
from conjure.models.wave_input import WaveInput

LONGEST = 15.0
"""Seconds that are read at once."""
TOKENS = 25
"""Characters that are written for a second of sound, at most: more is a loop."""


class SpeechT5Listener:
    """The interface of `listener.Listener`. A segment whose characters have a mean log-probability below `doubt` is
    left out."""

    def __init__(self, network: SpeechT5, tokenizer: Tokenizer, how: WaveInput) -> None:
        self.network, self.tokenizer, self.how, self.rate = network, tokenizer, how, how.rate
        self.doubt = -math.inf

    @classmethod
    def load(cls, folder: Path) -> SpeechT5Listener:
        """From a folder of the hub's layout."""
        network, _ = build(read_config(folder), Checkpoint(folder), torch.float32)
        if not isinstance(network, SpeechT5) or not network.config.decoder.vocab:
            raise ConjureError(f"{folder.name} writes no text: expected a SpeechT5ForSpeechToText",
                               hint="for example: conjure models get microsoft/speecht5_asr")  # fmt: skip
        return cls(network, Tokenizer.load(folder), WaveInput.of(folder, level=False))

    def parts(self, samples_N: Floats, voice: VoiceActivity | None) -> list[Chunk]:
        """What is to be read: where somebody speaks, or all of it."""
        if len(samples_N) < self.least:
            got = 1000 * len(samples_N) / self.rate
            raise ConjureError(f"expected sound of at least {1000 * self.least / self.rate:g} ms, got {got:.3g} ms")
        if not np.isfinite(samples_N).all():
            raise ConjureError("the sound has samples that are no numbers", hint="write the file again")
        found = spans(samples_N, self.rate, voice) if voice else [(0, len(samples_N))]
        cut = chunks(found, samples_N, self.rate, LONGEST, voice or VoiceActivity(), apart=0.0)
        return [chunk for chunk in cut if chunk.samples >= self.least]

    @property
    def least(self) -> int:
        """Samples that give a frame."""
        wave, fewest = self.network.config.encoder.wave, 1
        assert wave is not None
        for kernel, stride in zip(reversed(wave.kernels), reversed(wave.strides), strict=True):
            fewest = (fewest - 1) * stride + kernel
        return fewest

    def transcribe(self, samples_N: Floats, how: Listening, seed: int = 0) -> Iterator[tuple[list[Segment], float]]:
        """(the next segments, seconds of the sound that are done) of mono sound at `rate`. Nothing is drawn: every
        `seed` gives the same."""
        for chunk in self.parts(samples_N, how.voice):
            text, confidence = self.read(chunk.cut(samples_N))
            start, end = chunk.pieces[0][0] / self.rate, chunk.pieces[-1][1] / self.rate
            told = text and confidence >= self.doubt
            yield [Segment(start, end, text, confidence=confidence)] if told else [], end

    @torch.inference_mode()
    def read(self, samples_N: Floats) -> tuple[str, float]:
        """(the text of one part, the mean log-probability of its characters)."""
        memory_1MD = self.network.encoder(self.how.row(samples_N))
        room = self.network.config.decoder.max_length - 2
        most = max(1, min(room, math.ceil(TOKENS * len(samples_N) / self.rate)))
        ids, chances = self.network.write(memory_1MD, most)
        return self.tokenizer.decode(ids).strip(), sum(chances) / len(chances)
