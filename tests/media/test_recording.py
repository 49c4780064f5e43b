from __future__ import annotations

import io
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conjure import media
from conjure.core.errors import ConjureError
from conjure.media import recording
from conjure.media.audio import Audio
from conjure.media.recording import Live, Recording, from_microphone, from_pipe

RATE = 8000
WAVE = np.sin(np.arange(3 * RATE) / 7).astype(np.float32) * 0.5


def wav(samples_NC: np.ndarray, coding: int, bits: int, *, claimed: int = 0xFFFFFFFF, more: bytes = b"") -> io.BytesIO:
    """As programs write it that do not know how long it will be."""
    channels = samples_NC.shape[1]
    if bits == 24:
        data = (np.rint(samples_NC * (2**23 - 1)).astype("<i4")[..., None].view(np.uint8)[..., :3]).tobytes()
    elif coding == 3:
        data = samples_NC.astype("<f4").tobytes()
    else:
        data = np.rint(samples_NC * (2 ** (bits - 1) - 1)).astype(f"<i{bits // 8}").tobytes()
    form = struct.pack("<HHIIHH", coding, channels, RATE, RATE * channels * bits // 8, channels * bits // 8, bits)
    return io.BytesIO(b"RIFF" + struct.pack("<I", claimed) + b"WAVE" + more + b"fmt " + struct.pack("<I", len(form))
                      + form + b"data" + struct.pack("<I", claimed) + data)  # fmt: skip


def all_of(live: Live, rate: int = RATE) -> np.ndarray:
    return np.concatenate(list(live.blocks(rate, 0.25)))


@pytest.mark.parametrize(("coding", "bits"), [(1, 16), (1, 24), (1, 32), (3, 32)])
def test_a_pipe_is_heard_whatever_its_samples_are(coding: int, bits: int) -> None:
    live = from_pipe(wav(WAVE[:, None], coding, bits))
    assert live.rate == RATE and live.seconds is None and live.kind == "audio"
    np.testing.assert_allclose(all_of(live), WAVE, atol=2e-4 if bits == 16 else 1e-6)


def test_channels_are_mixed_and_other_parts_of_the_file_passed_over() -> None:
    both = np.stack([WAVE, np.zeros_like(WAVE)], axis=1)
    made = all_of(from_pipe(wav(both, 3, 32, more=b"LIST" + struct.pack("<I", 3) + b"abc\0")))
    np.testing.assert_allclose(made, WAVE / 2, atol=1e-6)


def test_another_rate_is_that_of_the_whole_sound() -> None:
    made, whole = all_of(from_pipe(wav(WAVE[:, None], 3, 32)), 16_000), Audio(WAVE[None], RATE).at(16_000).mono()
    assert len(made) == len(whole)
    np.testing.assert_allclose(made, whole, atol=1e-3)


def test_a_sample_that_was_cut_off_is_left_out() -> None:
    cut = io.BytesIO(wav(WAVE[:, None], 1, 16).getvalue()[:-1])
    assert len(all_of(from_pipe(cut))) == len(WAVE) - 1


def test_stop_ends_it_and_keeps_what_was_heard() -> None:
    live = Live(iter(np.split(WAVE, 6)), RATE)
    blocks = live.blocks(RATE, 0.5)
    first = next(blocks)
    live.stop()
    np.testing.assert_array_equal(np.concatenate([first, *blocks]), WAVE[: RATE // 2])


def test_its_digest_is_that_of_what_was_heard() -> None:
    one, other = (Live(iter(np.split(WAVE, parts)), RATE) for parts in (2, 6))
    all_of(one), all_of(other)
    assert one.digest() == other.digest() != Live(iter(()), RATE).digest()


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "WAV"), (b"no sound at all", "WAV"), (b"RIFF\xff\xff\xff\xffWAVEfmt ", "header"),
     (b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\xff", "header"),
     (b"RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff", "format"), (wav(WAVE[:, None], 1, 8).getvalue(), "bits")],
)  # fmt: skip
def test_what_is_no_wav_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ConjureError, match=said):
        from_pipe(io.BytesIO(data))


def test_samples_that_are_no_numbers_are_refused() -> None:
    bad = WAVE.copy()
    bad[5000] = np.nan
    with pytest.raises(ConjureError, match="no numbers"):
        all_of(from_pipe(wav(bad[:, None], 3, 32)))


def test_the_microphone_is_that_of_sounddevice(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def __init__(self, rate: int, size: int, callback: Callable[..., None], **_: object) -> None:
            self.rate, self.size, self.callback = rate, size, callback

        def __enter__(self) -> None:
            for part in np.split(WAVE, len(WAVE) // self.size):
                self.callback(part[:, None], self.size, None, None)

        def __exit__(self, *_: object) -> None: ...

    fake = types.ModuleType("sounddevice")
    fake.InputStream, fake.PortAudioError = Stream, OSError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    live = from_microphone(RATE)
    blocks = live.blocks(RATE, 0.25)
    np.testing.assert_array_equal(np.concatenate([next(blocks) for _ in range(4)]), WAVE[:RATE])


def test_without_sounddevice_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ConjureError, match="sounddevice") as caught:
        from_microphone()
    assert "pip install sounddevice" in caught.value.hint


def test_a_long_file_is_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "talk.flac"
    path.write_bytes(media.encode(Audio(WAVE[None], RATE), ".flac"))
    assert recording.recording(path) is None
    monkeypatch.setenv("CONJURE_MAX_SECONDS", "2")
    found = recording.recording(path)
    assert isinstance(found, Recording) and found.seconds == 3 and found.kind == "audio"
    np.testing.assert_allclose(np.concatenate(list(found.blocks(RATE, 1.0))), WAVE, atol=1e-4)
    assert found.digest().startswith("sha256:")
    with pytest.raises(ConjureError, match="3 seconds"):
        found.save(tmp_path / "copy.flac")
