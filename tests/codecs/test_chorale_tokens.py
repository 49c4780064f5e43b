"""Four parts as tokens and as notes, there and back."""

from __future__ import annotations

import numpy as np
import pytest

from conjure.codecs.chorale_tokens import (
    HIDDEN,
    INPUTS,
    RANGES,
    START,
    TOKENS,
    fitting_shift,
    four_parts,
    lines,
    melody,
    shifts_of,
    to_grid,
    to_music,
    to_tokens,
    transposed,
)  # fmt: skip
from conjure.core.errors import ConjureError
from conjure.media.music import Music, Note

GRID_TV = np.array([[72, 67, 64, -1], [72, 67, 65, 48], [74, 67, 65, 48], [-1, 67, 65, 48]], np.int16)


def test_tokens_there_and_back() -> None:
    tokens_TV = to_tokens(GRID_TV)
    assert tokens_TV.dtype == np.int64 and tokens_TV[0].tolist() == [43, 38, 35, 0]
    assert np.array_equal(to_grid(tokens_TV), GRID_TV) and to_grid(tokens_TV).dtype == np.int16
    every = np.arange(TOKENS)
    assert np.array_equal(to_tokens(to_grid(every)), every) and {HIDDEN, START} == set(range(TOKENS, INPUTS))
    with pytest.raises(ConjureError, match="expected pitches from 30 to 86, got 87"):
        to_tokens(GRID_TV + 15)


def test_notes_are_stretches_of_a_pitch() -> None:
    music = to_music(GRID_TV, 60.0)
    soprano = [(note.start, note.length, note.pitch) for note in music.notes if note.voice == 0]
    assert soprano == [(0, 240, 72), (240, 120, 74)] and len(music.notes) == 6
    assert music.voices == ("soprano", "alto", "tenor", "bass") and music.tempo == 60.0
    assert np.array_equal(four_parts(music), GRID_TV) and np.array_equal(lines(music), GRID_TV)


def test_other_music_becomes_four_parts() -> None:
    chord = [Note(960, 480, pitch) for pitch in (48, 55, 60, 64, 67)]
    piano = Music(notes=(*chord, Note(1440, 480, 50)))
    grid_TV = four_parts(piano)
    assert grid_TV[8].tolist() == [67, 64, 60, 55] and grid_TV[-1].tolist() == [50, -1, -1, -1] and len(grid_TV) == 16
    assert melody(piano)[[0, 8, 15], 0].tolist() == [-1, 67, 50]
    later = Music(notes=(Note(2 * 1920 + 480, 480, 60),))
    assert lines(later).shape == (8, 1)  # two empty bars in front are left out, the upbeat stays
    reversed_ = Music(notes=tuple(Note(n.start, n.length, n.pitch, 80, 3 - n.voice) for n in to_music(GRID_TV).notes))
    assert np.array_equal(four_parts(reversed_), GRID_TV)


def test_times_are_rounded_to_steps() -> None:
    loose = Music(notes=(Note(7, 100, 60), Note(118, 130, 62), Note(250, 1, 64)))
    assert lines(loose)[:, 0].tolist() == [60, 62, 64]
    with pytest.raises(ConjureError, match="with notes"):
        lines(Music(notes=()))
    with pytest.raises(ConjureError, match="at most 256 bars"):
        lines(Music(notes=(Note(0, 480 * 4 * 300, 60),)))


def test_transpositions_keep_the_ranges() -> None:
    shifts = shifts_of(GRID_TV)
    assert shifts == range(-12, 5)  # soprano and bass allow 12 down, the tenor with its 65 of 69 four up
    for shift in (shifts[0], shifts[-1]):
        moved_TV = transposed(GRID_TV, shift)
        for voice, (low, high) in enumerate(RANGES):
            sounding = moved_TV[:, voice][moved_TV[:, voice] >= 0]
            assert low <= sounding.min() and sounding.max() <= high
    assert transposed(GRID_TV, 2)[0].tolist() == [74, 69, 66, -1]
    assert fitting_shift(GRID_TV, range(4)) == 0 and fitting_shift(transposed(GRID_TV, 12), range(4)) == -8
    assert fitting_shift(GRID_TV[:, :1] - 24, [0]) == 12
    with pytest.raises(ConjureError, match="ranges of soprano"):
        fitting_shift(np.array([[40], [80]]), [0])
