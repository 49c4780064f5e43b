"""Conversations put together of sentences by several people, who take turns and never speak at once.

Legend: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from conjure.codecs.voice_activity import VoiceActivity, spans
from conjure.core.errors import ConjureError
from conjure.data.spoilt_sound import RATE, Floats, mixed, noise

TURN = (1.5, 8.0)
"""Seconds of a turn, at least and at most."""
GAP = (0.1, 0.8)
LEVEL = 0.05
_EDGE = 160
"""Samples over which a turn begins and ends softly."""


@dataclass(frozen=True, eq=False)
class Dialogue:
    """float32 `[N]` at 16 kHz, and who speaks from when to when, in seconds."""

    samples: Floats
    said: tuple[tuple[float, float, str], ...]


def dialogue(
    people: Mapping[str, Sequence[Floats]], seconds: float, draw: np.random.Generator, *, decibels: float = 30.0
) -> Dialogue:
    """Turns by `people` (name -> sentences), equally loud to within 3 dB, in noise `decibels` below them.

    Nobody has two turns after each other, and everybody has one before anybody has a third.
    """
    if len(people) < 2:
        raise ConjureError(f"a dialogue takes two people or more, got {len(people)}")
    parts, said, at, order = list[Floats](), list[tuple[float, float, str]](), 0.0, list[str]()
    while at < seconds or len(order) < 2 * len(people):
        # The first turns go round, so that all are heard; then whoever did not speak last.
        able = list(people) if not order else [name for name in people if name != order[-1]]
        name = list(people)[len(order)] if len(order) < len(people) else able[int(draw.integers(len(able)))]
        order.append(name)
        own = people[name][int(draw.integers(len(people[name])))]
        turn_N = _turn(own, draw)
        gap = np.zeros(round(float(draw.uniform(*GAP)) * RATE), np.float32)
        said.append((at, at + len(turn_N) / RATE, name))
        parts += [turn_N, gap]
        at += (len(turn_N) + len(gap)) / RATE
    whole_N = np.concatenate(parts)
    return Dialogue(mixed(whole_N, noise(len(whole_N), draw), decibels), tuple(said))


def _turn(sentence_N: Floats, draw: np.random.Generator) -> Floats:
    """A part of a sentence, without silence at its ends, at about one level."""
    size = round(float(draw.uniform(*TURN)) * RATE)
    at = int(draw.integers(max(1, len(sentence_N) - size)))
    part_N = sentence_N[at : at + size]
    if voiced := spans(part_N, RATE, VoiceActivity(margin=0.0)):
        part_N = part_N[voiced[0][0] : voiced[-1][1]]
    level = LEVEL * 10 ** (draw.uniform(-3, 3) / 20) / max(1e-6, float(np.sqrt((part_N**2).mean())))
    edge_N = np.minimum(1, np.minimum(np.arange(len(part_N)), np.arange(len(part_N))[::-1]) / _EDGE)
    return (part_N * edge_N * level).clip(-1, 1).astype(np.float32)
