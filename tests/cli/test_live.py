from __future__ import annotations

import io
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conjure import media
from conjure.cli.main import call
from conjure.cli.render import Follower
from conjure.codecs.voice_activity import Floats, VoiceActivity
from conjure.core.events import Delta, Event, Preview
from conjure.media.captions import Segment
from conjure.tasks.table import Edge
from conjure.tasks.transcript import Listened, transcripts
from tests import stand_ins
from tests.cli.test_make import Capture
from tests.tasks.test_transcript import RATE, Plain, talk


class Hears:
    """Writes how many seconds each phrase has."""

    Options = Plain
    long = True

    @classmethod
    def load(cls, folder: Path) -> Hears:
        return cls()

    def generate(self, inputs: Sequence[Any], options: Plain, seeds: Sequence[int]) -> Iterator[Event]:
        def read(samples_N: Floats, seed: int, voice: VoiceActivity | None) -> Iterator[tuple[list[Segment], float]]:
            seconds = len(samples_N) / RATE
            yield [Segment(0, seconds, f"{round(seconds)}")], seconds

        yield from transcripts(inputs, Listened(read=read, rate=RATE, name="", voice=VoiceActivity()), options, seeds)


EDGE = Edge(("audio",), "text", "transcribe", "tests.cli.test_live:Hears", "starter/daub", "hears", made_by=("draw",))


@pytest.fixture
def heard(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stand_ins, "EDGES", (*stand_ins.EDGES, EDGE))
    return workshop


def wav(seconds: float) -> bytes:
    data = (talk(seconds) * 32767).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<I", 16) + form + b"data\xff\xff\xff\xff" + data


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_pipe_is_written_down_as_it_comes(heard: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, wav(10))
    assert call(["make", "-", "--live", "--no-history"]) == 0
    assert capsys.readouterr().out.split() == ["2", "2", "1"]
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def test_into_a_file_with_its_record(heard: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, wav(6))
    assert call(["make", "-", "--live", "-o", "talk.md", "--no-history"]) == 0
    assert str(media.read("talk.md")).split() == ["2", "1"]
    its = media.read_provenance("talk.md")
    assert its is not None and its.inputs[0]["name"] == "stdin" and its.inputs[0]["digest"].startswith("sha256:")


def test_what_is_no_sound_is_refused(heard: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, b"hello")
    assert call(["make", "-", "--live"]) == 2
    assert "expected sound in WAV" in capsys.readouterr().err


def test_without_a_pipe_the_microphone_is_taken(heard: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert call(["make", "--live"]) == 2
    assert "sounddevice" in capsys.readouterr().err


def test_other_tasks_need_all_of_it(heard: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hears, "long", False)
    piped(monkeypatch, wav(1))
    assert call(["make", "-", "--live"]) == 2
    assert "fits into memory" in capsys.readouterr().err


def test_a_long_file_is_read_from_where_it_lies(
    heard: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = media.Audio(talk(10)[None], RATE)
    (heard / "talk.flac").write_bytes(media.encode(sound, ".flac"))
    monkeypatch.setenv("CONJURE_MAX_SECONDS", "5")
    monkeypatch.setenv("CONJURE_HISTORY", str(heard / "history"))
    assert call(["make", "talk.flac", "-o", "talk.txt"]) == 0
    assert (heard / "talk.txt").read_text().split() == ["10"]
    assert "not kept in the history" in capsys.readouterr().err


def test_what_is_being_said_is_shown_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            return super().write(text)

        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    follow = Follower(text=shown, live=True)
    for event in (Preview(lambda: media.Text("so it")), Preview(lambda: media.Text("so it is")), Delta("So it is.")):
        follow(event)
    assert shown.getvalue() == "so it\x1b[5D\x1b[Kso it is\x1b[8D\x1b[KSo it is."
    follow(Preview(lambda: media.Text("x" * 100)))
    assert shown.getvalue().endswith("So it is." + "x" * 30)  # to the end of the line, which has 40 columns
