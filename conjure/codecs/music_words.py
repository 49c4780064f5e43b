"""What a wish for music says: "calm, in G minor, 12 bars". And of a piece: its key, and how much it moves.

Legend: T steps, V voices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from conjure.codecs.chorale_tokens import STEPS_PER_BEAT
from conjure.core.errors import ConjureError, suggest

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_LETTERS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11, "h": 11}
_SIGNS = {"": 0, "#": 1, "sharp": 1, "b": -1, "flat": -1}
KEYS = 24
"""0 to 11 are the major keys from C on, 12 to 23 the minor ones."""
STILL, MIDDLING, FLOWING = 0, 1, 2
MOTIONS = 3
COMMON_KEYS = ((7, 35), (19, 26), (16, 25), (14, 19), (2, 18), (9, 17), (21, 17), (5, 15), (10, 12), (23, 12), (0, 10))
"""Keys, and how many of the 229 chorales of the training part are in each: those of ten and more."""
# Krumhansl and Kessler, Psychological Review 89 (1982): how well each tone fits a key of C.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_LAST_BASS = 0.35  # what the last bass note is worth beside a correlation: a chorale ends on its tonic

# Word -> minor (True), major (False) or neither (None); motion; beats per minute.
MOODS: dict[str, tuple[bool | None, int | None, float | None]] = {
    "calm": (None, STILL, 60.0),
    "quiet": (None, STILL, 60.0),
    "peaceful": (False, STILL, 60.0),
    "gentle": (None, STILL, 64.0),
    "still": (None, STILL, 56.0),
    "solemn": (True, STILL, 54.0),
    "slow": (None, None, 54.0),
    "sad": (True, None, 56.0),
    "mournful": (True, STILL, 50.0),
    "dark": (True, None, 60.0),
    "serious": (True, None, 66.0),
    "bright": (False, None, 84.0),
    "happy": (False, None, 92.0),
    "joyful": (False, FLOWING, 92.0),
    "cheerful": (False, FLOWING, 92.0),
    "festive": (False, FLOWING, 88.0),
    "lively": (None, FLOWING, 96.0),
    "flowing": (None, FLOWING, 76.0),
    "restless": (True, FLOWING, 92.0),
    "fast": (None, None, 100.0),
}
_PLAIN = frozenset(
    "a an the in of with and at to for by some something like me please make write compose music piece chorale hymn "
    "song key voice voices part parts four bar bars bpm tempo long very rather bach style organ major minor sharp "
    "flat".split()
)


@dataclass(frozen=True)
class Wish:
    """What was asked for; None is left to the model."""

    key: int | None = None
    motion: int | None = None
    tempo: float | None = None
    bars: int | None = None


def wish(text: str) -> tuple[Wish, list[str]]:
    """What a text asks for, and the words in it that say nothing here.

    Two keys, a key that does not exist or a number out of bounds raise `ConjureError`.
    """
    rest = " ".join(text.lower().replace("♯", "#").replace("♭", "b").split())
    bars, rest = _number(rest, r"(\d+)[ -]bars?\b", 2, 64, "bars")
    tempo, rest = _number(rest, r"(?:(\d+) ?bpm\b|\btempo (\d+))", 20, 240, "beats per minute")
    key, mode, rest = _key(rest)
    words = re.findall(r"[a-z#]+", rest)
    moods = [word for word in words if word in MOODS]
    minor, motion, speed = None, None, None
    for word in moods:  # of words that contradict each other the last one holds
        its_minor, its_motion, its_speed = MOODS[word]
        minor = minor if its_minor is None else its_minor
        motion = motion if its_motion is None else its_motion
        speed = speed if its_speed is None else its_speed
    if key is not None:
        minor_key = mode if mode is not None else bool(minor)
        key += 12 * minor_key
    elif mode is not None or minor is not None:
        # A mode without a tonic: the commonest one of the chorales.
        key = (12 + 7) if (mode if mode is not None else minor) else 7
    strange = [word for word in words if word not in MOODS and word not in _PLAIN]
    return Wish(key, motion, float(tempo) if tempo else speed, bars), strange


def nearest_mood(word: str) -> str:
    """A hint for a word that is not known."""
    return suggest(word, MOODS)


def key_name(key: int) -> str:
    """15 -> "Eb minor"."""
    return f"{TONICS[key % 12]} {'minor' if key >= 12 else 'major'}"


def place_of(key: int) -> int:
    """How many semitones a key lies above C major or A minor, whichever has its mode: -5 to 6."""
    above = (key + 3 if key >= 12 else key) % 12
    return above if above <= 6 else above - 12


def key_of(grid_TV: np.ndarray, last_bass: float = _LAST_BASS) -> int:
    """The key of a piece, 0 to 23: the profile that fits the sounding tones best, and the last note of the bass.

    With `last_bass` 0 it is the rule of Krumhansl and Schmuckler: the profile alone.
    """
    sounding = grid_TV[grid_TV >= 0]
    if not len(sounding):
        return 0
    weights = np.bincount(sounding % 12, minlength=12).astype(float)
    scores = np.zeros(KEYS)
    for mode, profile in enumerate((_MAJOR, _MINOR)):
        for tonic in range(12):
            fit = np.corrcoef(weights, np.roll(profile, tonic))[0, 1] if weights.std() else 0.0
            scores[12 * mode + tonic] = fit
    bass_T = grid_TV[:, -1][grid_TV[:, -1] >= 0]
    if len(bass_T):
        scores[[bass_T[-1] % 12, 12 + bass_T[-1] % 12]] += last_bass
    return int(scores.argmax())


def movement(grid_TV: np.ndarray) -> float:
    """Between beats, how many times a beat some voice moves: 0 where all move on beats alone."""
    moves_T = (grid_TV[1:] != grid_TV[:-1]).any(1)
    off_T = np.arange(1, len(grid_TV)) % STEPS_PER_BEAT != 0
    return float((moves_T & off_T).sum() * STEPS_PER_BEAT / max(1, len(grid_TV)))


def _number(text: str, pattern: str, low: int, high: int, unit: str) -> tuple[int | None, str]:
    match = re.search(pattern, text)
    if match is None:
        return None, text
    digits = next(group for group in match.groups() if group)
    if len(digits) > 6 or not low <= int(digits) <= high:
        raise ConjureError(f"expected {low} to {high} {unit}, got {digits[:20]}")
    return int(digits), text[: match.start()] + " " + text[match.end() :]


def _key(text: str) -> tuple[int | None, bool | None, str]:
    """(tonic or None, minor or None, the rest) of "in g minor", "e flat major", "minor", "f#"."""
    pattern = r"\b([a-h])[ -]?(#|sharp\b|flat\b|b(?=[ ,.]|$))?[ -]?(major|minor)\b"
    found = list(re.finditer(pattern, text)) or list(
        re.finditer(r"\bin ([a-h])[ -]?(#|sharp\b|flat\b|b(?=[ ,.]|$))?()(?=[ ,.;!]|$)", text)
    )
    if not found:
        modes = re.findall(r"\b(major|minor)\b", text)
        return None, (modes[-1] == "minor") if modes else None, text
    keys = {((_LETTERS[m[1]] + _SIGNS[m[2] or ""]) % 12, m[3]) for m in found}
    if len(keys) > 1:
        raise ConjureError(f"expected one key, got {', '.join(m[0].strip() for m in found)}",
                           hint='for example: "calm, in G minor"')
    ((tonic, mode),) = keys
    for match in reversed(found):
        text = text[: match.start()] + " " + text[match.end() :]
    return tonic, {"minor": True, "major": False, "": None}[mode], text
