"""SpeechT5: one network that recognises, speaks or converts, by what stands in front of it and behind it (Ao et al.
2021, arXiv 2110.07205).

An encoder reads text or hears a wave; a decoder writes text, or frames of a mel spectrogram, two a step, in the voice
that a vector of a speaker stands for. What comes into the decoder of frames is always thinned out at random (Shen et
al. 2017, arXiv 1712.05884, 2.2), so the same text sounds a little different with every seed.

Legend: B rows, M tokens or frames read, F mel frames, S mel bands, D width, E width of a speaker's vector, U units.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.speecht5_encoder import ScaledPlaces, SpeechT5Encoder, SpeechT5EncoderConfig
from conjure.models.transformer import Block, Transformer, TransformerConfig
from conjure.nn.cache import Cache
from conjure.nn.linear import Linear

Keep = Callable[[int], Tensor]
"""How many units -> bool `[U]`, those that are kept, others each time."""


@dataclass(frozen=True, kw_only=True)
class SpeechT5Config:
    encoder: SpeechT5EncoderConfig
    decoder: TransformerConfig
    """With a vocabulary it writes text, without it frames."""
    bands: int = 80
    together: int = 2
    """Frames that are written in one step."""
    in_layers: int = 2
    in_units: int = 256
    kept: float = 0.5
    """Chance of each unit to be kept."""
    out_layers: int = 5
    out_units: int = 256
    out_kernel: int = 5
    speaker: int = 512
    """Width of a speaker's vector."""
    steps: int = 4000
    """Steps that it can write."""
    start: int = 2
    """The id before the first of a text."""
    end: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.kept < 1:
            raise ConjureError(f"SpeechT5: expected a chance between 0 and 1 to keep a unit, got {self.kept:g}")
        if self.out_kernel % 2 == 0:
            raise ConjureError(f"SpeechT5: expected an odd kernel behind the decoder, got {self.out_kernel}")


class FramesIn(nn.Module):
    """The last frame that was written, and who speaks -> what the decoder reads."""

    def __init__(self, config: SpeechT5Config) -> None:
        super().__init__()
        c, dim = config, config.decoder.dim
        self.kept = c.kept
        widths = [c.bands, *[c.in_units] * c.in_layers]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))
        self.last, self.places = Linear(c.in_units, dim), ScaledPlaces(dim)
        self.speaker = Linear(dim + c.speaker, dim)

    def forward(self, frame_1S: Tensor, step: int, speaker_E: Tensor, keep: Keep) -> Tensor:
        """`[1, 1, D]`"""
        h = frame_1S
        for layer in self.layers:
            h = F.relu(layer(h))
            h = torch.where(keep(h.shape[-1]), h, 0) / (1 - self.kept)
        h = self.places(self.last(h)[None], step)
        own_11E = F.normalize(speaker_E, dim=-1)[None, None]
        return F.relu(self.speaker(torch.cat([h, own_11E], dim=-1)))


class Smoothing(nn.Module):
    """A convolution over frames, and a norm by what was measured in training."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
        self.weight, self.bias = nn.Parameter(torch.ones(channels_out)), nn.Parameter(torch.zeros(channels_out))
        self.register_buffer("mean", torch.zeros(channels_out))
        self.register_buffer("variance", torch.ones(channels_out))

    def forward(self, x_BSF: Tensor) -> Tensor:
        """`[B, S, F] -> [B, S', F]`"""
        h = self.convolution(x_BSF)
        return F.batch_norm(h, self.mean, self.variance, self.weight, self.bias, training=False)  # type: ignore[arg-type]


class FramesOut(nn.Module):
    """From the decoder's states: frames, whether it is over, and all frames once more, made smooth."""

    def __init__(self, config: SpeechT5Config) -> None:
        super().__init__()
        c, self.bands = config, config.bands
        self.frames, self.over = Linear(c.decoder.dim, c.bands * c.together), Linear(c.decoder.dim, c.together)
        widths = [c.bands, *[c.out_units] * (c.out_layers - 1), c.bands]
        self.layers = nn.ModuleList(Smoothing(a, b, c.out_kernel) for a, b in itertools.pairwise(widths))

    def forward(self, x_D: Tensor) -> tuple[Tensor, float]:
        """(the next frames `[together, S]`, the sum of the chances that each of them is the last)."""
        return self.frames(x_D).view(-1, self.bands), float(self.over(x_D).sigmoid().sum())

    def smooth(self, mel_FS: Tensor) -> Tensor:
        """`[F, S] -> [F, S]`"""
        h = mel_FS.mT[None]
        for n, layer in enumerate(self.layers):
            h = layer(h) if n == len(self.layers) - 1 else torch.tanh(layer(h))
        return mel_FS + h[0].mT


class SpeechT5(nn.Module):
    """One text or one sound at a time."""

    def __init__(self, config: SpeechT5Config) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = SpeechT5Encoder(config.encoder), Transformer(config.decoder)
        writes = bool(config.decoder.vocab)
        self.frames_in, self.frames_out = (None, None) if writes else (FramesIn(config), FramesOut(config))

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.decoder.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.decoder.compute_dtype = dtype

    def cache(self, memory_1MD: Tensor, capacity: int) -> Cache:
        """What the decoder has written and read so far: nothing, and all of the encoder's states."""
        cache = self.decoder.cache(1, capacity)
        for block in self.decoder.blocks:
            assert isinstance(block, Block) and block.cross is not None
            cache.memory.append(block.cross.read(memory_1MD))
        return cache

    @torch.inference_mode()
    def write(self, memory_1MD: Tensor, most: int) -> tuple[list[int], list[float]]:
        """(the likeliest ids, one after the other, without the end; the log-probability of each, the end's too where it
        came), at most `most`."""
        c = self.config
        cache, ids, chances = self.cache(memory_1MD, most + 1), [c.start], list[float]()
        while len(ids) <= most:
            logits_V = self.decoder(torch.tensor([ids[-1:]]), cache=cache, last_only=True)[0, -1]
            chance, token = logits_V.log_softmax(-1).max(-1)
            chances.append(float(chance))
            if int(token) == c.end:
                break
            ids.append(int(token))
        return ids[1:], chances

    @torch.inference_mode()
    def speak(
        self, memory_1MD: Tensor, speaker_E: Tensor, keep: Keep, *, over: float = 0.5, longest: float = 20.0
    ) -> tuple[Tensor, bool]:
        """(mel frames `[F, S]`, whether it came to an end by itself). It ends where the chances of that sum to `over`,
        and at `longest` frames for each state that was read."""
        assert self.frames_in is not None and self.frames_out is not None
        c = self.config
        most = max(1, min(int(memory_1MD.shape[1] * longest / c.together), c.steps))
        cache, frame_1S, made, ended = self.cache(memory_1MD, most), torch.zeros(1, c.bands), list[Tensor](), False
        while len(made) < most and not ended:
            x_11D = self.frames_in(frame_1S, len(made), speaker_E, keep)
            frames, chance = self.frames_out(self.decoder.hidden(embedded=x_11D, cache=cache)[0, 0])
            made.append(frames)
            frame_1S, ended = frames[-1:], chance >= over
        return self.frames_out.smooth(torch.cat(made)), ended
