"""Music as a medium: notes in memory, Standard MIDI Files on disk.

Times are ticks; `ticks_per_beat` of them are a quarter note. The record of how a piece was made lies in the file, as
text events of its first track.
"""

from __future__ import annotations

import bisect
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conjure.core.errors import ConjureError
from conjure.core.provenance import Record, digest
from conjure.media.bounds import read_bytes

if TYPE_CHECKING:
    import mido

MAX_BYTES = 4 << 20
"""Of a file that is read: an hour of dense piano music has a tenth of it."""
MAX_SECONDS = 24 * 3600
MAX_TICKS = 1 << 31
MAX_VOICES = 1 << 16
_MARK = "conjure: "
_PIECE = 32_000  # characters of a text event: readers refuse events of a million
_DRUMS = 9
_DAMAGED = (EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, order=True, slots=True)
class Note:
    """A note of at least one tick; `pitch` and `velocity` as in MIDI, 60 is the middle C."""

    start: int
    length: int
    pitch: int
    velocity: int = 80
    voice: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Music:
    """Notes of one or more voices, kept in the order of time."""

    notes: tuple[Note, ...]
    ticks_per_beat: int = 480
    tempo: float = 80.0
    """Beats per minute at the beginning."""
    tempos: tuple[tuple[int, float], ...] = ()
    """Later changes: tick and beats per minute."""
    voices: tuple[str, ...] = ()
    """The names of voices 0, 1, ..."""
    programs: tuple[int, ...] = ()
    """Their instruments by General MIDI, 0 to 127."""
    record: Record | None = None
    """How the piece was made, where `make` made it; `save` puts it into the file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", tuple(sorted(self.notes)))
        if not 0 < self.ticks_per_beat < 1 << 15:
            raise ConjureError(f"expected 1 to 32,767 ticks per beat, got {self.ticks_per_beat}")
        for _, tempo in ((0, self.tempo), *self.tempos):
            if not 3 < tempo <= 60_000_000:  # MIDI holds microseconds per beat in 24 bits
                raise ConjureError(f"expected a tempo of 4 to 60,000,000 beats per minute, got {tempo}")
        for note in self.notes:
            if note.start < 0 or note.length < 1 or not 0 <= note.pitch < 128 or not 1 <= note.velocity < 128:
                raise ConjureError(f"expected a note within MIDI's bounds, got {note}")
            if not 0 <= note.voice < MAX_VOICES or note.start + note.length >= MAX_TICKS:
                raise ConjureError(f"expected a note within MIDI's bounds, got {note}")
        if any(not 0 <= program < 128 for program in self.programs):
            raise ConjureError(f"expected instruments from 0 to 127, got {self.programs}")

    @property
    def kind(self) -> str:
        return "music"

    @property
    def ticks(self) -> int:
        """Where the last note ends."""
        return max((note.start + note.length for note in self.notes), default=0)

    @property
    def seconds(self) -> float:
        """How long it takes to the end of the last note."""
        return self.time(self.ticks)

    def time(self, tick: int) -> float:
        """Seconds from the beginning to a tick."""
        return self.times([tick])[0]

    def times(self, ticks: list[int]) -> list[float]:
        """Seconds from the beginning to each tick, by the map of tempos."""
        changes = [(0, self.tempo), *sorted(self.tempos)]
        at, seconds = [0], [0.0]
        for (before, tempo), (tick, _) in itertools.pairwise(changes):
            at.append(tick)
            seconds.append(seconds[-1] + (tick - before) * 60 / (tempo * self.ticks_per_beat))
        found = []
        for tick in ticks:
            place = bisect.bisect_right(at, tick) - 1
            found.append(seconds[place] + (tick - at[place]) * 60 / (changes[place][1] * self.ticks_per_beat))
        return found

    def digest(self) -> str:
        """`sha256:<hex>` of the notes, tempos, voices and programs, as far as a file can hold them."""
        notes = [(n.start, n.length, n.pitch, n.velocity, n.voice) for n in self.notes]
        tempos = [(tick, _microseconds(tempo)) for tick, tempo in ((0, self.tempo), *self.tempos)]
        voices = [self._voice(voice) for voice in range(self._count())]
        return digest(repr((self.ticks_per_beat, tempos, voices, notes)).encode())

    def _count(self) -> int:
        """How many voices there are, silent ones included."""
        sounding = max((note.voice + 1 for note in self.notes), default=0)
        return max(len(self.voices), len(self.programs), sounding)

    def _voice(self, voice: int) -> tuple[str, int]:
        """The name of a voice, as MIDI's alphabet can say it, and its instrument."""
        name = self.voices[voice] if voice < len(self.voices) else ""
        program = self.programs[voice] if voice < len(self.programs) else 0
        return name.encode("latin-1", "replace").decode("latin-1"), program

    def save(self, path: str | Path) -> Path:
        """Writes the piece, with its record if it has one."""
        from conjure import media

        return media.write(self, path, self.record)  # type: ignore[arg-type]


