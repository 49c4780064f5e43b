"""Four-part music as tokens: a piece is a grid of sixteenths, and each of the four voices has one token in each.

A grid holds MIDI pitches, -1 where a voice rests. Held and repeated notes look alike in it, as in the data sets of
chorales: a pitch that goes on from step to step is read as one held note.

Tokens are for pieces in the normal position, C major or A minor (`codecs/music_words.py:place_of`): whoever makes them
of a piece in another key moves it there and back.

Legend: T steps, V voices (soprano, alto, tenor, bass).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conjure.core.errors import ConjureError
from conjure.media.music import Music, Note

VOICES = ("soprano", "alto", "tenor", "bass")
RANGES = ((60, 81), (52, 74), (46, 69), (36, 66))
"""Lowest and highest pitch of each voice in the training part of the chorales."""
LOWEST, HIGHEST = 30, 86
"""Of the ranges, moved by as much as brings any key to C major or A minor: 6 down, 5 up."""
REST = 0
TOKENS = HIGHEST - LOWEST + 2
"""What a voice can do in a step: 0 rests, k sounds the pitch LOWEST + k - 1."""
HIDDEN, START = TOKENS, TOKENS + 1
"""Read, never written: a voice that is not known, and what was before the first step."""
INPUTS = TOKENS + 2
STEPS_PER_BEAT = 4
STEPS_PER_BAR = 16
MAX_STEPS = 4096
PROGRAMS = (19, 19, 19, 19)
"""General MIDI: church organ."""


def to_tokens(grid_TV: np.ndarray) -> np.ndarray:
    """int64 `[T, V]`; `ConjureError` names the first pitch that no voice of a chorale sings."""
    wrong = (grid_TV >= 0) & ((grid_TV < LOWEST) | (grid_TV > HIGHEST))
    if wrong.any():
        raise ConjureError(f"expected pitches from {LOWEST} to {HIGHEST}, got {int(grid_TV[wrong][0])}",
                           hint="transpose the piece")
    return np.where(grid_TV < 0, REST, grid_TV.astype(np.int64) - LOWEST + 1)


def to_grid(tokens_TV: np.ndarray) -> np.ndarray:
    """The inverse: int16 `[T, V]`."""
    return np.where(tokens_TV == REST, -1, tokens_TV + LOWEST - 1).astype(np.int16)


def to_music(grid_TV: np.ndarray, tempo: float = 72.0, ticks_per_beat: int = 480) -> Music:
    """The piece as notes, one for each stretch of steps in which a voice keeps its pitch."""
    step = ticks_per_beat // STEPS_PER_BEAT
    notes = []
    for voice in range(grid_TV.shape[1]):
        line_T = grid_TV[:, voice]
        borders = np.flatnonzero(np.diff(line_T)) + 1
        for first, last in zip([0, *borders], [*borders, len(line_T)], strict=True):
            if line_T[first] >= 0:
                notes.append(Note(int(first) * step, int(last - first) * step, int(line_T[first]), 80, voice))
    names = VOICES if grid_TV.shape[1] == len(VOICES) else tuple(f"voice {v + 1}" for v in range(grid_TV.shape[1]))
    return Music(notes=tuple(notes), ticks_per_beat=ticks_per_beat, tempo=tempo, voices=names,
                 programs=(PROGRAMS * 4)[: len(names)])  # fmt: skip


def lines(music: Music) -> np.ndarray:
    """Each voice of any piece on the grid, int16 `[T, V]` with as many columns as the piece has voices.

    A step sounds what sounds in its middle, of several notes of a voice the highest. Empty bars in front are left out.
    `ConjureError` where the piece has no notes or more than `MAX_STEPS` steps.
    """
    if not music.notes:
        raise ConjureError("expected a piece with notes, got none", hint="percussion does not count")
    step = music.ticks_per_beat / STEPS_PER_BEAT
    first = min(note.start for note in music.notes)
    bar = STEPS_PER_BAR * step
    offset = int(first // bar * bar)

    def stretch(note: Note) -> tuple[int, int]:
        """The steps whose middles it sounds in, at least one."""
        begin = max(0, int(np.ceil((note.start - offset) / step - 0.5)))
        return begin, max(begin + 1, int(np.ceil((note.start + note.length - offset) / step - 0.5)))

    length = max(stretch(note)[1] for note in music.notes)
    if length > MAX_STEPS:
        raise ConjureError(f"expected a piece of at most {MAX_STEPS // STEPS_PER_BAR} bars, got "
                           f"{length // STEPS_PER_BAR}", hint="cut out a part of it")
    numbers = sorted({note.voice for note in music.notes})
    grid_TV = np.full((length, len(numbers)), -1, np.int16)
    for note in music.notes:
        begin, end = stretch(note)
        column_T = grid_TV[begin:end, numbers.index(note.voice)]
        np.maximum(column_T, note.pitch, out=column_T)
    return grid_TV


def four_parts(music: Music) -> np.ndarray:
    """A piece as soprano, alto, tenor and bass, int16 `[T, 4]`.

    Four voices are taken in the order of their mean pitch. Otherwise the four highest notes of each step are.
    """
    grid_TV = lines(music)
    if grid_TV.shape[1] == len(VOICES):
        sounding_TV = np.ma.masked_less(grid_TV, 0)
        return grid_TV[:, np.argsort(-sounding_TV.mean(0).filled(-1), kind="stable")]
    sorted_TV = -np.sort(-_all_notes(music, len(grid_TV)), axis=1)
    return sorted_TV[:, : len(VOICES)]


def melody(music: Music) -> np.ndarray:
    """The one line to harmonise, int16 `[T, 1]`: the highest voice."""
    return lines(music).max(1, keepdims=True)


def fitting_shift(grid_TV: np.ndarray, voices: Sequence[int]) -> int:
    """The smallest transposition, in semitones, that brings these lines into the ranges of those voices.

    `ConjureError` where none does.
    """
    shifts = [set(shifts_of(grid_TV[:, [column]], [voice])) for column, voice in enumerate(voices)]
    common = set.intersection(*shifts)
    if not common:
        named = ", ".join(VOICES[voice] for voice in voices)
        raise ConjureError(f"no transposition brings these lines into the ranges of {named}",
                           hint="a voice of a chorale spans less than two octaves")
    return min(common, key=lambda shift: (abs(shift), shift))


def shifts_of(grid_TV: np.ndarray, voices: Sequence[int] = range(4)) -> range:
    """All transpositions, in semitones, that keep every line within the range of its voice."""
    low, high = -127, 127
    for column, voice in enumerate(voices):
        sounding = grid_TV[:, column][grid_TV[:, column] >= 0]
        if len(sounding):
            low = max(low, RANGES[voice][0] - int(sounding.min()))
            high = min(high, RANGES[voice][1] - int(sounding.max()))
    return range(low, high + 1)


def transposed(grid_TV: np.ndarray, shift: int) -> np.ndarray:
    """The same piece so many semitones higher; rests stay rests."""
    return np.where(grid_TV >= 0, grid_TV + shift, -1).astype(np.int16)


def _all_notes(music: Music, length: int) -> np.ndarray:
    """The piece with a column for each pitch that occurs, int16 `[T, at least 4]`."""
    apart = {pitch: place for place, pitch in enumerate(sorted({note.pitch for note in music.notes}))}
    again = [Note(note.start, note.length, note.pitch, note.velocity, apart[note.pitch]) for note in music.notes]
    grid_TN = lines(Music(notes=tuple(again), ticks_per_beat=music.ticks_per_beat, tempo=music.tempo))
    return np.pad(grid_TN, ((0, length - len(grid_TN)), (0, max(0, 4 - grid_TN.shape[1]))), constant_values=-1)
