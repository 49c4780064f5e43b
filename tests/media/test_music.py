"""Music as a medium: MIDI files there and back, and files that are no music."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import mido
import pytest

from conjure.core.errors import ConjureError
from conjure.core.provenance import Record
from conjure.core.seeds import rng
from conjure.media.music import MAX_BYTES, Music, Note, decode, encode, read, read_record

RECORD = Record("0.1", "compose", "starter/chorale", "sha256:0", ({"kind": "text", "text": "calm ♪"},), {}, (4,))
PIECE = Music(
    notes=(Note(480, 240, 62, 70, 1), Note(0, 480, 60, 80, 0), Note(480, 480, 60, 81, 0)),
    tempo=72.0,
    tempos=((480, 60.0), (960, 96.5)),
    voices=("soprano", "bass"),
    programs=(19, 48),
)


def built(*tracks: Sequence[mido.Message | mido.MetaMessage], kind: int = 1, ticks: int = 96) -> bytes:
    midi, out = mido.MidiFile(type=kind, ticks_per_beat=ticks), io.BytesIO()
    midi.tracks += [mido.MidiTrack(track) for track in tracks]
    midi.save(file=out)
    return out.getvalue()


def test_there_and_back() -> None:
    data = encode(PIECE, ".mid", RECORD)
    again = decode(data, "x")
    assert again.digest() == PIECE.digest() and again.notes == PIECE.notes and again.kind == "music"
    assert again.tempos == PIECE.tempos and again.voices == PIECE.voices and again.programs == PIECE.programs
    assert data == encode(again, ".midi", RECORD) and encode(PIECE) == encode(again)
    assert [note.start for note in PIECE.notes] == [0, 480, 480]


def test_many_voices_keep_apart() -> None:
    notes = tuple(Note(10 * k, 10, 40 + k, 64, k) for k in range(20))
    again = decode(encode(Music(notes=notes, voices=tuple(f"v{k}" for k in range(20)))), "x")
    assert again.notes == notes and 9 not in {m.channel for t in mido.MidiFile(file=io.BytesIO(encode(again))).tracks
                                              for m in t if m.type == "note_on"}  # fmt: skip


def test_a_file_keeps_the_digest() -> None:
    for music in (Music(notes=()), Music(notes=(Note(5, 5, 5),), tempo=66.66), Music(notes=(), voices=("a", "♪")),
                  Music(notes=(Note(5, 5, 5, 80, 2),), voices=("a",), programs=(1, 2))):  # fmt: skip
        assert decode(encode(music), "x").digest() == music.digest()
    assert Music(notes=(), tempo=60.0).digest() != Music(notes=(), tempo=61.0).digest()


def test_the_record_travels_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mid"
    path.write_bytes(encode(PIECE, ".mid", RECORD))
    assert read_record(path) == RECORD and read(path).notes == PIECE.notes
    path.write_bytes(encode(PIECE))
    assert read_record(path) is None
    long = Record("0.1", "compose", "m", "w", ({"kind": "text", "text": "x" * 200_000},))
    path.write_bytes(encode(PIECE, ".mid", long))
    assert read_record(path) == long
    path.write_bytes(encode(PIECE, ".mid", RECORD).replace(b'"version"', b'"vers!on"'))
    with pytest.raises(ConjureError, match="provenance"):
        read_record(path)


def test_time_follows_the_tempos() -> None:
    assert PIECE.times([0, 480, 960, 1440]) == pytest.approx([0, 60 / 72, 60 / 72 + 1, 60 / 72 + 1 + 60 / 96.5])
    assert PIECE.ticks == 960 and PIECE.seconds == PIECE.time(960) and Music(notes=()).seconds == 0


def test_what_players_write() -> None:
    def on(note: int, time: int, velocity: int = 64, channel: int = 0) -> mido.Message:
        return mido.Message("note_on", note=note, velocity=velocity, time=time, channel=channel)

    track = [mido.MetaMessage("track_name", name="Flöte"), on(60, 0), on(60, 10), on(60, 10, 0), on(60, 10, 0),
             on(64, 0), on(35, 0, 64, 9), on(70, 5, 64, 3), on(70, 5, 0, 3), on(90, 0, 0)]  # fmt: skip
    music = decode(built(track), "x")
    assert music.notes == (Note(0, 20, 60, 64), Note(10, 20, 60, 64), Note(30, 10, 64, 64), Note(35, 5, 70, 64, 1))
    assert music.tempo == 120.0 and music.voices == ("Flöte", "Flöte") and music.ticks_per_beat == 96
    assert decode(built([], kind=0), "x").notes == ()


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    good = encode(PIECE, ".mid", RECORD)
    for data in (b"", b"hello", b"\x89PNG", b"MThd", good[:20], good[:60], good[: len(good) // 2], good[:-3],
                 good[:12] + b"\0\0" + good[14:], good[:8] + b"\0\2" + good[10:], good[:12] + b"\xe7\x28" + good[14:],
                 good + b"\0" * MAX_BYTES):  # fmt: skip
        with pytest.raises(ConjureError):
            decode(data, "x")
    with pytest.raises(ConjureError, match="no such file"):
        read(tmp_path / "none.mid")
    endless = [mido.Message("note_on", note=60, time=2**27)] * 40
    with pytest.raises(ConjureError):
        decode(built(endless), "x")
    slow = [mido.MetaMessage("set_tempo", tempo=2**24 - 1), mido.Message("note_on", note=60, time=2**27)]
    with pytest.raises(ConjureError, match="at most a day"):
        decode(built([*slow, mido.Message("note_off", note=60, time=2**27)]), "x")


def test_damage_anywhere_is_an_error_or_music() -> None:
    good, draw = bytearray(encode(PIECE, ".mid", RECORD)), rng(0)
    for _ in range(400):
        data = bytearray(good)
        for place in draw.integers(4, len(data), 3):
            data[place] = draw.integers(256)
        try:
            assert decode(bytes(data), "x").kind == "music"
        except ConjureError as error:
            assert "x: " in str(error)


@pytest.mark.parametrize(
    "note",
    [Note(-1, 2, 60), Note(0, 0, 60), Note(0, 1, 128), Note(0, 1, 60, 0), Note(2**31, 1, 1), Note(0, 1, 1, 1, -1)],
)
def test_notes_out_of_bounds(note: Note) -> None:
    with pytest.raises(ConjureError, match="within MIDI"):
        Music(notes=(note,))


def test_tempos_out_of_bounds() -> None:
    for tempo in (0.0, 2.0, 1e9):
        with pytest.raises(ConjureError, match="tempo"):
            Music(notes=(), tempo=tempo)
    with pytest.raises(ConjureError, match="ticks per beat"):
        Music(notes=(), ticks_per_beat=0)
