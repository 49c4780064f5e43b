"""Tasks that hear, translate and speak without a network, in place of the table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core import paths
from conjure.core.events import Delta, Event, Progress, Result
from conjure.media import Text
from conjure.media.audio import Audio
from conjure.media.captions import Format, Segment, written
from conjure.tasks import table
from conjure.tasks.table import Edge
from tests.conftest import write_model

SAID = (Segment(0.5, 2.0, "Good morning."), Segment(2.5, 61.25, "Tea & toast"))


@dataclass(frozen=True, kw_only=True)
class HearOptions:
    format: Format = Field(default="txt", description="how it is laid out")
    language: str = Field(default="", description="what is spoken")


@dataclass(frozen=True, kw_only=True)
class TurnOptions:
    target: str = Field(default="", description="into which language")
    source: str = Field(default="", description="from which language")
    shout: bool = Field(default=False, description="in capitals")
    joined: bool = Field(default=False, description="all lines become one, as some models do")


@dataclass(frozen=True, kw_only=True)
class SayOptions:
    speed: float = Field(default=1.0, description="how fast")


class Hear:
    Options = HearOptions

    @classmethod
    def load(cls, folder: Path) -> Hear:
        return cls()

    def generate(self, inputs: Sequence[Audio], options: HearOptions, seeds: Sequence[int]) -> Iterator[Event]:
        yield Delta("Good")
        yield Result([Text(written(SAID, options.format)) for _ in seeds], {})


class Turn:
    """Writes the language behind each line."""

    Options = TurnOptions

    @classmethod
    def load(cls, folder: Path) -> Turn:
        return cls()

    def generate(self, inputs: Sequence[Text], options: TurnOptions, seeds: Sequence[int]) -> Iterator[Event]:
        yield Progress(1, 1, "passage")
        way = f"{options.source}>{options.target}"
        lines = [f"{line} <{way}>" if line else "" for line in str(inputs[-1]).split("\n")]
        made = (" " if options.joined else "\n").join(lines)
        yield Delta(made)
        yield Result([Text(made.upper() if options.shout else made) for _ in seeds], {})


class Say:
    """As many samples as letters."""

    Options = SayOptions

    @classmethod
    def load(cls, folder: Path) -> Say:
        return cls()

    def generate(self, inputs: Sequence[Text], options: SayOptions, seeds: Sequence[int]) -> Iterator[Event]:
        sound = Audio(np.zeros((1, len(str(inputs[0]))), np.float32), 8000)
        yield Result([sound for _ in seeds], {})


def edges() -> tuple[Edge, ...]:
    here = "tests.tasks.interpreters"
    return (
        Edge(("text",), "text", "continue", "tests.stand_ins:Parrot", "starter/parrot", "says it again"),
        Edge(("text",), "text", "translate", f"{here}:Turn", "starter/turner", "translates", several=True),
        Edge(("audio",), "text", "transcribe", f"{here}:Hear", "starter/hearer", "hears", made_by=("hear",)),
        Edge(("text",), "music", "compose", f"{here}:Hear", "starter/composer", "composes"),
        Edge(("music",), "audio", "play", f"{here}:Say", "", "plays", by_rule=True),
        Edge(("text",), "audio", "speak", f"{here}:Say", "starter/sayer", "speaks"),
    )


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table, a model for each task, and an empty current folder with `talk.wav` and `letter.txt` in it; returns
    where the models are."""
    starters, work = folder / "starters", folder / "work"
    works = {"parrot": "continue", "turner": "translate", "hearer": "transcribe", "sayer": "speak",
             "composer": "compose"}  # fmt: skip
    for name, task in works.items():
        write_model(starters / name, task=task)
    know(starters / "turner", "en", "es")
    monkeypatch.setattr(paths, "starters_dir", lambda: starters)
    for name in ("CONJURE_CACHE", "HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.setenv(name, str(folder / "cache"))
    monkeypatch.setattr(table, "TABLE", edges())
    monkeypatch.setattr(table, "plugins", lambda: ())
    work.mkdir()
    monkeypatch.chdir(work)
    Audio(np.zeros((1, 800), np.float32), 8000).save("talk.wav")
    (work / "letter.txt").write_text("Dear Tom,\n\ncome soon.\n")
    return starters


def know(folder: Path, *codes: str) -> None:
    """The model in the folder says that it knows these languages."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"languages": list(codes)}))
