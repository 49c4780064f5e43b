"""Files that are not what they should be."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from conjure import media
from conjure.core.errors import ConjureError
from conjure.media.audio import Audio, blocks, seconds_in
from conjure.media.sound_source import _readable, check_length

TIMES_T = np.arange(24_000) / 8000
WAVE_T = 0.3 * np.sin(2 * np.pi * 300 * TIMES_T) + 0.1 * np.sin(9000 * TIMES_T**2)
SOUND = Audio(WAVE_T[None].astype(np.float32), 8000)
FILES = {suffix: media.encode(SOUND, suffix) for suffix in (".wav", ".flac", ".mp3", ".ogg", ".opus")}


def wav(data: bytes, promised: int, rate: int = 8000, tag: int = 1, bits: int = 16) -> bytes:
    form = struct.pack("<HHIIHH", tag, 1, rate, rate * bits // 8 & 0xFFFFFFFF, bits // 8, bits)
    return (
        b"RIFF" + struct.pack("<I", min(promised + 36, 0xFFFFFFFF)) + b"WAVEfmt \x10\0\0\0" + form
        + b"data" + struct.pack("<I", promised) + data
    )  # fmt: skip


def flac_that_promises(seconds: int, rate: int = 8000) -> bytes:
    """A FLAC file of that length by its header, with nothing in it."""
    facts = rate << 44 | 0 << 41 | 15 << 36 | seconds * rate
    return b"fLaC\x80\0\0\x22" + struct.pack(">HH", 4096, 4096) + bytes(6) + facts.to_bytes(8, "big") + bytes(16)


# -- no sound --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".m4a"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"Dear all,\nthis is a letter.", "the content is text"),
        ("Grüße 中文".encode() * 20, "the content is text"),
        (bytes(100), "the content is something else"),
        (b"\xff\xfe" + "text".encode("utf-16-le") * 20, "the content is something else"),
        (media.encode(media.Image(np.zeros((2, 2, 3), np.uint8)), ".png"), "the content is a picture"),
    ],
)  # fmt: skip
def test_what_is_no_sound(tmp_path: Path, suffix: str, content: bytes, said: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: media.read(path), lambda: media.read_provenance(path), lambda: list(blocks(path, 8000)),
        lambda: seconds_in(path), lambda: media.read(content, kind="audio"),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(ConjureError, match=said):
            call()


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="no such file"):
        media.read(tmp_path / "a.wav")
    (tmp_path / "b.wav").mkdir()
    with pytest.raises(ConjureError, match="this is a folder"):
        media.read(tmp_path / "b.wav")


@pytest.mark.parametrize("content", [wav(b"", 0), wav(b"", 0xFFFFFFFF), wav(b"\0", 0)])
def test_a_file_without_samples(content: bytes) -> None:
    with pytest.raises(ConjureError, match="holds no sound"):
        media.read(content)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.flac")
    writer = threading.Thread(target=lambda: (tmp_path / "a.flac").write_bytes(FILES[".flac"]))
    writer.start()
    sound = media.read(tmp_path / "a.flac")
    writer.join()
    assert isinstance(sound, Audio)
    assert sound.seconds == 3


# -- cut off and damaged ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", list(FILES))
@pytest.mark.parametrize("share", [0.005, 0.3, 0.9])
def test_a_file_that_is_cut_off(tmp_path: Path, suffix: str, share: float) -> None:
    data = FILES[suffix]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data[: max(64, int(len(data) * share))])
    for call in (lambda: media.read(path), lambda: media.read(path.read_bytes()), lambda: list(blocks(path, 8000))):
        with pytest.raises(ConjureError, match="cut off") as caught:
            call()
        assert "copy it again" in caught.value.hint


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".opus"])
def test_blocks_give_what_is_whole_before_they_complain(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    long = media.encode(Audio(np.tile(SOUND.samples, 8), 8000), suffix)
    path.write_bytes(long[: int(len(long) * 0.8)])
    heard: list[np.ndarray] = []
    with pytest.raises(ConjureError, match="cut off"):
        heard.extend(blocks(path, 8000, 0.25))
    assert len(heard) >= 32


def test_a_header_that_promises_ten_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConjureError, match=r"cut off after 0\.0 of 36,000\.0 seconds"):
        media.read(wav(b"", 36_000 * 16_000))
    with pytest.raises(ConjureError, match="at most 7,200 seconds of sound, got 36,000"):
        media.read(flac_that_promises(36_000))
    monkeypatch.setenv("CONJURE_MAX_SECONDS", "40000")
    with pytest.raises(ConjureError, match="cut off"):
        media.read(flac_that_promises(36_000))


@pytest.mark.parametrize("promised", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_that_was_written_into_a_pipe_is_whole(promised: int) -> None:
    data = np.arange(800, dtype=np.int16).tobytes()
    sound = media.read(wav(data, promised))
    assert isinstance(sound, Audio)
    assert (sound.samples[0] * 32768).tolist() == list(range(800))


def test_a_seek_before_the_beginning_is_quiet() -> None:
    """Damaged files make libsndfile try it; an error there could only be printed."""
    with _readable(b"abc") as (file, length):
        assert length == 3
        assert (file.seek(-5), file.read(2)) == (0, b"ab")
        assert (file.seek(-9, io.SEEK_CUR), file.read()) == (0, b"abc")


@settings(max_examples=120)
@given(st.sampled_from(sorted(FILES)), st.integers(12, 400), st.binary(max_size=600), st.booleans())
def test_anything_behind_a_valid_beginning_is_read_or_refused(suffix: str, kept: int, rest: bytes, more: bool) -> None:
    data = FILES[suffix][:kept] + rest + (FILES[suffix][kept + len(rest) :] if more else b"")
    try:
        sound = media.read(data, kind="audio")
    except ConjureError as error:
        assert len(str(error)) < 1000
        return
    assert isinstance(sound, Audio)
    assert np.abs(sound.samples).max() <= 1


@settings(max_examples=60)
@given(st.sampled_from([b"RIFF\0\0\0\0WAVE", b"FORM\0\0\0\0AIFF", b"fLaC\0\0\0\x22", b"OggS\0\x02", b"\xff\xfb\x90\x64",
                        b"ID3\x03\0\0\0\0\0\0"]), st.binary(min_size=20, max_size=2000))  # fmt: skip
def test_random_bytes_behind_a_mark(mark: bytes, rest: bytes) -> None:
    try:
        sound = media.read(mark + rest, kind="audio")
    except ConjureError as error:
        assert len(str(error)) < 1000
    else:
        assert isinstance(sound, Audio)


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused_with_their_second(tmp_path: Path, wrong: float) -> None:
    samples = np.zeros((200_000, 2), np.float32)
    samples[100_000, 1] = samples[150_000, 0] = wrong
    soundfile.write(tmp_path / "a.wav", samples, 8000, "FLOAT")
    for call in (lambda: media.read(tmp_path / "a.wav"), lambda: list(blocks(tmp_path / "a.wav", 16_000, 1))):
        with pytest.raises(ConjureError, match=r"the sample at 12\.500 s is infinite or not a number"):
            call()


@pytest.mark.parametrize("rate", [0, 1, 999, 500_000, 4_000_000_000])
def test_rates_nobody_has(rate: int) -> None:
    with pytest.raises(ConjureError, match=r"samples a second|cut off or damaged"):
        media.read(wav(bytes(100), 100, rate))


def test_more_channels_than_anybody_has() -> None:
    out = io.BytesIO()
    soundfile.write(out, np.zeros((10, 33)), 8000, format="WAV")
    with pytest.raises(ConjureError, match="1 to 32 channels, got 33"):
        media.read(out.getvalue())


# -- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", list(FILES))
def test_the_bound_is_named_and_can_be_raised(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setenv("CONJURE_MAX_SECONDS", "2")
    with pytest.raises(ConjureError, match="at most 2 seconds of sound, got 3") as caught:
        media.read(FILES[suffix])
    assert "CONJURE_MAX_SECONDS" in caught.value.hint
    monkeypatch.setenv("CONJURE_MAX_SECONDS", "3")
    assert media.read(FILES[suffix]).kind == "audio"


def test_many_channels_count_for_more() -> None:
    check_length("a.wav", 48_000, 2, 48_000 * 7200)
    with pytest.raises(ConjureError, match="got as much as 21,600 hold"):
        check_length("a.wav", 48_000, 6, 48_000 * 7200)
    with pytest.raises(ConjureError, match="got 7,201"):
        check_length("a.wav", 8000, 1, 8000 * 7201)


# -- films -----------------------------------------------------------------------------------------------------------

FILM = b"\0\0\0\x1cftypisom\0\0\2\0" + bytes(50)


def test_films_need_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(FILM)
    with pytest.raises(ConjureError, match="PyAV, which is not installed") as caught:
        media.read(tmp_path / "a.mp4")
    assert caught.value.hint == "pip install av"
    assert media.read_provenance(tmp_path / "a.mp4") is None


class FFmpegFault(Exception):
    strerror = "Invalid data found"


def stand_in(frames: list[np.ndarray], *, streams: bool = True, fault: bool = False, seconds: float = 0.0) -> Any:
    """What of PyAV is used: planes of floats come out as they are."""
    stream = SimpleNamespace(rate=8000, channels=2, layout=SimpleNamespace(name="stereo"),
                             duration=int(seconds * 8000) or None, time_base=Fraction(1, 8000))  # fmt: skip

    def decode(_: object) -> Iterator[np.ndarray]:
        yield from frames
        if fault:
            raise FFmpegFault

    class Container(SimpleNamespace):
        def __enter__(self) -> Container:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    container = Container(duration=int(seconds * 1_000_000), streams=SimpleNamespace(audio=[stream] if streams else []),
                          decode=decode, format=SimpleNamespace(name="mov,mp4,m4a"))  # fmt: skip

    class Resampler:
        def __init__(self, **asked: object) -> None:
            assert asked == {"format": "fltp", "layout": "stereo", "rate": 8000}

        def resample(self, frame: np.ndarray | None) -> list[Any]:
            return [] if frame is None else [SimpleNamespace(to_ndarray=lambda: frame)]

    return SimpleNamespace(open=lambda _: container, FFmpegError=FFmpegFault, AudioResampler=Resampler,
                           time_base=1_000_000)  # fmt: skip


def test_the_sound_of_a_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [np.full((2, 1024), k / 10, np.float32) for k in range(8)]
    (tmp_path / "a.mp4").write_bytes(FILM)
    monkeypatch.setitem(sys.modules, "av", stand_in(frames, seconds=1.024))
    for source in (tmp_path / "a.mp4", FILM):
        sound = media.read(source)
        assert isinstance(sound, Audio)
        np.testing.assert_array_equal(sound.samples, np.concatenate(frames, 1))
    assert seconds_in(tmp_path / "a.mp4") == 1.024
    assert sum(map(len, blocks(tmp_path / "a.mp4", 16_000, 0.1))) == 2 * 8192
    assert media.read_provenance(tmp_path / "a.mp4") is None


@pytest.mark.parametrize(
    ("pretended", "said"),
    [
        ({"streams": False}, "holds no sound"),
        ({"fault": True}, "damaged: Invalid data found"),
        ({"seconds": 20.0}, r"cut off after 0\.1 of 20\.0 seconds"),
        ({"seconds": 8000.0}, "at most 7,200 seconds of sound"),
    ],
)
def test_films_that_are_damaged(monkeypatch: pytest.MonkeyPatch, pretended: dict[str, Any], said: str) -> None:
    monkeypatch.setitem(sys.modules, "av", stand_in([np.zeros((2, 1024), np.float32)], **pretended))
    with pytest.raises(ConjureError, match=said):
        media.read(FILM)
