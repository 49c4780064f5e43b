"""A public VITS with what belongs to it: text to a wave, one sentence at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from conjure.codecs.voice_activity import Floats
from conjure.codecs.voice_characters import VoiceCharacters
from conjure.core.errors import ConjureError
from conjure.core.seeds import Noise
from conjure.models.checkpoint import Checkpoint
from conjure.models.language import read_config
from conjure.models.public.load import build
from conjure.models.vits import Vits

LONGEST = 400
"""Characters that are read at once."""


class VitsVoice:
    """`say` gives float32 samples `[N]` at `rate`."""

    def __init__(self, network: Vits, characters: VoiceCharacters) -> None:
        self.network, self.characters = network, characters
        self.rate, self.longest = network.config.rate, LONGEST
        self.english = characters.language in ("eng", "en")

    @classmethod
    def load(cls, folder: Path) -> VitsVoice:
        """From a folder of the hub's layout: config.json, safetensors, vocab.json, tokenizer_config.json."""
        characters = VoiceCharacters.load(folder)
        network, _ = build(read_config(folder), Checkpoint(folder), torch.float32)
        assert isinstance(network, Vits)
        known, vocab = max(characters.ids.values()), network.config.text.vocab
        if known >= vocab:
            raise ConjureError(f"{folder / 'vocab.json'}: expected ids below {vocab}, got {known}",
                               hint="the characters belong to another model")  # fmt: skip
        return cls(network, characters)

    def left_out(self, text: str) -> str:
        """The characters that the voice does not know, each once."""
        return self.characters.known(text)[1]

    def say(
        self, text: str, seed: int, *, speaker: int = 0, speed: float | None = None, noise: float | None = None,
        duration_noise: float | None = None,
    ) -> Floats:  # fmt: skip
        """No sample where nothing of the text can be read."""
        ids = self.characters.encode(text)
        if not ids:
            return np.zeros(0, np.float32)
        made = self.network.speak(
            ids, Noise([seed]), speaker=speaker, speed=speed, noise=noise, duration_noise=duration_noise
        )
        return made.numpy()
