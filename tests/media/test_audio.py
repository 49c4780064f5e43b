from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.provenance import Record
from conjure.media import audio, sound_source
from conjure.media.audio import Audio, blocks, seconds_in

RECORD = Record(
    version="0.1.0",
    task="text_to_speech",
    model="starter/voice",
    weights="sha256:ab",
    inputs=({"kind": "text", "text": 'Grün 中 "said"\n\x00', "digest": "sha256:00"},),
    options={"speed": 1.0},
    seeds=(3,),
)
SUFFIXES = [".wav", ".flac", ".mp3", ".ogg", ".opus"]


def tone(seconds: float = 0.5, rate: int = 16_000, channels: int = 1, pitch: float = 440.0) -> Audio:
    """A quiet tone per channel, each a fifth above the last, with a little noise."""
    time_T = np.arange(round(seconds * rate)) / rate
    noise_CT = np.random.default_rng(0).normal(0, 0.01, (channels, len(time_T)))
    tones = [0.3 * np.sin(2 * np.pi * pitch * 1.5**c * time_T) for c in range(channels)]
    return Audio((np.stack(tones) + noise_CT).astype(np.float32), rate)


def likeness(a_T: np.ndarray, b_T: np.ndarray) -> float:
    """Signal-to-noise ratio of b as a copy of a, in decibels."""
    return float(10 * np.log10((a_T**2).sum() / (((a_T - b_T) ** 2).sum() + 1e-20)))


# -- the value -------------------------------------------------------------------------------------------------------


def test_sizes_and_digest() -> None:
    sound = tone(0.5, 16_000, 2)
    assert (sound.kind, sound.channels, sound.seconds, sound.rate) == ("audio", 2, 0.5, 16_000)
    assert sound.digest() == tone(0.5, 16_000, 2).digest() != tone(0.5, 16_000, 2, 441.0).digest()
    assert sound.digest() != dataclasses.replace(sound, rate=8000).digest()
    assert sound.digest() != Audio(sound.samples.reshape(1, -1), 16_000).digest()
    assert sound.digest() == Audio(np.asfortranarray(sound.samples), 16_000).digest()