def read(path: Path) -> Music:
    """The music in a file; see `decode`."""
    return decode(_read(path), str(path))


def decode(data: bytes, where: str) -> Music:
    """The music in the bytes of a MIDI file of type 0 or 1.

    Every channel of a track that has notes is a voice, percussion left out. A note that is never let go ends with the
    file; of two of the same pitch and channel the first is let go first. What is damaged, of another kind, or longer
    than a day raises `ConjureError`.
    """
    midi = _parsed(data, where)
    if midi.type == 2 or midi.ticks_per_beat <= 0:
        what = "several songs in one" if midi.type == 2 else "times in frames of film"
        raise ConjureError(f"{where}: expected a MIDI file with times in beats, got {what}")
    try:
        found = _Reader()
        for track in midi.tracks:
            found.track(track)
        music = found.music(midi.ticks_per_beat)
    except _DAMAGED as error:
        raise _damaged(where, error) from None
    if music.seconds > MAX_SECONDS:
        raise ConjureError(f"{where}: expected music of at most a day, got {music.seconds / 3600:,.0f} hours")
    return music


def encode(music: Music, suffix: str = ".mid", record: Record | None = None) -> bytes:
    """The bytes of a MIDI file of type 1, the same for the same input: the tempo and the record in the first track,
    then a track for each voice, on a channel of its own as far as there are 15."""
    import mido

    assert suffix in (".mid", ".midi")
    midi = mido.MidiFile(type=1, ticks_per_beat=music.ticks_per_beat)
    head = mido.MidiTrack()
    if record is not None:
        text = _MARK + record.to_json()
        head += [mido.MetaMessage("text", text=text[at : at + _PIECE]) for at in range(0, len(text), _PIECE)]
    now = 0
    for tick, tempo in ((0, music.tempo), *sorted(music.tempos)):
        head.append(mido.MetaMessage("set_tempo", tempo=_microseconds(tempo), time=tick - now))
        now = tick
    midi.tracks.append(head)
    by_voice: dict[int, list[Note]] = {}
    for note in music.notes:
        by_voice.setdefault(note.voice, []).append(note)
    for voice in range(music._count()):
        midi.tracks.append(_track(music, voice, by_voice.get(voice, [])))
    out = io.BytesIO()
    midi.save(file=out)
    return out.getvalue()


def read_record(path: Path) -> Record | None:
    """The provenance in a MIDI file, None where there is none, `ConjureError` where it is damaged."""
    midi = _parsed(_read(path), str(path))
    texts = [m.text for track in midi.tracks[:1] for m in track if m.type == "text"]
    first = next((k for k, text in enumerate(texts) if text.startswith(_MARK)), None)
    if first is None:
        return None
    whole = texts[first]
    for text in texts[first + 1 :]:
        if len(texts[first]) < _PIECE or len(whole) % _PIECE:
            break
        whole += text
    return Record.from_json(whole.removeprefix(_MARK))


def _track(music: Music, voice: int, notes: list[Note]) -> mido.MidiTrack:
    """One voice: its name, its instrument, its notes."""
    import mido

    channel = voice % 15
    channel += channel >= _DRUMS
    track = mido.MidiTrack()
    name, program = music._voice(voice)
    if name:
        track.append(mido.MetaMessage("track_name", name=name))
    track.append(mido.Message("program_change", channel=channel, program=program))
    # At the same tick ends come before beginnings: a repeated note is struck again.
    events = [(note.start + note.length, 0, note.pitch, 0) for note in notes]
    events += [(note.start, 1, note.pitch, note.velocity) for note in notes]
    now = 0
    for tick, begins, pitch, velocity in sorted(events):
        kind = "note_on" if begins else "note_off"
        track.append(mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=tick - now))
        now = tick
    return track


