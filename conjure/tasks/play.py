"""music -> audio: a piece is played by our own synthesiser or the instruments of a SoundFont. No model takes part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from conjure.core.events import Event, Progress, Result
from conjure.media.audio import Audio
from conjure.media.soundfont import SoundFont
from conjure.media.synthesiser import rendered
from conjure.tasks.inputs import LOCAL


def _number(value: Any) -> Any:
    """The command line says numbers as text, which a `Literal` of numbers does not take."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Rate = Annotated[Literal[16000, 24000, 32000, 44100, 48000], BeforeValidator(_number)]


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """How it is played."""

    rate: Rate = Field(default=32000, description="samples a second, in Hz")
    soundfont: str = Field(default="", json_schema_extra=LOCAL, description="SoundFont (.sf2) whose instruments play")


class Play:
    """Plays notes. It is arithmetic: every seed gives the same."""

    Options = PlayOptions

    def generate(self, inputs: Sequence[Any], options: PlayOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """The same stereo sound for every seed."""
        (music,) = inputs
        facts: dict[str, Any] = {}
        if options.soundfont:
            font = SoundFont(Path(options.soundfont).expanduser())
            samples_CT, facts["soundfont"] = font.rendered(music, options.rate), font.digest
        else:
            samples_CT = rendered(music, options.rate)
        yield Progress(1, 1, "piece")
        made = Audio(samples_CT, options.rate)
        yield Result([made] * len(seeds), {"length": round(made.seconds, 3), **facts})
