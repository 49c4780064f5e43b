"""music -> audio: a piece is played by our own synthesiser. No model takes part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.events import Event, Progress, Result
from conjure.media.audio import Audio
from conjure.media.synthesiser import rendered


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """How it is played."""

    rate: Literal[16000, 24000, 32000, 44100, 48000] = Field(default=32000, description="samples a second, in Hz")


class Play:
    """Plays notes. It is arithmetic: every seed gives the same."""

    Options = PlayOptions

    def generate(self, inputs: Sequence[Any], options: PlayOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """The same stereo sound for every seed."""
        (music,) = inputs
        samples_CT = rendered(music, options.rate)
        yield Progress(1, 1, "piece")
        made = Audio(samples_CT, options.rate)
        yield Result([made] * len(seeds), {"length": round(made.seconds, 3)})
