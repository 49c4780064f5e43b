"""speech -> speech: noise and the room around it taken away, and training the network that does it.

Sound is cleaned at 16 kHz. What lies above 8 kHz is kept, and made quieter by as much as the network makes the band
below it quieter at each moment.

Legend: B batch, C channels, N samples, T frames, F bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.data.noisy_speech import EFFECTS, NoisyData, NoisySpeech
from conjure.data.speech_clips import READERS, as_audio
from conjure.media.audio import Audio
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.speech_cleaner import COMPRESSED, LEVEL, RATE, CleanerConfig, SpeechCleaner, level
from conjure.tasks import enhance_figures as figures

PIECE = 16
"""Seconds of a long sound that are cleaned at once."""
UPPER = (5000.0, 7500.0)
"""Hz of the band by whose gain what lies above 8 kHz is made quieter."""
RATIO = 0.03
"""Weight of a decibel of signal to distortion beside the distance of spectrograms."""
BEST, WORST = 30.0, -30.0
"""dB beyond which the ratio of signal to distortion does not count."""
SHAKEN = 4.0
"""dB by which the level of training clips is off."""
FULL, FLAT = 0.999, 1e-3
"""A sound is clipped where more than this share of samples is at full scale."""


@dataclass(frozen=True, kw_only=True)
class EnhanceOptions:
    strength: float = Field(default=1.0, ge=0, le=1, description="how much of noise and room goes (0: nothing)")


class Enhance:
    """`source` is there while the network trains; a loaded one has none."""

    Options = EnhanceOptions
    ModelConfig = CleanerConfig
    DataConfig = NoisyData
    causal = False
    sets = (READERS, "ljspeech_text", EFFECTS)

    def __init__(self, network: SpeechCleaner, data: NoisyData, *, source: NoisySpeech | None = None,
                 seed: int = 0) -> None:  # fmt: skip
        self.network, self.data, self.source, self.seed = network, data, source, seed

    @classmethod
    def create(cls, model: CleanerConfig, data: NoisyData, seed: int = 0) -> Enhance:
        with randomness.drawing_weights(seed):
            network = SpeechCleaner(model)
        return cls(network, data, source=NoisySpeech(data, seed), seed=seed)

    @classmethod
    def load(cls, folder: Path) -> Enhance:
        saved = read_config(folder)
        network = SpeechCleaner(from_dict(CleanerConfig, saved["model"], where="model"))
        load_weights(network, folder / "model.safetensors")
        data = from_dict(NoisyData, saved["data"], where="data")
        return cls(network.eval().requires_grad_(False), data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`heard` and `clean` float32 `[B, N]`, at about `LEVEL`."""
        assert self.source is not None
        heard, clean = [], []
        for index in indices:
            heard_N, clean_N = self.source.example(index)
            shaken = 10 ** (randomness.rng(randomness.derive(self.seed, "level", index)).uniform(-SHAKEN, SHAKEN) / 20)
            scale = np.float32(shaken * LEVEL / max(level(heard_N), 1e-6))
            heard.append(heard_N * scale)
            clean.append(clean_N * scale)
        return {"heard": torch.from_numpy(np.stack(heard)), "clean": torch.from_numpy(np.stack(clean))}

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum over clips of the distance, number of clips)."""
        called = self.network if network is None else network
        heard_BN, clean_BN = batch["heard"], batch["clean"]
        made_BTF, _ = called(self.network.spectrogram(heard_BN))
        distance_B = spectral(made_BTF, self.network.spectrogram(clean_BN), self.network.spectrogram(heard_BN))
        ratio_B = ratio(self.network.sound(made_BTF, heard_BN.shape[-1]), clean_BN)
        return (distance_B - RATIO * ratio_B).sum(), torch.tensor(len(heard_BN))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        """Frames."""
        return batch["heard"].numel() // self.network.config.hop

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(batch["heard"].numel())

    def describe(self, batch: dict[str, Tensor]) -> str:
        count, samples = batch["heard"].shape
        noise_B = (batch["heard"] - batch["clean"]).square().mean(1)
        apart = 10 * torch.log10((batch["clean"].square().mean(1) + 1e-9) / (noise_B + 1e-9))
        listed = " ".join(f"{each:.0f}" for each in apart.tolist())
        return f"{count} clips of {samples / RATE:g} s, speech above noise and room by so many dB: {listed}"

    def preview(self, seed: int) -> dict[str, Audio]:
        """A sentence that was held out in noise, before and after."""
        heard = as_audio(figures.mixture("librispeech", seed % 4, 5.0)[0])
        return {"heard": heard, "clean": cleaned(self.network, heard)}

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """SI-SDR gained over held-out speech in noise of 5 dB, negative, and the same of the noisy sound."""
        rows = [row for name in ("librispeech", "teacher") for row in figures.rows(self.network, name, 5.0, limit)]
        return {"minus_si_sdr_gained": -float(np.mean([row["si_sdr_db"] - row["si_sdr_db_heard"] for row in rows])),
                "si_sdr_heard": float(np.mean([row["si_sdr_db_heard"] for row in rows]))}  # fmt: skip

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="speech_cleaner", task="enhance", network=self.network,
                     sections={"model": to_dict(self.network.config), "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Audio], options: EnhanceOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """Every seed gives the same sound, at its own rate, each channel for itself; speech is as loud as before."""
        if len(inputs) != 1:
            raise ConjureError(f"expected one sound, got {len(inputs)} inputs", hint="give them one after the other")
        sound = inputs[0]
        if not isinstance(sound, Audio):
            raise ConjureError("sound this long, or live, is not cleaned", hint="cut it into parts")
        yield from _words(sound)
        made_CN = np.empty_like(sound.samples)
        total = max(1, round(sound.seconds * sound.channels))
        for channel, samples_N in enumerate(sound.samples):
            for start, piece_N in pieces(self.network, samples_N, sound.rate, options.strength):
                made_CN[channel, start : start + len(piece_N)] = piece_N
                done = (start + len(piece_N)) / sound.rate + channel * sound.seconds
                yield Progress(min(total, round(done)), total, "second")
        power, left = (float(np.square(each, dtype=np.float64).mean()) for each in (sound.samples, made_CN))
        facts = {"decibels_quieter": round(10 * np.log10(power / left), 2)} if min(power, left) > 0 else {}
        yield Result([Audio(made_CN, sound.rate)] * len(seeds), facts)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """SI-SDR and STOI gained at 0, 5 and 10 dB and in rooms, over real and synthetic held-out speech apart; `data`
        may name some of the sets."""
        return figures.published(self.network, data, on_progress)


def spectral(made_BTF: Tensor, clean_BTF: Tensor, heard_BTF: Tensor) -> Tensor:
    """`[B]`: the squared distance of compressed spectrograms, of complex values and of magnitudes (as in Braun and
    Tashev, arXiv 2009.12286, equation 4), over the mean square of the noisy one."""
    (small, made), (wanted, clean), (heard, _) = map(_compressed, (made_BTF, clean_BTF, heard_BTF))
    apart_BTF = made - clean
    rest_BTF = 0.3 * (apart_BTF.real.square() + apart_BTF.imag.square()) + 0.7 * (small - wanted).square()
    return rest_BTF.mean((1, 2)) / heard.square().mean((1, 2)).clamp_min(1e-6)


def ratio(made_BN: Tensor, clean_BN: Tensor) -> Tensor:
    """`[B]`: signal to distortion in dB, level included, softly bounded by `BEST` and `WORST`; 0 where
    nobody speaks."""
    clean_B = clean_BN.square().sum(1)
    rest_B = (made_BN - clean_BN).square().sum(1) / clean_B.clamp_min(1e-9)
    bounded_B = rest_B / (1 + rest_B / 10 ** (-WORST / 10)) + 10 ** (-BEST / 10)
    return torch.where(clean_B > 1e-6, -10 * torch.log10(bounded_B), torch.zeros_like(clean_B))


def _compressed(value_BTF: Tensor) -> tuple[Tensor, Tensor]:
    magnitude_BTF = (value_BTF.real.square() + value_BTF.imag.square() + 1e-8).sqrt()
    small_BTF = magnitude_BTF**COMPRESSED
    return small_BTF, value_BTF * (small_BTF / magnitude_BTF)


# -- long sound, any rate --------------------------------------------------------------------------------------------


def cleaned(network: SpeechCleaner, sound: Audio, strength: float = 1.0) -> Audio:
    """The whole of a sound, each channel for itself."""
    made = [np.concatenate([piece_N for _, piece_N in pieces(network, samples_N, sound.rate, strength)])
            for samples_N in sound.samples]  # fmt: skip
    return Audio(np.stack(made), sound.rate)


def pieces(
    network: SpeechCleaner, samples_N: np.ndarray, rate: int, strength: float = 1.0
) -> Iterator[tuple[int, np.ndarray]]:
    """(where it begins, float32 `[n]`) of each piece of one channel.

    A piece knows as much of its neighbours as the network reaches, so cuts change nothing; memory is that of a piece.
    Silence comes back as it is.
    """
    loudness = level(samples_N, rate)
    if loudness == 0 or strength == 0:
        yield 0, samples_N
        return
    # Whole seconds, an even number of them: pieces then begin on a frame and on a sample of either rate.
    side = 2 * -(-(network.config.reach + network.config.window) // (2 * RATE))
    for start in range(0, len(samples_N), PIECE * rate):
        first, end = max(0, start - side * rate), min(len(samples_N), start + PIECE * rate)
        around_N = samples_N[first : min(len(samples_N), end + side * rate)]
        made_N = _clean(network, around_N, rate, loudness)[start - first : end - first]
        old_N = samples_N[start:end]
        yield start, np.clip(old_N + np.float32(strength) * (made_N - old_N), -1, 1)


def _clean(network: SpeechCleaner, samples_N: np.ndarray, rate: int, loudness: float) -> np.ndarray:
    """As many samples, clean, at the same rate."""
    low_N = _resampled(samples_N, rate, RATE)
    scale = LEVEL / loudness
    made_1N, gain_1TF = network.clean(torch.from_numpy(low_N * np.float32(scale))[None])
    back_N = _fitted(_resampled(made_1N[0].numpy() / np.float32(scale), RATE, rate), len(samples_N))
    if rate <= RATE:
        return back_N
    upper_N = samples_N - _fitted(_resampled(low_N, RATE, rate), len(samples_N))
    return back_N + upper_N * _upper_gain(network, gain_1TF[0].numpy(), len(samples_N), rate)


def _upper_gain(network: SpeechCleaner, gain_TF: np.ndarray, count: int, rate: int) -> np.ndarray:
    """float32 `[N]`: the mean gain of the band `UPPER`, in straight lines from the middle of a frame to the next."""
    first, last = (round(hertz / RATE * network.config.window) for hertz in UPPER)
    at_N = np.arange(count) * (RATE / rate / network.config.hop)  # frame k has its middle at sample k * hop
    return np.interp(at_N, np.arange(len(gain_TF)), gain_TF[:, first:last].mean(1)).astype(np.float32)


def _resampled(samples_N: np.ndarray, rate: int, to: int) -> np.ndarray:
    if rate == to:
        return samples_N
    import soxr

    found_N = np.asarray(soxr.resample(samples_N, rate, to, quality="HQ"), np.float32)
    return found_N if len(found_N) else samples_N[:1]


def _fitted(samples_N: np.ndarray, count: int) -> np.ndarray:
    """Resampling rounds lengths: cut, or silence added."""
    return np.pad(samples_N[:count], (0, max(0, count - len(samples_N))))


def _words(sound: Audio) -> Iterator[Event]:
    """What the user should know beforehand."""
    if sound.rate > RATE:
        yield Warn("what lies above 8 kHz is only made quieter, by as much as the band below it")
    for channel, samples_N in enumerate(sound.samples, 1):
        if level(samples_N, sound.rate) == 0:
            which = f"channel {channel}" if sound.channels > 1 else "the sound"
            yield Warn(f"{which} is silent and stays as it is")
    if float((np.abs(sound.samples) >= FULL).mean()) > FLAT:
        yield Warn("the sound is clipped: what was cut off is not brought back")
