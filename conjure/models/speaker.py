"""A voice with all that it needs to say sentences: pronunciation, the network, and the vocoder.

Every phone of a sentence is given a length of at least one frame, and is said for that long: `Sound.phones` are those
that were asked for, `Sound.ends` when each ended. Sentences are the same alone and in a batch (to rounding).

Legend: B batch, P phones, T frames, M mel bands, N samples.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.codecs.pronunciation import PHONES, Pronunciation
from conjure.codecs.spoken_text import Pause, Utterance, Word
from conjure.core import seeds as randomness
from conjure.core.config import from_dict
from conjure.core.errors import ConjureError, suggest
from conjure.core.seeds import derive
from conjure.diffusion.samplers import euler
from conjure.models.folder import load_weights, read_config
from conjure.models.istft_vocoder import Vocoder
from conjure.models.speech_folder import load_vocoder
from conjure.models.voice import Voice, VoiceConfig, restored

PAUSE = 0
"""Index of the pause among the phones."""
MOST = 150
"""Phones that are said in one go; longer sentences are cut between words, and very long words inside."""
LONGEST_PHONE = 80.0
"""Frames: a second."""
TEMPI = (0.5, 2.0)
"""Speeds that the network is asked for. What is slower or faster is said at the nearest of them, and the frames of its
spectrogram are then spread over more or less time, all alike: the pitch stays, and the length is as asked."""


@dataclass(frozen=True, kw_only=True)
class Saying:
    """How sentences are said."""

    voice: str = "slt"
    """Of sentences that name none."""
    speed: float = 1.0
    pause: float = 1.0
    """What silences are multiplied by."""
    steps: int = 4
    """Of the flow's sampler."""
    temperature: float = 0.6
    """Of its noise."""
    batch: int = 4
    """Sentences that are said together."""


@dataclass(frozen=True, eq=False)
class Sound:
    """One piece: float32 `[N]`, its phones by name and their ends in seconds, silence behind it in seconds."""

    samples: np.ndarray
    source: str
    phones: tuple[str, ...]
    ends: tuple[float, ...]
    after: float
    words: tuple[str, ...] = ()
    """Those that are said, where the letters of all of them are known."""


@dataclass
class Stages:
    """Seconds that were spent on each part of the work, added up."""

    text: float = 0.0
    phones: float = 0.0
    spectrogram: float = 0.0
    vocoder: float = 0.0


@dataclass(frozen=True)
class Piece:
    """What is said in one go, an utterance or a part of a long one: phones `[P]`, and pauses with a length of their
    own, place -> seconds; `words` as in `Sound`."""

    phones: list[int]
    fixed: dict[int, float]
    utterance: Utterance
    after: float
    seed: int
    words: tuple[str, ...] = ()

    def again(self, attempt: int) -> Piece:
        """The same with other noise."""
        return replace(self, seed=derive(self.seed, "again", attempt))


