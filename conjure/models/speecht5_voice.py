"""Public SpeechT5s that speak or convert, with what belongs to them: a vocoder, and the vector of a speaker.

Legend: N samples, F mel frames, S mel bands, E width of a speaker's vector.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from conjure.codecs.sentencepiece import SPACE
from conjure.codecs.tokenizer import Tokenizer
from conjure.codecs.voice_activity import Floats
from conjure.core.errors import ConjureError
from conjure.core.seeds import derive, rng
from conjure.models.checkpoint import Checkpoint
from conjure.models.language import read_config
from conjure.models.public.load import build
from conjure.models.speecht5 import Keep, SpeechT5
from conjure.models.wave_input import WaveInput
from conjure.nn.vocoding import HifiGan

TRIES = 3
"""How often something is said before it is left without an end."""
AROUND = 8
"""Characters that the tokenizer may add to a text."""
LARGEST = 1 << 20
"""Bytes of a file with a speaker's vector."""


def speaker_vector(path: Path, width: int) -> Tensor:
    """A speaker's vector float32 `[E]` from a .npy file, or from a .safetensors file with one tensor."""
    found = _numbers(path)
    if found.size != width or found.dtype.kind not in "fiu":
        raise ConjureError(f"{path}: expected {width} numbers that stand for a speaker, got {found.dtype} "
                           f"{list(found.shape)}", hint="an x-vector, as of the set cmu-arctic-xvectors")  # fmt: skip
    vector_E = torch.from_numpy(found.astype(np.float32).reshape(-1))
    if not vector_E.isfinite().all() or not vector_E.any():
        raise ConjureError(f"{path}: expected finite numbers, and not all of them 0")
    return vector_E


def _numbers(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ConjureError(f"{path}: no such file")
    if path.suffix not in (".npy", ".safetensors") or path.stat().st_size > LARGEST:
        raise ConjureError(f"{path}: expected the numbers that stand for a speaker, in a small .npy or .safetensors",
                           hint="this model cannot make them of a sound; make an x-vector of it first")  # fmt: skip
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        tensors = list(load_file(path).values())
    except (SafetensorError, ValueError, OSError, EOFError) as error:
        raise ConjureError(f"{path}: could not be read: {error}") from None
    if len(tensors) != 1:
        raise ConjureError(f"{path}: expected one tensor, got {len(tensors)}")
    return tensors[0]


def load_vocoder(folder: Path, bands: int) -> HifiGan:
    """A HiFi-GAN in the hub's layout that reads frames of so many bands."""
    network, _ = build(read_config(folder), Checkpoint(folder), torch.float32)
    if not isinstance(network, HifiGan):
        raise ConjureError(f"{folder}: expected a HiFi-GAN vocoder, this is a {read_config(folder).get('model_type')}",
                           hint="for example: conjure models get microsoft/speecht5_hifigan")  # fmt: skip
    if network.config.channels != bands:
        raise ConjureError(f"{folder}: reads {network.config.channels} mel bands, the model writes {bands}")
    return network


class SpeechT5Voice:
    """`say` and `convert` give float32 samples `[N]` at `rate`, and whether they came to an end by themselves."""

    english = True
    """The released models know no other language."""

    def __init__(self, network: SpeechT5, vocoder: HifiGan, folder: Path) -> None:
        self.network, self.vocoder = network, vocoder
        self.how = WaveInput.of(folder, level=False)
        self.rate = self.how.rate
        self.tokenizer = None if network.config.encoder.wave is not None else Tokenizer.load(folder)
        self.longest = network.config.encoder.most - AROUND

    @classmethod
    def load(cls, folder: Path, vocoder: Path) -> SpeechT5Voice:
        """Both from folders of the hub's layout."""
        network, _ = build(read_config(folder), Checkpoint(folder), torch.float32)
        assert isinstance(network, SpeechT5)
        return cls(network, load_vocoder(vocoder, network.config.bands), folder)

    def left_out(self, text: str) -> str:
        """The characters that the model does not know, each once."""
        assert self.tokenizer is not None
        known = self.tokenizer.backend.get_vocab(with_added_tokens=False)
        return "".join(dict.fromkeys(each for each in text if not each.isspace() and each not in known))

    def say(self, text: str, seed: int, speaker_E: Tensor) -> tuple[Floats, bool]:
        """No sample where nothing of the text can be read."""
        assert self.tokenizer is not None
        unread = set(self.left_out(text))
        text = "".join(each for each in text if each not in unread).replace(SPACE, " ")
        if not text.strip():
            return np.zeros(0, np.float32), True
        ids = torch.tensor([self.tokenizer.encode(text, special=True)])
        return self._tried(ids, seed, speaker_E, 20.0)

    def convert(self, samples_N: Floats, seed: int, speaker_E: Tensor) -> tuple[Floats, bool]:
        """Mono sound at `rate`, said in the speaker's voice."""
        return self._tried(self.how.row(samples_N), seed, speaker_E, 4.0)

    @torch.inference_mode()
    def _tried(self, given: Tensor, seed: int, speaker_E: Tensor, longest: float) -> tuple[Floats, bool]:
        """What does not come to an end is said again with other noise; the last counts."""
        memory_1MD = self.network.encoder(given)
        mel_FS, ended = torch.zeros(0), False
        for attempt in range(TRIES):
            mel_FS, ended = self.network.speak(memory_1MD, speaker_E, keeping(derive(seed, "try", attempt),
                                               self.network.config.kept), longest=longest)  # fmt: skip
            if ended:
                break
        return self.vocoder(mel_FS.mT[None])[0].numpy(), ended


def keeping(seed: int, chance: float) -> Keep:
    """Which units are kept, by a seed."""
    stream = rng(derive(seed, "kept"))
    return lambda units: torch.from_numpy(stream.random(units) < chance)
