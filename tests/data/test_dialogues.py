"""Conversations put together: who speaks when is what the sound holds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.data.dialogues import GAP, LEVEL, TURN, dialogue
from tests.data.sounds import RATE, buzz

PEOPLE = {name: [buzz(9.0, seed), buzz(3.0, seed)] for name, seed in (("ann", 1), ("ben", 5), ("cy", 9))}


def test_turns_are_where_it_says() -> None:
    made = dialogue(PEOPLE, 30.0, np.random.default_rng(0), decibels=60.0)
    names = [name for _, _, name in made.said]
    assert names[:3] == ["ann", "ben", "cy"] and len(names) >= 6
    assert all(one != other for one, other in itertools.pairwise(names))
    assert 30 <= len(made.samples) / RATE < 30 + TURN[1] + GAP[1] and made.samples.dtype == np.float32
    for (_, end, _), (start, _, _) in itertools.pairwise(made.said):
        assert GAP[0] - 0.01 <= start - end <= GAP[1] + 0.01
        pause = made.samples[round(end * RATE) + 10 : round(start * RATE) - 10]
        assert np.sqrt((pause**2).mean()) < 0.01 * LEVEL
    for start, end, _ in made.said:
        turn = made.samples[round(start * RATE) : round(end * RATE)]
        assert 0.65 * LEVEL < np.sqrt((turn**2).mean()) < 1.45 * LEVEL and end - start <= TURN[1] + 0.01


def test_the_same_again_and_too_few() -> None:
    one, other = (dialogue(PEOPLE, 10.0, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one.samples, other.samples) and one.said == other.said
    with pytest.raises(ConjureError, match="two people"):
        dialogue({"ann": PEOPLE["ann"]}, 10.0, np.random.default_rng(0))