@dataclass(eq=False)
class Speaker:
    """Ready to speak."""

    voice: Voice
    vocoder: Vocoder
    pronunciation: Pronunciation
    stages: Stages = field(default_factory=Stages)

    @classmethod
    def load(cls, folder: Path) -> Speaker:
        voice = Voice(from_dict(VoiceConfig, read_config(folder)["model"], where="model"))
        load_weights(voice, folder / "model.safetensors")
        voice.eval().requires_grad_(False)
        return cls(voice, load_vocoder(folder), Pronunciation.load(folder))

    @property
    def rate(self) -> int:
        return self.voice.config.mel.rate

    def check(self, utterances: Sequence[Utterance], how: Saying) -> None:
        """`ConjureError` for a voice that there is not."""
        names = self.voice.config.voices
        for name in dict.fromkeys([how.voice, *(each.voice for each in utterances if each.voice)]):
            if name not in names:
                raise ConjureError(f"there is no voice '{name}'", hint=suggest(name, names))

    def say(self, utterances: Sequence[Utterance], how: Saying, seed: int) -> Iterator[Sound]:
        """One or more sounds for each utterance, in order; the first alone, so that it comes soon."""
        for batch in self.batches(utterances, how, seed):
            yield from self.said(batch, how)

    def batches(self, utterances: Sequence[Utterance], how: Saying, seed: int) -> Iterator[list[Piece]]:
        """What `say` says together: one piece, then `how.batch` of them at a time."""
        self.check(utterances, how)
        waiting: list[Piece] = []
        size = 1
        for piece in self._pieces(utterances, seed):
            waiting.append(piece)
            if len(waiting) == size:
                yield waiting
                waiting, size = [], how.batch
        if waiting:
            yield waiting

    def phones_of(self, utterance: Utterance) -> tuple[list[list[int]], dict[int, float]]:
        """The phones of each word, a pause being a word of one phone; and the pauses with a length, word -> seconds."""
        words, fixed = list[list[int]](), dict[int, float]()
        said = iter(self.pronunciation.of_words([part.text for part in utterance.parts
                                                 if isinstance(part, Word) and not part.phones]))  # fmt: skip
        for part in utterance.parts:
            if isinstance(part, Pause):
                if part.seconds is not None:
                    fixed[len(words)] = part.seconds
                words.append([PAUSE])
            else:
                words.append([PHONES.index(phone) for phone in part.phones or next(said)])
        return words, fixed

    def _pieces(self, utterances: Sequence[Utterance], seed: int) -> Iterator[Piece]:
        number = 0
        for utterance in utterances:
            began = time.perf_counter()
            words, fixed = self.phones_of(utterance)
            groups = _grouped(words)
            self.stages.text += time.perf_counter() - began
            for at, group in enumerate(groups):
                phones, places = [PAUSE], dict[int, float]()
                for place, word in group:
                    if place in fixed:
                        places[len(phones)] = fixed[place]
                    phones += word
                after = utterance.after if at == len(groups) - 1 else 0.0
                known = _known(utterance, group, words)
                yield Piece([*phones, PAUSE], places, utterance, after, derive(seed, "utterance", number), known)
                number += 1

    @torch.no_grad()
    def said(self, pieces: Sequence[Piece], how: Saying) -> Iterator[Sound]:
        """The sounds of several pieces, which are computed together."""
        began = time.perf_counter()
        phones_BP, voice_B = self._tensors(pieces, how)
        h_BPD, _ = self.voice.encode(phones_BP, voice_B)
        ends_BP = self._ends(self.voice.log_durations(h_BPD).exp(), pieces, how)
        self.stages.phones += time.perf_counter() - began
        began = time.perf_counter()
        mels = self._spectrograms(h_BPD, ends_BP, voice_B, pieces, how)
        self.stages.spectrogram += time.perf_counter() - began
        for row, (piece, mel_TM) in enumerate(zip(pieces, mels, strict=True)):
            began = time.perf_counter()
            rest = _tempi(piece, how)[1]
            samples = self.vocoder.whole(_spread(mel_TM, rest).T.contiguous()).clamp(-1, 1).numpy()
            self.stages.vocoder += time.perf_counter() - began
            ends = (ends_BP[row, : len(piece.phones)] / rest * self.voice.config.mel.hop / self.rate).tolist()
            yield Sound(samples, piece.utterance.source, tuple(PHONES[each] for each in piece.phones), tuple(ends),
                        piece.after * how.pause, piece.words)  # fmt: skip

    def _tensors(self, pieces: Sequence[Piece], how: Saying) -> tuple[Tensor, Tensor]:
        longest = max(len(piece.phones) for piece in pieces)
        rows = [piece.phones + [-1] * (longest - len(piece.phones)) for piece in pieces]
        names = self.voice.config.voices
        voices = [names.index(piece.utterance.voice or how.voice) for piece in pieces]
        return torch.tensor(rows), torch.tensor(voices)

    def _ends(self, lengths_BP: Tensor, pieces: Sequence[Piece], how: Saying) -> Tensor:
        """Where each phone ends, in frames: none is shorter than a frame, so each holds the centre of one."""
        per_second = self.rate / self.voice.config.mel.hop
        for row, piece in enumerate(pieces):
            phones_P = torch.tensor(piece.phones)
            speed, rest = _tempi(piece, how)
            length_P = lengths_BP[row, : len(phones_P)] / speed
            length_P = torch.where((phones_P == PAUSE) & _inside(phones_P), length_P * how.pause, length_P)
            for place, seconds in piece.fixed.items():
                length_P[place] = seconds * how.pause * per_second * rest
            most_P = torch.full_like(length_P, LONGEST_PHONE / min(1.0, speed))
            most_P[list(piece.fixed)] = float("inf")
            lengths_BP[row, : len(phones_P)] = torch.minimum(length_P, most_P).clamp_min(1.0)
            lengths_BP[row, len(phones_P) :] = 0.0
        return lengths_BP.cumsum(1)

    def _spectrograms(
        self, h_BPD: Tensor, ends_BP: Tensor, voice_B: Tensor, pieces: Sequence[Piece], how: Saying
    ) -> list[Tensor]:
        """`[T, M]` each, restored."""
        frames = [int(end) + 1 for end in ends_BP[:, -1]]
        at_BT = torch.arange(max(frames)).expand(len(frames), -1)
        counted_BT1 = (at_BT < torch.tensor(frames)[:, None]).float()[..., None]
        g_BTD, mean_BTM = self.voice.frames(h_BPD, ends_BP, voice_B, at_BT, counted_BT1)
        bands, flow = mean_BTM.shape[2], self.voice.config.flow
        noise_BTM = torch.zeros_like(mean_BTM)
        for row, piece in enumerate(pieces):
            noise_BTM[row, : frames[row]] = randomness.normal([piece.seed], (frames[row], bands))[0]
        denoise = flow.denoise(lambda x, t: self.voice.estimate(x, t, g_BTD, mean_BTM, counted_BT1))
        x_BTM = euler(denoise, flow.prior(how.temperature * noise_BTM), flow.sigmas(how.steps))
        return [restored(x_BTM[row, :length].float()) for row, length in enumerate(frames)]


