"""A voice with random weights, small, as a folder."""

from __future__ import annotations

from pathlib import Path

import torch

from conjure.codecs.pronunciation import Pronunciation
from conjure.core import seeds as randomness
from conjure.core.config import to_dict
from conjure.data.read_sentences import ReadData
from conjure.models.folder import save_weights, write_config
from conjure.models.istft_vocoder import Vocoder, VocoderConfig
from conjure.models.speaker import Speaker
from conjure.models.voice import Voice, VoiceConfig

VOICE = VoiceConfig(dim=16, heads=2, encoder_layers=1, hidden=24, prior_layers=1, dilations=(1, 2), frame_hidden=24)
VOCODER = VocoderConfig(dim=12, layers=1, hidden=16)
SOUNDS = {
    "hello": "hh ax l ow", "world": "w er l d", "cat": "k ae t", "cats": "k ae t s", "bat": "b ae t", "bit": "b ih t",
    "tab": "t ae b", "act": "ae k t", "the": "dh ax", "apple": "ae p ax l", "one": "w ah n", "two": "t uw",
}  # fmt: skip


def speaker(seed: int = 0) -> Speaker:
    with randomness.drawing_weights(seed):
        voice, vocoder = Voice(VOICE), Vocoder(VOCODER)
    with torch.no_grad():
        voice.ending.linear.weight.normal_(std=0.1, generator=randomness.generator(seed))
        dict(voice.named_parameters())["duration.2.bias"].fill_(1.2)  # about three frames
        vocoder.head.bias[: VOCODER.mel.fft // 2 + 1].fill_(-3.0)
    sounds = {word: phones.split() for word, phones in SOUNDS.items()}
    return Speaker(voice.eval().requires_grad_(False), vocoder.eval().requires_grad_(False),
                   Pronunciation.learnt(sounds))  # fmt: skip


def folder(path: Path, seed: int = 0) -> Path:
    made = speaker(seed)
    write_config(path, kind="voice", task="speak", network=made.voice, sections={
        "model": to_dict(VOICE), "data": to_dict(ReadData()), "vocoder": to_dict(VOCODER)})  # fmt: skip
    save_weights(path, "model", made.voice)
    save_weights(path, "vocoder", made.vocoder)
    made.pronunciation.save(path)
    return path
