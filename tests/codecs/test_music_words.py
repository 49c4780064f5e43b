"""Wishes in words, and the key and movement of pieces."""

from __future__ import annotations

import numpy as np
import pytest

from conjure.codecs.chorale_tokens import HIGHEST, LOWEST, RANGES, transposed
from conjure.codecs.music_words import (
    COMMON_KEYS,
    FLOWING,
    KEYS,
    STILL,
    TONICS,
    Wish,
    key_name,
    key_of,
    movement,
    nearest_mood,
    place_of,
    wish,
)  # fmt: skip
from conjure.core.errors import ConjureError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("calm, in G minor", Wish(19, STILL, 60.0, None)),
        ("A joyful chorale in E flat major, 16 bars", Wish(3, FLOWING, 92.0, 16)),
        ("in Bb", Wish(10, None, None, None)),
        ("a sad song in d", Wish(14, None, 56.0, None)),
        ("F# minor 88 bpm", Wish(18, None, 88.0, None)),
        ("C♯ minor", Wish(13, None, None, None)),
        ("Ab major; tempo 100", Wish(8, None, 100.0, None)),
        ("something in minor", Wish(19, None, None, None)),
        ("bright", Wish(7, None, 84.0, None)),
        ("", Wish()),
        ("a piece of music", Wish()),
    ],
)
def test_wishes(text: str, expected: Wish) -> None:
    assert wish(text) == (expected, [])


def test_strange_words_and_wrong_ones() -> None:
    assert wish("a wobbly, calmm tune") == (Wish(), ["wobbly", "calmm", "tune"])
    assert nearest_mood("calmm") == "did you mean 'calm'?"
    wrong = (("in G minor and in A minor", "one key"), ("100 bars", "2 to 64 bars"), ("1 bpm", "20 to 240"))
    for text, message in wrong:
        with pytest.raises(ConjureError, match=message):
            wish(text)


def test_names_and_keys() -> None:
    assert key_name(19) == "G minor" and key_name(3) == "Eb major"
    for key in range(KEYS):
        assert wish(f"in {key_name(key)}")[0].key == key
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 0])
    for tonic in range(12):
        piece_TV = np.stack([60 + (scale + tonic) % 12, 48 + (np.full(8, tonic))], 1)
        assert key_of(piece_TV) == tonic, TONICS[tonic]
    minor_TV = np.stack([60 + np.array([9, 11, 0, 2, 4, 5, 8, 9]), np.full(8, 57)], 1)
    assert key_of(minor_TV) == 12 + 9 and key_of(np.full((4, 2), -1)) == 0


def test_every_key_has_its_place_above_c_major_or_a_minor() -> None:
    assert [place_of(key) for key in (0, 6, 7, 11)] == [0, 6, -5, -1]
    assert [place_of(12 + tonic) for tonic in (9, 7, 3, 4)] == [0, -2, 6, -5]
    assert min(low for low, _ in RANGES) - 6 == LOWEST and max(high for _, high in RANGES) + 5 == HIGHEST
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 0])
    for key in range(KEYS):
        steps = scale if key < 12 else np.array([0, 2, 3, 5, 7, 8, 11, 0])
        piece_TV = np.stack([60 + (steps + key) % 12, np.full(8, 48 + key % 12)], 1)
        assert key_of(piece_TV) == key == key_of(piece_TV, 0.0)
        assert key_of(transposed(piece_TV, -place_of(key))) == (0 if key < 12 else 12 + 9)
    assert len({key for key, _ in COMMON_KEYS}) == len(COMMON_KEYS) and sum(count for _, count in COMMON_KEYS) <= 229


def test_the_last_bass_note_speaks_for_its_own_key() -> None:
    """C major's tones over a last A: by profiles C major, with the bass A minor."""
    piece_TV = np.stack([60 + np.array([0, 4, 7, 0, 5, 7, 11, 0]), 48 + np.array([0, 0, 0, 0, 5, 7, 7, 9])], 1)
    assert key_of(piece_TV, 0.0) == 0 and key_of(piece_TV, 1.0) == 12 + 9


def test_movement_counts_what_happens_between_beats() -> None:
    held = np.repeat(np.array([[60], [62], [64], [65]]), 4, axis=0)
    assert movement(held) == 0.0 and movement(np.arange(16)[:, None]) == 3.0
    held[2] += 12
    assert movement(held) == 2 / 4
