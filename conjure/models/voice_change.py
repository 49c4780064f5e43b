"""What somebody says, in the voice of a sample: no network is trained for it.

Frames are compared by what our own ear makes of them behind its first blocks, where it knows phones and hardly
speakers; run four times, each 10 ms later, it gives a frame every 10 ms. Two ways of changing a spectrogram are mixed:

- each frame is moved by the difference between the two voices in the phone that it is (means of both over the phones
  that the ear hears, weighed by how sure it is; Stylianou et al. 1998, "Continuous probabilistic transform for voice
  conversion", IEEE TSAP 6, with classes that the ear gives): keeps the words;
- each frame becomes the mean of the frames of the sample that are most like it (kNN-VC: Baas et al. 2023, arXiv
  2305.18975): nearer to the sample, and less clear.

Both see spectra without the ripples of pitch (`codecs/pitch_comb.py`). The pitch itself keeps its melody; its median
and its spread become those of the sample. A vocoder makes the sound.

Legend: N samples, T frames of the vocoder's hop, S of the sample, M mel bands, D width of the ear, P phones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from conjure.codecs.log_mel import log_mel, mel_filters
from conjure.codecs.pitch_comb import Comb, comb_of, smoothed
from conjure.codecs.voice_activity import Span, chunks, spans
from conjure.core.errors import ConjureError
from conjure.metrics.voicing import FRAME, STEP, pitches
from conjure.models.ear import LEAST, MEL, Ear, features
from conjure.models.istft_vocoder import Vocoder

FIRST = FRAME / 2
"""Seconds at which the middle of the first frame with a pitch lies."""
SHIFTS = 4
"""Times that the ear looks: its frames are so many of its front end's apart."""
SHORTEST, LONGEST = 0.1, 20.0
"""Seconds that are looked at together."""
NEAREST = 4
"""Frames whose mean takes the place of one."""
SOFTER = 2.0
"""What the logits of phones are divided by: less sure of itself, the ear makes fewer jumps."""
KNOWN = 20.0
"""Frames of a phone from which its own difference counts as much as that of the whole voice."""
SMOOTH = 9
"""Frames over which the movement is averaged."""
SPEAKING = 5.0
"""Nats below the loudest frame: what is softer says nothing about a voice."""
SPREAD = (0.6, 1.6)
"""Bounds of how much wider or narrower the melody becomes."""
STRONGEST = 1.4
"""Nats by which a band is made louder or softer at most when its mean is put right (12 dB)."""
LOUDER, SOFT = 0.7, 2.0
"""Nats by which a soft frame may gain on what is spoken, and below its mean from which a frame counts as soft."""
AT_ONCE = 2000
"""Frames that are compared with the sample together."""


@dataclass(frozen=True, eq=False)
class Voiced:
    """A sound in frames: `mel` `[T, M]`, `states` of the ear, each of length 1, `[T, D]`, `phones` `[T, P]` that add up
    to 1, `hertz` `[T]` (0: no pitch), `mouth` `[T, M]`, the spectrogram smooth and without the ripples of pitch."""

    mel: Tensor
    states: Tensor
    phones: Tensor
    hertz: np.ndarray
    mouth: Tensor

    @property
    def pitch(self) -> float:
        """The median, Hz; 0 where nothing has one."""
        high = self.hertz[self.hertz > 0]
        return float(np.median(high)) if len(high) else 0.0

    @cached_property
    def speaking(self) -> Tensor:
        """1 in frames that are loud enough, `[T, 1]`."""
        loud_T = self.mel.exp().mean(1).log()
        return (loud_T > loud_T.max() - SPEAKING).float()[:, None]


