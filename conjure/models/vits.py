"""VITS: text to a wave in one network (Kim et al. 2021, arXiv 2106.06103); MMS-TTS (Pratap et al. 2023, arXiv
2305.13516) is VITS over the characters of a language.

A transformer reads, durations are drawn, each character's latents are repeated for as long as it sounds, a flow makes
them sound, HiFi-GAN turns them into a wave.

Legend: T characters, F frames, L width of the latents, E width of a speaker's embedding, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.vits_durations import RandomDurations, SteadyDurations, VitsDurationsConfig
from conjure.models.vits_flow import VitsFlow, VitsFlowConfig
from conjure.models.vits_text import VitsText, VitsTextConfig
from conjure.nn.vocoding import HifiGan, HifiGanConfig

LONGEST = 120.0
"""Seconds that one text may sound: more is a fault of the durations, and would fill the memory."""

Draw = Callable[[tuple[int, ...]], Tensor]
"""Normal noise `[1, *shape]`, another each time: `core.seeds.Noise`."""


@dataclass(frozen=True, kw_only=True)
class VitsConfig:
    text: VitsTextConfig
    durations: VitsDurationsConfig = field(default_factory=VitsDurationsConfig)
    flow: VitsFlowConfig = field(default_factory=VitsFlowConfig)
    decoder: HifiGanConfig
    rate: int = 16_000
    """Samples a second."""
    speakers: int = 1
    speaker: int = 0
    """Width of a speaker's embedding."""
    speed: float = 1.0
    noise: float = 0.667
    """Deviation of the latents' noise; 0: always the same sound."""
    duration_noise: float = 0.8

    def __post_init__(self) -> None:
        if self.speakers > 1 and not self.speaker:
            raise ConjureError(f"VITS: {self.speakers} speakers take an embedding, its width is 0")


class Vits(nn.Module):
    """One text at a time."""

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        self.config = config
        self.text = VitsText(config.text)
        self.durations = (RandomDurations if config.durations.random else SteadyDurations)(config.durations)
        self.flow = VitsFlow(config.flow)
        self.decoder = HifiGan(config.decoder)
        self.speakers = nn.Embedding(config.speakers, config.speaker) if config.speakers > 1 else None

    def speaker(self, number: int) -> Tensor | None:
        """A speaker's embedding `[1, E, 1]`; None where there is one voice alone."""
        if not 0 <= number < self.config.speakers:
            most = self.config.speakers - 1
            known = f"knows the speakers 0 to {most}" if most else "has one voice alone, speaker 0"
            raise ConjureError(f"this model {known}, not {number}")
        return None if self.speakers is None else self.speakers.weight[number][None, :, None]

    @torch.inference_mode()
    def speak(
        self, ids: Sequence[int], draw: Draw, *, speaker: int = 0, speed: float | None = None,
        noise: float | None = None, duration_noise: float | None = None,
    ) -> Tensor:  # fmt: skip
        """A text as samples `[N]` at `config.rate`. What is not given is as the model's files say.

        Raises `ConjureError` for a speaker that is not there, and where the durations run away.
        """
        c, own_1E1 = self.config, self.speaker(speaker)
        states_1DT, mean_1LT, deviation_1LT = self.text(torch.tensor([list(ids)]))
        wide = c.duration_noise if duration_noise is None else duration_noise
        start = draw((2, states_1DT.shape[-1])) * wide if c.durations.random else None
        log_T = self.durations(states_1DT, own_1E1, start)[0]
        frames_T = torch.ceil(log_T.exp() * (1 / (c.speed if speed is None else speed)))
        self._bounded(frames_T)
        mean_1LF, deviation_1LF = (
            each.repeat_interleave(frames_T.long(), dim=-1) for each in (mean_1LT, deviation_1LT)
        )
        spread = deviation_1LF.exp() * (c.noise if noise is None else noise)
        latents_1LF = mean_1LF + draw(tuple(mean_1LF.shape[1:])) * spread
        return self.decoder(self.flow.inverse(latents_1LF, own_1E1), own_1E1)[0]

    def _bounded(self, frames_T: Tensor) -> None:
        seconds = float(frames_T.sum()) * self.config.decoder.hop / self.config.rate
        if not seconds <= LONGEST:  # also where it is no number
            raise ConjureError(
                f"the voice would take {seconds:.3g} s for {len(frames_T)} characters, at most {LONGEST:g} s are made",
                hint="give the text in shorter sentences, or a higher --speed",
            )