@pytest.mark.parametrize("shape", [(3,), (0, 3), (1, 0), (33, 1), (1, 2, 3)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConjureError, match="expected samples"):
        Audio(np.zeros(shape, np.float32), 8000)


def test_wrong_types_rates_and_numbers_are_refused() -> None:
    with pytest.raises(ConjureError, match="float64"):
        Audio(np.zeros((1, 2)), 8000)
    for rate in (0, -1, 999, 400_000):
        with pytest.raises(ConjureError, match="samples a second"):
            Audio(np.zeros((1, 2), np.float32), rate)
        with pytest.raises(ConjureError, match="samples a second"):
            tone().at(rate)
        with pytest.raises(ConjureError, match="samples a second"):
            next(blocks(Path("a.wav"), rate))
    for wrong in (np.nan, np.inf, -np.inf):
        with pytest.raises(ConjureError, match="numbers"):
            Audio(np.array([[0, wrong, 0]], np.float32), 8000)


def test_mono_is_the_mean_of_the_channels() -> None:
    sound = tone(channels=6)
    np.testing.assert_allclose(sound.mono(), sound.samples.mean(0), atol=1e-6)
    assert tone().mono().shape == (8000,)
    silent = Audio(np.zeros((2, 5), np.float32), 8000)
    assert silent.mono().tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("dead", [0, 1])
def test_a_dead_channel_does_not_halve_the_level(dead: int) -> None:
    samples = tone(channels=2).samples
    samples[dead] = np.random.default_rng(1).normal(0, 1e-5, samples.shape[1])
    np.testing.assert_allclose(Audio(samples, 16_000).mono(), samples[1 - dead], atol=1e-7)
    quiet = samples.copy()  # 40 dB below is a channel that lives
    quiet[dead] = 0.01 * samples[1 - dead]
    np.testing.assert_allclose(Audio(quiet, 16_000).mono(), quiet.mean(0), atol=1e-6)


def test_opposite_channels_do_not_cancel() -> None:
    samples = tone(channels=1).samples
    both = np.concatenate([0.9 * samples, -samples])
    np.testing.assert_array_equal(Audio(both, 16_000).mono(), both[1])


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 192_000])
def test_another_rate_keeps_a_tone(rate: int) -> None:
    made = tone(0.5, 16_000).at(rate)
    assert made.rate == rate and abs(made.samples.shape[1] - rate // 2) <= 1
    wanted = 0.3 * np.sin(2 * np.pi * 440 * np.arange(made.samples.shape[1]) / rate)
    middle = slice(rate // 20, -rate // 20)
    assert likeness(wanted[middle], made.samples[0, middle]) > 20
    assert tone(0.5, 16_000).at(16_000).samples.shape == (1, 8000)


def test_another_rate_passes_no_bound_and_keeps_a_sample() -> None:
    square = Audio(np.sign(np.sin(np.arange(4000) / 9, dtype=np.float32))[None] * np.float32(1), 48_000)
    assert np.abs(square.at(44_100).samples).max() == 1
    assert Audio(np.full((2, 1), 0.5, np.float32), 48_000).at(8000).samples.tolist() == [[0.5], [0.5]]
    carrying = dataclasses.replace(tone(), record=RECORD)
    assert carrying.at(8000).record is None


# -- writing and reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("channels", [1, 2])
def test_read_gives_what_was_written(tmp_path: Path, suffix: str, channels: int) -> None:
    sound = tone(1.0, 48_000, channels)
    for record in (None, RECORD):
        path = media.write(sound, tmp_path / f"a{suffix}", record)
        again = media.read(path)
        assert isinstance(again, Audio)
        assert again.samples.shape == sound.samples.shape and again.rate == 48_000
        least = {".wav": 75, ".flac": 75}.get(suffix, 15)
        assert min(map(likeness, sound.samples, again.samples)) > least
        assert media.read_provenance(path) == record
        assert media.read(path.read_bytes()).digest() == again.digest()
        assert seconds_in(path) == 1.0
    assert os.listdir(tmp_path) == [f"a{suffix}"]


def test_the_same_bytes_come_out_later_and_elsewhere() -> None:
    def made() -> list[bytes]:
        return [media.encode(tone(0.2, 24_000), suffix, RECORD) for suffix in SUFFIXES]

    first = made()
    time.sleep(0.002)
    assert made() == first
    code = (
        "import sys; from tests.media.test_audio import RECORD, SUFFIXES, tone; from conjure import media\n"
        "sys.stdout.buffer.write(b''.join(media.encode(tone(0.2, 24_000), each, RECORD) for each in SUFFIXES))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"".join(first)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_sixteen_bits_survive_any_number_of_copies(suffix: str) -> None:
    steps = np.arange(-32768, 32768, dtype=np.int16)
    sound = Audio((steps / np.float32(32768))[None], 8000)
    again = media.read(media.encode(sound, suffix))
    assert isinstance(again, Audio)
    np.testing.assert_array_equal(again.samples, sound.samples)
    assert media.encode(again, suffix) == media.encode(sound, suffix)


def test_samples_are_rounded_and_cut() -> None:
    given = np.array([0.4, 0.6, -0.4, -0.6, 32768, -40000, 32767.6, 1.5, 2.5], np.float32) / np.float32(32768)
    again = media.read(media.encode(Audio(given[None], 8000), ".wav"))
    assert isinstance(again, Audio)
    assert (again.samples[0] * 32768).tolist() == [0, 1, 0, -1, 32767, -32768, 32767, 2, 2]


@pytest.mark.parametrize(
    ("suffix", "rate", "wanted"),
    [
        (".wav", 37_123, 37_123), (".wav", 192_000, 192_000), (".flac", 37_123, 37_123), (".flac", 192_000, 192_000),
        (".flac", 65_537, 88_200), (".mp3", 37_123, 44_100), (".mp3", 96_000, 48_000), (".mp3", 1000, 8000),
        (".ogg", 37_123, 37_123), (".ogg", 384_000, 192_000), (".opus", 22_050, 24_000), (".opus", 44_100, 48_000),
        (".opus", 96_000, 48_000), (".opus", 16_000, 16_000),
    ],
)  # fmt: skip
def test_rates_that_a_format_does_not_know(suffix: str, rate: int, wanted: int) -> None:
    again = media.read(media.encode(tone(0.1, rate), suffix))
    assert isinstance(again, Audio)
    assert again.rate == wanted
    assert again.seconds == pytest.approx(0.1, abs=0.001)


@pytest.mark.parametrize(("suffix", "most"), [(".mp3", 2), (".flac", 8), (".opus", 8), (".wav", 32), (".ogg", 32)])
def test_channels(suffix: str, most: int) -> None:
    six = tone(0.1, 48_000, most)
    again = media.read(media.encode(six, suffix))
    assert isinstance(again, Audio)
    assert again.channels == most
    if most < 32:
        with pytest.raises(ConjureError, match=f"at most {most} channels, got {most + 1}") as caught:
            media.encode(tone(0.1, 48_000, most + 1), suffix)
        assert ".wav" in caught.value.hint


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("count", [1, 80])
def test_one_sample_and_ten_milliseconds(suffix: str, count: int) -> None:
    sound = Audio(np.full((1, count), 0.25, np.float32), 8000)
    again = media.read(media.encode(sound, suffix, RECORD))
    assert isinstance(again, Audio)
    assert again.samples.shape == (1, count)


def test_a_minute_of_stereo_as_vorbis() -> None:
    """Given at once, it would end the process."""
    sound = tone(60, 8000, 2)
    again = media.read(media.encode(sound, ".ogg"))
    assert isinstance(again, Audio)
    assert again.samples.shape == sound.samples.shape


@pytest.mark.parametrize("bits", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("rate", [8000, 192_000])
def test_every_width_of_a_sample_is_read(tmp_path: Path, bits: str, rate: int) -> None:
    sound = tone(0.05, rate, 6)
    soundfile.write(tmp_path / "a.wav", sound.samples.T, rate, bits)
    again = media.read(tmp_path / "a.wav")
    assert isinstance(again, Audio)
    assert again.samples.shape == sound.samples.shape and again.rate == rate
    assert likeness(sound.samples, again.samples) > (25 if bits in ("PCM_U8", "ULAW", "ALAW") else 75)


def test_what_passes_full_scale_is_cut(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.5, 1.5, -7.0, -0.25]), 8000, "FLOAT")
    again = media.read(tmp_path / "a.wav")
    assert isinstance(again, Audio)
    assert again.samples.tolist() == [[0.5, 1, -1, -0.25]]


def test_other_files_of_sound_are_read(tmp_path: Path) -> None:
    sound = tone(0.1, 8000, 2)
    for name, container in (("a.aiff", "AIFF"), ("b.wav", "RF64"), ("c.wav", "WAVEX")):
        soundfile.write(tmp_path / name, sound.samples.T, 8000, "PCM_16", format=container)
        again = media.read(tmp_path / name)
        assert isinstance(again, Audio)
        assert likeness(sound.samples, again.samples) > 60
        assert media.read_provenance(tmp_path / name) is None
    with pytest.raises(ConjureError, match="only read"):
        media.write(sound, tmp_path / "d.aiff")


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_what_is_kept_gives_the_same_digest(suffix: str) -> None:
    exact = media.read(media.encode(tone(0.2, 44_100, 2), suffix))
    assert media.lossless(exact)[1] == ".flac"
    many = media.read(media.encode(tone(0.1, 44_100, 9), ".wav"))
    assert media.lossless(many)[1] == ".wav"
    odd = media.read(media.encode(tone(0.1, 65_537), ".wav"))
    assert media.lossless(odd)[1] == ".wav"
    for sound in (exact, many, odd, tone(0.2, 44_100, 2), media.read(media.encode(tone(0.2), ".mp3"))):
        assert media.read(media.lossless(sound)[0]).digest() == sound.digest()


# -- provenance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("length", [10, 5000, 70_000, 900_000])
def test_long_records(tmp_path: Path, suffix: str, length: int) -> None:
    long = dataclasses.replace(RECORD, inputs=({"kind": "text", "text": "a b " * (length // 4), "digest": ""},))
    sound = tone(0.1, 24_000)
    path = media.write(sound, tmp_path / f"a{suffix}", long)
    again = media.read(path)
    assert isinstance(again, Audio)
    assert again.samples.shape == sound.samples.shape
    assert media.read_provenance(path) == long
    outside = suffix == ".opus" and length > 5000
    assert len(os.listdir(tmp_path)) == 1 + outside
    media.write(sound, path)
    assert media.read_provenance(path) is None
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("suffix", [".flac", ".mp3", ".ogg", ".opus"])
def test_other_programs_see_the_record(tmp_path: Path, suffix: str) -> None:
    path = media.write(tone(0.1), tmp_path / f"a{suffix}", RECORD)
    with soundfile.SoundFile(path) as file:
        assert json.loads(file.comment) == {"conjure": json.loads(RECORD.to_json())}
        assert file.title == ('Gr?n ? "said"' if suffix == ".mp3" else 'Grün 中 "said"')


def test_the_record_of_a_wav_is_a_note_of_riff() -> None:
    data = media.encode(tone(0.1), ".wav", RECORD)
    notes = data[data.index(b"LIST") :]
    assert notes[8:12] == b"INFO"
    assert 'INAM\x11\0\0\0Grün 中 "said"\0'.encode() in notes
    assert b'ICMT' in notes and RECORD.to_json().encode("ascii") in notes
    plain = media.encode(tone(0.1), ".wav")
    assert data[8 : len(plain)] == plain[8:]  # what is in front of the notes is the file without them
    assert int.from_bytes(data[4:8], "little") == len(data) - 8


@pytest.mark.parametrize("comment", ["recorded on Monday", "{}", '{"other": {}}'])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
def test_comments_of_others_are_no_record(tmp_path: Path, suffix: str, comment: str) -> None:
    with soundfile.SoundFile(tmp_path / f"a{suffix}", "w", 8000, 1) as file:
        file.comment = comment
        file.write(np.zeros(800))
    assert media.read_provenance(tmp_path / f"a{suffix}") is None


@pytest.mark.parametrize("comment", ['{"conjure": {"task": 5}}', '{"conjure": }', '{"conjure": ' + "[" * 50_000])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_damaged_record_is_an_error_when_asked_for(tmp_path: Path, suffix: str, comment: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".wav":
        data = audio.riff.written([bytes(1600)], 8000, 1, 16, {b"ICMT": comment})
        path.write_bytes(data)
    else:
        with soundfile.SoundFile(path, "w", 8000, 1) as file:
            file.comment = comment
            file.write(np.zeros(800))
    with pytest.raises(ConjureError, match="provenance"):
        media.read_provenance(path)
    assert media.read(path).kind == "audio"


# -- long files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_are_the_sound(tmp_path: Path, rate: int, channels: int) -> None:
    sound = tone(5.03, 16_000, channels)
    path = media.write(sound, tmp_path / "a.wav")
    given = list(blocks(path, rate, 0.5))
    assert [len(each) for each in given[:-1]] == [rate // 2] * 10
    assert 0 < len(given[-1]) < rate // 2
    assert all(each.dtype == np.float32 for each in given)
    read = media.read(path)
    assert isinstance(read, Audio)
    wanted = Audio(read.mono()[None], 16_000).at(rate).samples[0]
    got = np.concatenate(given)
    assert len(got) == len(wanted)
    np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_blocks_of_a_dead_channel_keep_the_level(tmp_path: Path) -> None:
    samples = np.concatenate([tone(10).samples, np.zeros((1, 160_000), np.float32)])
    path = media.write(Audio(samples, 16_000), tmp_path / "a.flac")
    got = np.concatenate(list(blocks(path, 16_000, 3)))
    np.testing.assert_allclose(got, samples[0], atol=2e-5)


def test_hours_pass_in_small_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than may be read at once, and never more than two blocks and a piece at a time."""
    path = media.write(tone(30, 8000), tmp_path / "a.wav")
    monkeypatch.setenv("CONJURE_MAX_SECONDS", "10")
    with pytest.raises(ConjureError, match="at most 10 seconds of sound, got 30") as caught:
        media.read(path)
    assert "CONJURE_MAX_SECONDS" in caught.value.hint
    taken = 0

    @contextmanager
    def counted(source: Path | bytes, where: str) -> Iterator[sound_source.Source]:
        def pieces() -> Iterator[np.ndarray]:
            nonlocal taken
            for piece in found.pieces:
                taken += len(piece)
                yield piece

        with sound_source.opened(source, where) as found:
            yield dataclasses.replace(found, pieces=pieces())

    monkeypatch.setattr(audio, "opened", counted)
    monkeypatch.setattr(sound_source, "PIECE", 1000)
    running = blocks(path, 8000, 1.0)
    for number in range(1, 6):
        assert len(next(running)) == 8000
        assert taken <= 8000 * number + 1000


def test_blocks_shorter_than_a_sample_are_refused(tmp_path: Path) -> None:
    path = media.write(tone(0.1), tmp_path / "a.wav")
    with pytest.raises(ConjureError, match="at least one sample"):
        next(blocks(path, 16_000, 1e-6))


def test_a_block_of_one_sample(tmp_path: Path) -> None:
    path = media.write(Audio(np.full((1, 1), 0.5, np.float32), 8000), tmp_path / "a.wav")
    assert [each.tolist() for each in blocks(path, 8000)] == [[0.5]]


def test_pieces_of_an_mp3_are_the_whole_and_nothing_is_said_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    loud = 0.1 * np.random.default_rng(1).standard_normal(20 * 16_000)
    swell_T = (1 + np.sin(np.arange(len(loud)) / 9000)) / 2
    data = media.encode(Audio((loud * swell_T).clip(-1, 1).astype(np.float32)[None], 16_000), ".mp3")
    capfd.readouterr()
    again = media.read(data)
    assert isinstance(again, Audio)
    assert again.samples.shape[1] > 3 * 65_536  # more than one piece
    whole_T, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    np.testing.assert_allclose(again.samples[0], whole_T, atol=1e-6)
    assert capfd.readouterr().err == ""