@dataclass(eq=False)
class VoiceChanger:
    ear: Ear
    vocoder: Vocoder

    @property
    def rate(self) -> int:
        return self.vocoder.config.mel.rate

    @property
    def comb(self) -> Comb:
        return comb_of(self.vocoder.config.mel)

    def seen(self, samples_N: np.ndarray) -> Voiced:
        """Mono sound at `rate` in frames; long sound is looked at piece by piece, silence is put behind short sound."""
        if len(samples_N) < LEAST:
            raise ConjureError(f"expected sound of at least {1000 * LEAST / MEL.rate:g} ms, got "
                               f"{1000 * len(samples_N) / self.rate:.3g} ms")  # fmt: skip
        samples_N = np.pad(np.asarray(samples_N, np.float32), (0, max(0, round(SHORTEST * self.rate) - len(samples_N))))
        mel_TM = self._mel(samples_N)
        T = len(mel_TM)
        states, phones = zip(*(self._heard(samples_N[a:b]) for a, b in self._pieces(samples_N)), strict=True)
        states_TD, phones_TP = (_stretched(torch.cat(each), T) for each in (states, phones))
        hertz_T = self._hertz(samples_N, T)
        mouth_TM = smoothed(mel_TM - self.comb(hertz_T))
        return Voiced(mel_TM, F.normalize(states_TD, dim=1), phones_TP, hertz_T, mouth_TM)

    def changed(self, sound: Voiced, sample: Voiced, like: float, own: Voiced | None = None) -> np.ndarray:
        """float32 `[(T - 1) hop]`: `sound` in the voice of `sample`. `like` is the share of the sample's own frames (1:
        they alone). `own` is more of the voice that speaks, where `sound` is short."""
        moved_TM = averaged(sound.phones @ _differences(own or sound, sample), SMOOTH)
        mouth_TM = sound.mouth + (1 - like) * moved_TM
        if like:
            mouth_TM = mouth_TM + like * (self._nearest(sound, sample) - sound.mouth)
        rest_TM = (sound.mel - self.comb(sound.hertz)) - sound.mouth
        hertz_T = melody(sound.hertz, own or sound, sample)
        mel_TM = mouth_TM + (1 - like) * rest_TM + self.comb(hertz_T)
        mel_TM = as_still(mel_TM, sound)
        made_N = self.vocoder.whole(mel_TM.T.contiguous()).numpy()
        return np.clip(self._coloured(made_N, mel_TM, sound.speaking), -1, 1)

    def _nearest(self, sound: Voiced, sample: Voiced) -> Tensor:
        """The mean of the frames of the sample that are most like each, `[T, M]`."""
        near = min(NEAREST, len(sample.states))
        found = [
            sample.mouth[(part_TD @ sample.states.T).topk(near).indices].mean(1)
            for part_TD in sound.states.split(AT_ONCE)
        ]
        return torch.cat(found)

    def _coloured(self, made_N: np.ndarray, wanted_TM: Tensor, speaking_T1: Tensor) -> np.ndarray:
        """What the vocoder made, with the mean spectrum that was asked of it: it knows few voices, and gives those of
        others its own colour."""
        mel = self.vocoder.config.mel
        apart_TM = (wanted_TM - self._mel(made_N)[: len(wanted_TM)]) * speaking_T1
        gain_M = (apart_TM.sum(0) / speaking_T1.sum()).clamp(-STRONGEST, STRONGEST)
        filters_MF = mel_filters(mel)
        filters_MF = filters_MF / filters_MF.amax(1, keepdim=True)
        gain_F = (filters_MF.T @ gain_M) / filters_MF.sum(0).clamp_min(1e-9)
        taps_K = torch.fft.fftshift(torch.fft.irfft(gain_F.exp())) * torch.hann_window(mel.fft)
        made_11N = F.pad(torch.from_numpy(made_N)[None, None], (mel.fft // 2 - 1, mel.fft // 2))
        return F.conv1d(made_11N, taps_K.flip(0)[None, None])[0, 0].numpy()

    def _pieces(self, samples_N: np.ndarray) -> list[Span]:
        """The whole sound in pieces that the ear can look at, cut where it is soft."""
        cut = chunks([(0, len(samples_N))], samples_N, self.rate, LONGEST, apart=0.0)
        ends = [chunk.pieces[-1][1] for chunk in cut]
        starts = [0, *ends[:-1]]
        found = [(a, b) for a, b in zip(starts, [*ends[:-1], len(samples_N)], strict=True) if b - a >= LEAST]
        return found or [(0, len(samples_N))]

    def _mel(self, samples_N: np.ndarray) -> Tensor:
        """`[T, M]`, piece by piece so that memory is bounded."""
        mel = self.vocoder.config.mel
        step, edge, T = 4000, 4, 1 + len(samples_N) // mel.hop
        found = []
        for first in range(0, T, step):
            low, high = max(0, first - edge), min(T, first + step + edge)
            part_N = samples_N[low * mel.hop : None if high == T else (high - 1) * mel.hop + 1]
            found.append(log_mel(torch.from_numpy(part_N), mel).T[first - low : min(first + step, T) - low])
        return torch.cat(found)

    @torch.inference_mode()
    def _heard(self, samples_N: np.ndarray) -> tuple[Tensor, Tensor]:
        """(states `[F, D]`, phones `[F, P]`) of frames of the ear's front end."""
        mel_FM = features(torch.from_numpy(samples_N))
        rows = [mel_FM[shift:] for shift in range(SHIFTS)]
        early_BSD, _, _ = self.ear.hidden(pad_sequence(rows, True), torch.tensor([len(row) for row in rows]))
        states_FD = self.ear.norm_phones(early_BSD).transpose(0, 1).flatten(0, 1)[: len(mel_FM)]
        return states_FD, (self.ear.phones(states_FD).float() / SOFTER).softmax(-1)

    def _hertz(self, samples_N: np.ndarray, frames: int) -> np.ndarray:
        """The pitch at each frame, smoothed by a median of five; single frames have none."""
        found_F = pitches(samples_N, self.rate)
        if not len(found_F):
            return np.zeros(frames)
        at_T = np.arange(frames) * self.vocoder.config.mel.hop / self.rate
        near_T = np.clip(np.rint((at_T - FIRST) / STEP).astype(int), 0, len(found_F) - 1)
        around_T5 = np.lib.stride_tricks.sliding_window_view(np.pad(found_F[near_T], 2), 5)
        some_T5 = np.where(around_T5 > 0, around_T5, np.nan)
        enough_T = (around_T5 > 0).sum(1) >= 3
        out_T = np.zeros(frames)
        out_T[enough_T] = np.nanmedian(some_T5[enough_T], axis=1)
        return out_T


def speech_of(samples_N: np.ndarray, rate: int, longest: float) -> np.ndarray:
    """What is spoken in a sound, its pauses left out, at most so many seconds of it."""
    parts = [samples_N[a:b] for a, b in spans(samples_N, rate)]
    return np.concatenate(parts)[: round(longest * rate)] if parts else samples_N[:0]


def as_still(mel_TM: Tensor, sound: Voiced) -> Tensor:
    """The spectrogram with its soft frames made softer, where they have gained on what is spoken: the room of a sample
    does not fill pauses. Frames that are as loud as speech stay."""
    before_T, after_T = (each.exp().mean(1).log() for each in (sound.mel, mel_TM))
    spoken_T = sound.speaking[:, 0] > 0
    below_T = before_T[spoken_T].mean() - before_T
    gained_T = (after_T - after_T[spoken_T].mean()) + below_T
    return mel_TM - ((gained_T - LOUDER).clamp_min(0) * (below_T / SOFT).clamp(0, 1))[:, None]


def melody(hertz_T: np.ndarray, own: Voiced, sample: Voiced) -> np.ndarray:
    """The pitch of each frame moved so that median and spread of its logarithm become the sample's."""
    mine, theirs = (np.log(each.hertz[each.hertz > 0]) for each in (own, sample))
    if not len(mine) or not len(theirs):
        return hertz_T
    wider = float(np.clip(theirs.std() / max(float(mine.std()), 1e-3), *SPREAD))
    out_T, has_T = np.zeros_like(hertz_T), hertz_T > 0
    out_T[has_T] = np.exp(np.median(theirs) + wider * (np.log(hertz_T[has_T]) - np.median(mine)))
    return out_T


def averaged(x_TM: Tensor, width: int) -> Tensor:
    """Means over `width` frames (odd) under a raised cosine; the ends are repeated."""
    window_W = torch.hann_window(width + 2, periodic=False)[1:-1]
    padded = F.pad(x_TM.T[:, None], (width // 2, width // 2), mode="replicate")
    return F.conv1d(padded, (window_W / window_W.sum())[None, None])[:, 0].T


def _differences(own: Voiced, sample: Voiced) -> Tensor:
    """By how much a voice differs from another in each phone, `[P, M]`; rare phones as the voices do as a whole."""
    (mine_PM, much_P1), (theirs_PM, heard_P1) = (_means(each) for each in (own, sample))
    whole_M = _whole(sample) - _whole(own)
    known_P1 = torch.minimum(much_P1, heard_P1)
    sure_P1 = known_P1 / (known_P1 + KNOWN)
    return sure_P1 * (theirs_PM - mine_PM) + (1 - sure_P1) * whole_M


def _means(sound: Voiced) -> tuple[Tensor, Tensor]:
    """(mean of the frames of each phone `[P, M]`, how many frames it has `[P, 1]`)."""
    frames_P1 = sound.phones.sum(0)[:, None]
    return (sound.phones.T @ sound.mouth) / frames_P1.clamp_min(1e-6), frames_P1


def _whole(sound: Voiced) -> Tensor:
    return (sound.mouth * sound.speaking).sum(0) / sound.speaking.sum()


def _stretched(x_FD: Tensor, frames: int) -> Tensor:
    """Other frames of the same time, by lines between neighbours."""
    return F.interpolate(x_FD.T[None], size=frames, mode="linear", align_corners=True)[0].T
