"""Read sentences as the rows that `models/voice.py` learns from.

Legend: B rows, P phones, T frames, M mel bands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from conjure.codecs.log_mel import Mel, log_mel
from conjure.core.seeds import derive, rng
from conjure.data.read_sentences import ReadSentences
from conjure.data.teacher import Rendered
from conjure.models.voice import normalised


def mel_of(read: Rendered, mel: Mel) -> np.ndarray:
    """float32 `[T, M]`, normalised."""
    samples_N = torch.from_numpy(read.samples.astype(np.float32) / 32768)
    return normalised(log_mel(samples_N, mel).T).numpy()


class Rows:
    """Crops of sentences; the spectrograms that were computed once are kept, in half precision."""

    def __init__(self, source: ReadSentences, mel: Mel, frames: int, seed: int = 0) -> None:
        self.source, self.mel, self.frames, self.seed = source, mel, frames, seed
        self._kept: dict[str, np.ndarray] = {}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """See `padded`; the crop of example i is drawn for i."""
        rows = []
        for index in indices:
            voice, read = self.source.example(index)
            draw = rng(derive(self.seed, "frames", index))
            length = self._mel(voice, read).shape[0]
            first = int(draw.integers(max(1, length - self.frames + 1)))
            rows.append(self._row(voice, read, first))
        return padded(rows, self.frames) | {"seeds": torch.tensor([derive(self.seed, "flow", i) for i in indices])}

    def held(self, index: int) -> dict[str, Tensor]:
        """Sentence `index` of the part, as far as a crop goes, from a place in its middle."""
        voice, read = self.source[index]
        first = max(0, self._mel(voice, read).shape[0] - self.frames) // 2
        row = self._row(voice, read, first)
        return padded([row], self.frames) | {"seeds": torch.tensor([derive(0, "held", index)])}

    def _row(self, voice: int, read: Rendered, first: int) -> tuple[int, np.ndarray, np.ndarray, int, np.ndarray]:
        mel_TM = self._mel(voice, read)[first : first + self.frames]
        return voice, read.phones, read.ends / self.mel.hop, first, mel_TM

    def _mel(self, voice: int, read: Rendered) -> np.ndarray:
        key = f"{voice} {read.text}"
        if key not in self._kept:
            self._kept[key] = mel_of(read, self.mel).astype(np.float16)
        return self._kept[key]


def padded(rows: Sequence[tuple[int, np.ndarray, np.ndarray, int, np.ndarray]], frames: int) -> dict[str, Tensor]:
    """`phones` int64 `[B, P]`, -1 where there is none; `ends` `[B, P]` in frames; `voice`, `first` `[B]`; `mel`
    `[B, T, M]` and `counted` `[B, T]`, 1 where there is a frame."""
    longest, bands = max(len(phones) for _, phones, *_ in rows), rows[0][4].shape[1]
    phones_BP = np.full((len(rows), longest), -1, np.int64)
    ends_BP = np.zeros((len(rows), longest), np.float32)
    mel_BTM = np.zeros((len(rows), frames, bands), np.float32)
    counted_BT = np.zeros((len(rows), frames), np.float32)
    for at, (_, phones_P, ends_P, _, mel_TM) in enumerate(rows):
        phones_BP[at, : len(phones_P)] = phones_P
        ends_BP[at, : len(phones_P)], ends_BP[at, len(phones_P) :] = ends_P, ends_P[-1]
        mel_BTM[at, : len(mel_TM)], counted_BT[at, : len(mel_TM)] = mel_TM, 1
    made = {"phones": phones_BP, "ends": ends_BP, "voice": np.array([each[0] for each in rows]),
            "first": np.array([each[3] for each in rows]), "mel": mel_BTM, "counted": counted_BT}  # fmt: skip
    return {name: torch.from_numpy(value) for name, value in made.items()}