def _tempi(piece: Piece, how: Saying) -> tuple[float, float]:
    """(the speed that the network is asked for, by what its frames are then thinned out)."""
    wanted = how.speed * piece.utterance.speed
    asked = min(max(wanted, TEMPI[0]), TEMPI[1])
    return asked, wanted / asked


def _spread(mel_TM: Tensor, rest: float) -> Tensor:
    """A spectrogram that lasts 1 / `rest` times as long; frames in between are means of their neighbours."""
    if rest == 1.0:
        return mel_TM
    frames = max(2, round((len(mel_TM) - 1) / rest) + 1)
    return F.interpolate(mel_TM.T[None], size=frames, mode="linear", align_corners=True)[0].T


def _known(utterance: Utterance, group: Sequence[tuple[int, list[int]]], words: Sequence[list[int]]) -> tuple[str, ...]:
    """The words of a group; none where one is cut, or said by phones that its letters do not tell."""
    parts = [(utterance.parts[place], phones == words[place]) for place, phones in group]
    if any(isinstance(part, Word) and (part.phones or not whole) for part, whole in parts):
        return ()
    return tuple(part.text for part, _ in parts if isinstance(part, Word))


def _inside(phones_P: Tensor) -> Tensor:
    """bool `[P]`: neither the first nor the last."""
    at_P = torch.arange(len(phones_P))
    return (at_P > 0) & (at_P < len(phones_P) - 1)


def _grouped(words: Sequence[list[int]]) -> list[list[tuple[int, list[int]]]]:
    """(place, phones) of words in groups of at most `MOST` phones; a longer word is cut."""
    groups: list[list[tuple[int, list[int]]]] = [[]]
    size = 0
    for place, word in enumerate(words):
        for start in range(0, len(word), MOST):
            part = word[start : start + MOST]
            if size + len(part) > MOST and groups[-1]:
                groups.append([])
                size = 0
            groups[-1].append((place, part))
            size += len(part)
    return groups
