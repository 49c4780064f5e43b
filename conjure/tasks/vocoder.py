"""audio -> audio: through a mel spectrogram and back. Trains the vocoder that a voice carries.

Legend: B batch, M mel bands, T frames, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.log_mel import log_mel
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.core.seeds import derive, rng
from conjure.data.read_sentences import ReadData, ReadSentences
from conjure.media.audio import Audio
from conjure.metrics.confidence import bootstrap_mean
from conjure.models.folder import read_config, save_weights, write_config
from conjure.models.istft_vocoder import Vocoder, VocoderConfig, spectral_loss
from conjure.models.speech_folder import load_vocoder

LOUDNESS = (0.3, 1.2)
"""Examples are made quieter or louder by a factor between these."""


@dataclass(frozen=True, kw_only=True)
class VocodeOptions:
    """None: there is nothing to choose."""


class Vocode:
    """Trains the vocoder on the teacher's sentences, and sends any sound through its mel spectrogram."""

    Options = VocodeOptions
    ModelConfig = VocoderConfig
    DataConfig = ReadData
    sets = ("ljspeech_text",)
    causal = False

    def __init__(self, network: Vocoder, data: ReadData, *, source: ReadSentences | None = None, seed: int = 0) -> None:
        self.network, self.data, self.source, self.seed = network, data, source, seed
        self.mel = network.config.mel

    @classmethod
    def create(cls, model: VocoderConfig, data: ReadData, seed: int = 0) -> Vocode:
        source = ReadSentences("train", data.texts, seed)
        with randomness.drawing_weights(seed):
            network = Vocoder(model)
        return cls(network, data, source=source, seed=seed)

    @classmethod
    def load(cls, folder: Path) -> Vocode:
        """A vocoder's own folder, or the folder of a voice."""
        saved = read_config(folder)
        data = saved["data"] if saved.get("kind") == "vocoder" else {}
        return cls(load_vocoder(folder), from_dict(ReadData, data, where="data"))

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`samples` float32 `[B, N]`: a crop of each sentence."""
        assert self.source is not None
        rows = []
        for index in indices:
            draw = rng(derive(self.seed, "crop", index))
            samples = self.source.example(index)[1].samples
            at = int(draw.integers(max(1, len(samples) - self.crop)))
            rows.append(_floats(samples[at : at + self.crop], self.crop) * np.float32(draw.uniform(*LOUDNESS)))
        return {"samples": torch.from_numpy(np.stack(rows))}

    @property
    def crop(self) -> int:
        """Samples of an example."""
        return self.data.frames * self.mel.hop

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum of `spectral_loss`, number of crops)."""
        called, wanted_BN = self.network if network is None else network, batch["samples"]
        loss_B = spectral_loss(called(log_mel(wanted_BN, self.mel)), wanted_BN, self.mel)
        return loss_B.sum(), torch.tensor(len(loss_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return batch["samples"].numel() // self.mel.hop

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward, three times the forward pass; the transforms are small beside it."""
        return 3 * self.network.flops(self.tokens(batch))

    def describe(self, batch: dict[str, Tensor]) -> str:
        return f"{len(batch['samples'])} crops of {self.crop / self.mel.rate:.1f} s; every spectrum carries loss"

    def preview(self, seed: int) -> dict[str, Audio]:
        """A held-out sentence that went through."""
        held = ReadSentences("val")
        samples_N = _floats(held[seed % len(held)][1].samples)
        return {"sentence": self._audio(samples_N)}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Over held-out sentences: `spectral_loss` and the mean distance of log-mel spectrograms, in nepers."""
        found = self._measured(limit)
        return {"loss": float(np.mean([loss for loss, _ in found])), "mel": float(np.mean([mel for _, mel in found]))}

    def _measured(self, limit: int | None, tell: Callable[[Event], None] | None = None) -> list[tuple[float, float]]:
        held, found = ReadSentences("val"), []
        count = min(limit or len(held), len(held))
        for index in range(count):
            wanted_N = torch.from_numpy(_floats(held[index][1].samples))
            wanted_N = wanted_N[: len(wanted_N) // self.mel.hop * self.mel.hop]
            mel_MT = log_mel(wanted_N, self.mel)
            got_N = self.network.whole(mel_MT)
            apart = (log_mel(got_N, self.mel) - mel_MT).abs().mean()
            found.append((float(spectral_loss(got_N[None], wanted_N[None], self.mel)), float(apart)))
            if tell:
                tell(Progress(index + 1, count, "sentence"))
        return found

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="vocoder", task="vocoder", network=self.network,
                     sections={"vocoder": to_dict(self.network.config), "data": to_dict(self.data)})
        save_weights(folder, "vocoder", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    def _audio(self, samples_N: np.ndarray) -> Audio:
        out_N = self.network.whole(log_mel(torch.from_numpy(samples_N), self.mel))
        return Audio(out_N.clamp(-1, 1).numpy()[None], self.mel.rate)

    def generate(self, inputs: Sequence[Audio], options: VocodeOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """Every seed gives the same sound, mono at the model's rate."""
        if len(inputs) != 1 or inputs[0].kind != "audio":
            raise ConjureError(f"expected one sound, got {len(inputs)} inputs")
        sound = Audio(inputs[0].mono()[None], inputs[0].rate).at(self.mel.rate)
        yield Progress(0, 1, "sound")
        made = self._audio(sound.samples[0])
        yield Progress(1, 1, "sound")
        yield Result([made] * len(seeds))

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """The distance of log-mel spectrograms over held-out sentences of the teacher."""
        value, low, high = bootstrap_mean([mel for _, mel in self._measured(None, on_progress)], seed=0)
        return {"mel": {"value": value, "low": low, "high": high, "n": len(ReadSentences("val")),
                        "protocol": "mean distance of log-mel spectrograms in nepers, held-out sentences of the "
                                    "teacher (synthetic speech); 95 % bootstrap"}}  # fmt: skip


def _floats(samples: np.ndarray, size: int = 0) -> np.ndarray:
    """int16 as float32 within -1 to 1, with silence behind it up to `size`."""
    out = samples.astype(np.float32) / 32768
    return np.pad(out, (0, size - len(out))) if len(out) < size else out
