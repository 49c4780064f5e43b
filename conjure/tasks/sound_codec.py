"""audio -> audio: any sound through a neural codec and back, by ours and by public ones. Trains ours.

Legend: B batch, C channels, N samples, T samples of a sentence, Q books.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.spectral_distance import mel_decibels
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.core.seeds import derive, rng
from conjure.data.speech_clips import DIGITS, HELD_SETS, RATE, READERS, ClipData, SpeechClips, as_audio, held
from conjure.data.teacher import SET
from conjure.media.audio import Audio
from conjure.metrics.bits import code_usage
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.sound_quality import si_sdr, stoi
from conjure.models.codec_folder import load_codec, load_public
from conjure.models.folder import read_config, save_weights, write_config
from conjure.models.istft_vocoder import spectral_loss
from conjure.models.sound_codes import SoundCodec, books_for
from conjure.models.speech_codec import SpeechCodec, SpeechCodecConfig
from conjure.tasks.codec_figures import SPEECH, WITH_TEXTS, understood, usage

FIRST = 64
"""Clips from which the first codes come."""
PIECE, CONTEXT = 60.0, 1.0
"""Seconds of a long sound that go through at once, and of its neighbours on either side."""
FEWER = 0.3
"""Share of training clips that use some of the books alone, so that each is good for something without the next."""
COMMITMENT = 0.25
"""Weight of the distance of vectors to their codes, beside that of spectra."""
QUIETEST = 1e-3
"""Loudness below which a clip counts as silence, and is not made louder for the loss."""


@dataclass(frozen=True, kw_only=True)
class CodecOptions:
    bandwidth: float = Field(default=0.0, ge=0, le=1000, description="kbit/s of a channel (0: all that the codec has)")


class Reconstruct:
    """Our own codec. `source` is there while it trains; a loaded one has none."""

    Options = CodecOptions
    ModelConfig = SpeechCodecConfig
    DataConfig = ClipData
    causal = False

    def __init__(self, network: SpeechCodec, data: ClipData, *, source: SpeechClips | None = None,
                 seed: int = 0) -> None:  # fmt: skip
        self.network, self.data, self.source, self.seed = network, data, source, seed
        self.sets = (READERS, *((DIGITS,) if data.digits else ()), SET)

    @classmethod
    def create(cls, model: SpeechCodecConfig, data: ClipData, seed: int = 0) -> Reconstruct:
        """A new codec, whose codes are what its encoder makes of the first clips."""
        if model.rate != RATE:
            raise ConjureError(f"model: the clips are at {RATE:,} Hz, the codec is for {model.rate:,} Hz")
        if round(data.seconds * RATE) % model.hop:
            raise ConjureError(f"data.seconds: expected whole frames of {model.hop / RATE:g} s, got {data.seconds:g}")
        with randomness.drawing_weights(seed):
            network = SpeechCodec(model)
        task = cls(network, data, source=SpeechClips(data, seed), seed=seed)
        network.start_from(task.batch(range(FIRST))["samples"])
        return task

    @classmethod
    def load(cls, folder: Path) -> Reconstruct:
        saved = read_config(folder)
        return cls(load_codec(folder), from_dict(ClipData, saved["data"], where="data"))

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`samples` float32 `[B, 1, N]`, and `books` int64 `[B]`: how many each may use."""
        assert self.source is not None
        books, all_books = [], self.network.config.books
        for index in indices:
            draw = rng(derive(self.seed, "books", index))
            few = draw.random() < FEWER
            books.append(int(draw.integers(1, all_books + 1)) if few else all_books)
        samples = np.stack([self.source.example(index) for index in indices])[:, None]
        return {"samples": torch.from_numpy(samples), "books": torch.tensor(books)}

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum over clips of the weighed distances, number of clips)."""
        true_B1N = batch["samples"]
        made_B1N, _, commitment_B = (self.network if network is None else network)(true_B1N, batch["books"])
        level_B1 = true_B1N[:, 0].square().mean(-1, keepdim=True).sqrt().clamp_min(QUIETEST)
        made_BN, true_BN = made_B1N[:, 0] / level_B1, true_B1N[:, 0] / level_B1
        loss_B = spectral_loss(made_BN, true_BN, self.network.config.mel)
        return (loss_B + COMMITMENT * commitment_B).sum(), torch.tensor(len(loss_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        """Codes."""
        return batch["samples"].numel() // self.network.config.hop * self.network.config.books

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(batch["samples"].numel())

    def describe(self, batch: dict[str, Tensor]) -> str:
        count, _, samples = batch["samples"].shape
        books = " ".join(map(str, batch["books"].tolist()))
        return f"{count} clips of {samples / RATE:g} s, coded by so many books: {books}; every sample carries loss"

    def preview(self, seed: int) -> dict[str, Audio]:
        """A sentence of a reader who was held out."""
        sounds = held("librispeech")
        made, _ = through(self.network, as_audio(sounds[seed % len(sounds)]), 0)
        return {"sentence": made}

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Over sentences of readers who were held out: dB between mel levels, SI-SDR, and the codes that occur in the
        first and in the last book."""
        rows, counts_QC = self._measured("librispeech", limit, understood=False)
        first, last = code_usage(counts_QC[0]), code_usage(counts_QC[-1])
        return {**{name: float(np.mean([row[name] for row in rows])) for name in ("mel_db", "si_sdr_db")},
                "codes_first": float(first.used), "codes_last": float(last.used), "perplexity_first": first.perplexity}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="speech_codec", task="sound_codec", network=self.network,
                     sections={"codec": to_dict(self.network.config), "data": to_dict(self.data)})
        save_weights(folder, "codec", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Audio], options: CodecOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """Every seed gives the same sound, at the codec's rate."""
        yield from reconstructed(self.network, inputs, options, seeds)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """SI-SDR, mel distance and STOI over whole held-out sentences, of people and of the teacher apart; words that a
        recogniser gets wrong before and after; and how the codes are used. `data` may name some of the sets."""
        found: dict[str, dict[str, Any]] = {}
        counts_QC = torch.zeros(self.network.config.books, self.network.config.codes)
        for name in [name for name in HELD_SETS if not data or name in data]:
            rows, more_QC = self._measured(name, None, tell=on_progress)
            counts_QC += more_QC
            for figure in ("si_sdr_db", "mel_db", "stoi"):
                values = [row[figure] for row in rows if math.isfinite(row[figure])]
                value, low, high = bootstrap_mean(values, seed=0)
                found[f"{figure}_{name}"] = {"value": value, "low": low, "high": high, "n": len(values),
                                             "protocol": f"mean over sentences, {SPEECH[name]}; 95 % bootstrap"}
            if name in WITH_TEXTS:
                found |= understood(self._back, name, on_progress)
        return found | usage(counts_QC)

    def _back(self, sound_T: np.ndarray) -> np.ndarray:
        return through(self.network, as_audio(sound_T), 0)[0].samples[0]

    @torch.no_grad()
    def _measured(
        self, name: str, limit: int | None, *, understood: bool = True, tell: Callable[[Event], None] | None = None
    ) -> tuple[list[dict[str, float]], Tensor]:
        """Figures of each sentence, and how often each code of each book occurs, `[Q, codes]`."""
        sounds, rows = held(name, limit), []
        counts_QC = torch.zeros(self.network.config.books, self.network.config.codes)
        for place, sound_T in enumerate(sounds):
            coded = self.network.encode(torch.from_numpy(sound_T)[None, None])
            made_T = self.network.decode(coded)[0, 0].numpy()
            for book, ids_T in enumerate(coded.parts[0][0]):
                counts_QC[book] += torch.bincount(ids_T, minlength=counts_QC.shape[1])
            rows.append(figures(made_T[None], sound_T[None], RATE))
            if understood:
                rows[-1]["stoi"] = stoi(made_T, sound_T, RATE)
            if tell:
                tell(Progress(place + 1, len(sounds), "sentence", name))
        return rows, counts_QC


