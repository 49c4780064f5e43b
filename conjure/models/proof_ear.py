"""Our own ear as a listener to our own voice: does a sound hold every word that was to be said, each of them once?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from conjure.codecs.plain_letters import encode
from conjure.core.config import from_dict
from conjure.decoding.word_presence import Fault, presence
from conjure.media.audio import Audio
from conjure.models.ear import LEAST, MEL, Ear, EarConfig, features
from conjure.models.folder import load_weights, read_config
from conjure.models.listener import Heard

BORDER = 1
"""Of words, among the ear's symbols."""
LONGEST = 30.0
"""Seconds that are heard at once; longer sounds are not judged."""
MISSING, TWICE = 15.0, -4.0
"""Nats by which the text without a word, or with it twice, must be likelier than the right one to count. Chosen with
starter/ear on 40 sentences of starter/voice, of which 93 % were then thought right; the other text must be much better
where a word is left out, for what explains a sound that is said oddly is often the text without it."""


@dataclass(frozen=True)
class Judged:
    """`doubt` is by how many nats the worst word is above its margin: nothing is wrong where it is not above 0."""

    doubt: float
    faults: tuple[tuple[str, Fault], ...]


@dataclass(eq=False)
class ProofEar:
    ear: Ear

    @classmethod
    def load(cls, folder: Path) -> ProofEar:
        return cls(load_ear(folder))

    def judge(self, samples_N: np.ndarray, rate: int, words: Sequence[str], speed: float = 1.0) -> Judged | None:
        """Of float32 mono sound that is said at so much of the usual speed; None where nothing can be said: no letters,
        or too short or too long a sound."""
        spelt = [(word, ids) for word in words for ids in [encode(word)] if ids]
        sound_N = Audio(np.ascontiguousarray(samples_N, np.float32)[None], rate).at(MEL.rate).mono()
        if not spelt or not LEAST <= len(sound_N) <= LONGEST * MEL.rate:
            return None
        found = presence(heard(self.ear, [sound_N], speed)[0].logits_TV, [ids for _, ids in spelt], BORDER)
        if found is None:
            return None
        faults = found.faults(MISSING, TWICE)
        return Judged(found.doubt(MISSING, TWICE), tuple((spelt[word][0], fault) for word, fault in faults))


def load_ear(folder: Path) -> Ear:
    """The network of an ear's folder, ready for use, without its words."""
    network = Ear(from_dict(EarConfig, read_config(folder)["model"], where="model"))
    load_weights(network, folder / "model.safetensors")
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def heard(ear: Ear, sounds: Sequence[np.ndarray], slower: float = 1.0) -> list[Heard]:
    """What the ear makes of each of several mono sounds at 16 kHz. Fast speech is heard so many times `slower` (its
    frames spread, its pitch as it is): the ear has room for one letter in 40 ms."""
    mels = [features(torch.from_numpy(np.ascontiguousarray(sound))) for sound in sounds]
    if slower > 1:
        mels = [F.interpolate(mel.T[None], scale_factor=slower, mode="linear")[0].T for mel in mels]
    lengths_B = torch.tensor([len(mel) for mel in mels])
    heard_BSD, logits_BSV, frames_B = ear.heard(pad_sequence(mels, True), lengths_B)
    found = list[Heard]()
    for heard_SD, logits_SV, count in zip(heard_BSD, logits_BSV, frames_B.tolist(), strict=True):
        opinion = None if ear.writer is None else partial(_opinion, ear, heard_SD[:count])
        found.append(Heard(logits_SV[:count], opinion))
    return found


@torch.inference_mode()
def _opinion(ear: Ear, heard_SD: Tensor, texts: Sequence[Sequence[int]]) -> list[float]:
    return ear.would_write(heard_SD, texts)