class _Reader:
    """Gathers notes and tempos from the tracks of a file."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.tempos: dict[int, float] = {}
        self.names: list[str] = []
        self.programs: list[int] = []

    def track(self, track: Any) -> None:
        """The notes of one track; each channel in it is a voice."""
        name, now = "", 0
        programs: dict[int, int] = {}
        voices: dict[int, int] = {}
        open_: dict[tuple[int, int], list[tuple[int, int]]] = {}
        found: list[tuple[int, Note]] = []
        for message in track:
            now += message.time
            if now >= MAX_TICKS:
                raise ValueError(f"a track of more than {MAX_TICKS:,} ticks")
            if message.type == "set_tempo":
                self.tempos[now] = min(60e6 / max(1, message.tempo), 60e6)
            elif message.type == "track_name":
                name = name or message.name
            elif message.type == "program_change":
                if message.channel != _DRUMS:
                    programs.setdefault(message.channel, message.program)
            elif message.type in ("note_on", "note_off") and message.channel != _DRUMS:
                key = message.channel, message.note
                if message.type == "note_on" and message.velocity:
                    open_.setdefault(key, []).append((now, message.velocity))
                elif open_.get(key):
                    found.extend(_ended(key, *open_[key].pop(0), now))
        for key, held in open_.items():
            for start, velocity in held:
                found.extend(_ended(key, start, velocity, now))
        # In the order of their first notes; an instrument without notes is a silent voice.
        for channel in dict.fromkeys([*(channel for channel, _ in sorted(found, key=_second)), *programs]):
            voices[channel] = len(self.names)
            self.names.append(name)
            self.programs.append(programs.get(channel, 0))
        for channel, note in found:
            self.notes.append(Note(note.start, note.length, note.pitch, note.velocity, voices[channel]))

    def music(self, ticks_per_beat: int) -> Music:
        first = self.tempos.pop(0, 120.0)  # MIDI's own default
        changes = tuple(sorted(self.tempos.items()))
        return Music(notes=tuple(self.notes), ticks_per_beat=ticks_per_beat, tempo=_plain(first),
                     tempos=tuple((tick, _plain(tempo)) for tick, tempo in changes), voices=tuple(self.names),
                     programs=tuple(self.programs))  # fmt: skip


def _second(pair: tuple[int, Note]) -> Note:
    return pair[1]


def _microseconds(tempo: float) -> int:
    """Per beat, as files hold a tempo."""
    return max(1, round(60e6 / tempo))


def _ended(key: tuple[int, int], start: int, velocity: int, now: int) -> Iterator[tuple[int, Note]]:
    if now > start:  # a note without length is none
        yield key[0], Note(start, now - start, key[1], velocity)


def _plain(tempo: float) -> float:
    """Microseconds per beat hold a tempo to about six digits: 71.99999 was 72."""
    return max(3.6, round(tempo, 3))


def _read(path: Path) -> bytes:
    too_much = ConjureError(f"{path}: expected a MIDI file of at most {MAX_BYTES:,} bytes, got more")
    return read_bytes(path, MAX_BYTES, too_much)


def _parsed(data: bytes, where: str) -> mido.MidiFile:
    import mido

    if len(data) > MAX_BYTES:
        raise ConjureError(f"{where}: expected a MIDI file of at most {MAX_BYTES:,} bytes, got {len(data):,}")
    if not data.startswith(b"MThd"):
        raise ConjureError(f"{where}: expected a MIDI file, the content is something else",
                           hint="does the suffix fit the file?")
    try:
        return mido.MidiFile(file=io.BytesIO(data), clip=True)
    except _DAMAGED as error:
        raise _damaged(where, error) from None


def _damaged(where: str, error: BaseException) -> ConjureError:
    return ConjureError(f"{where}: the MIDI file is cut off or damaged: {error or type(error).__name__}",
                        hint="fetch or copy it again")