class ReconstructPublic:
    """EnCodec and DAC from folders of the hub."""

    Options = CodecOptions

    def __init__(self, codec: SoundCodec) -> None:
        self.codec = codec

    @classmethod
    def load(cls, folder: Path) -> ReconstructPublic:
        return cls(load_public(folder))

    def generate(self, inputs: Sequence[Audio], options: CodecOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """Every seed gives the same sound, at the codec's rate."""
        yield from reconstructed(self.codec, inputs, options, seeds)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        raise ConjureError("a public codec has no published figures of ours",
                           hint="what a sound loses is said where it goes through: --task reconstruct")


def reconstructed(
    codec: SoundCodec, inputs: Sequence[Audio], options: CodecOptions, seeds: Sequence[int]
) -> Iterator[Event]:
    """The sound that comes back, and what it cost and lost."""
    if len(inputs) != 1 or inputs[0].kind != "audio":
        raise ConjureError(f"expected one sound, got {len(inputs)} inputs", hint="give them one after the other")
    sound, books = inputs[0].at(codec.config.rate), books_for(codec.config, options.bandwidth)
    yield Progress(0, max(1, round(sound.seconds)), "second")
    made, bits = through(codec, sound, books)
    facts = {
        "kilobits_per_second": round(bits / sound.seconds / 1000, 3), "books": books,
        **{name: round(value, 3) for name, value in figures(made.samples, sound.samples, sound.rate).items()},
    }  # fmt: skip
    yield Progress(max(1, round(sound.seconds)), max(1, round(sound.seconds)), "second")
    yield Result([made] * len(seeds), facts)


@torch.no_grad()
def through(codec: SoundCodec, sound: Audio, books: int) -> tuple[Audio, float]:
    """(what comes back, bits). A codec of one channel takes each channel for itself; one of two takes a mono sound
    twice. Long sounds go through in pieces that know a second of their neighbours, so memory is bounded."""
    c, x_CN = codec.config, torch.from_numpy(sound.samples)
    x_BCN = x_CN[:, None] if c.channels == 1 else x_CN.mean(0).expand(1, c.channels, -1)
    if c.channels == sound.channels:
        x_BCN = x_CN[None]
    samples, step, side = x_BCN.shape[-1], round(PIECE * c.rate), round(CONTEXT * c.rate)
    parts, bits = [], 0.0
    for start in range(0, samples, step):
        first, end = max(0, start - side), min(samples, start + step)
        coded = codec.encode(x_BCN[..., first : min(samples, end + side)], books)
        bits += len(x_BCN) * coded.bits(c.codes) * (end - start) / coded.samples
        parts.append(codec.decode(coded)[..., start - first : end - first])
    made_BCN = torch.cat(parts, -1)
    made_CN = made_BCN.flatten(0, 1)
    if len(made_CN) != sound.channels:
        made_CN = made_CN.mean(0, keepdim=True).expand(sound.channels, -1)
    return Audio(np.ascontiguousarray(made_CN.clamp(-1, 1).numpy(), np.float32), sound.rate), bits


def figures(made_CN: np.ndarray, true_CN: np.ndarray, rate: int) -> dict[str, float]:
    """SI-SDR in dB, the mean of the channels; and dB between mel levels, where the sound is long enough for them.

    What is no number (of silence, SI-SDR is none) is left out.
    """
    ratio = float(np.mean([si_sdr(made_N, true_N) for made_N, true_N in zip(made_CN, true_CN, strict=True)]))
    found = {"si_sdr_db": ratio} if math.isfinite(ratio) else {}
    if true_CN.shape[1] / rate >= 0.05:
        found["mel_db"] = float(mel_decibels(torch.from_numpy(made_CN), torch.from_numpy(true_CN), rate).mean())
    return found
