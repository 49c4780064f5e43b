from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from conjure.codecs.stretches import phrases, softest, stretches
from conjure.codecs.voice_activity import Floats, VoiceActivity

RATE = 8000


def speech(*loud: tuple[float, float], seconds: float, noise: float = 1e-4) -> Floats:
    """Syllables of a tone, four a second and each as loud as it likes, from and to these seconds, over soft noise."""
    time, draw = np.arange(round(seconds * RATE)) / RATE, np.random.default_rng(0)
    sound = noise * draw.standard_normal(len(time))
    for start, end in loud:
        for at in np.arange(start, end, 0.25):
            here = (time >= at) & (time < min(at + draw.uniform(0.1, 0.2), end))
            sound[here] += draw.uniform(0.05, 0.5) * np.sin(2 * np.pi * 300 * time[here])
    return sound.astype(np.float32)


def blocks(sound: Floats, seconds: float) -> Iterator[Floats]:
    size = round(seconds * RATE)
    return (sound[start : start + size] for start in range(0, len(sound), size))


def test_stretches_are_the_sound_cut_in_its_pauses() -> None:
    sound = speech((0, 7.0), (7.6, 15.0), (15.8, 20.0), seconds=20)
    found = list(stretches(blocks(sound, 1.5), RATE, longest=10, last=4))
    np.testing.assert_array_equal(np.concatenate([samples for _, samples in found]), sound)
    starts = [at / RATE for at, _ in found]
    assert starts[0] == 0 and 7.0 < starts[1] < 7.6 and 15.0 < starts[2] < 15.8 and len(starts) == 3
    assert starts == [sum(len(samples) for _, samples in found[:n]) / RATE for n in range(3)]


def test_a_short_sound_is_one_stretch_and_none_gives_none() -> None:
    sound = speech((0, 1), seconds=2)
    (only,) = stretches(blocks(sound, 0.5), RATE, longest=10)
    assert only[0] == 0 and np.array_equal(only[1], sound)
    assert list(stretches([], RATE, longest=10)) == []


def test_sound_too_short_to_be_measured_is_cut_at_its_end() -> None:
    assert softest(np.zeros(100, np.float32), RATE, from_=50) == 100


def test_live_phrases_grow_and_end_with_a_pause() -> None:
    sound = speech((2.0, 4.0), (6.0, 7.0), seconds=9)
    found = list(phrases(blocks(sound, 0.25), RATE, VoiceActivity()))
    assert found[0] is None
    over = [each for each in found if each is not None and each.over]
    assert [each.start / RATE for each in over] == pytest.approx([2.0, 6.0], abs=0.35)
    assert [len(each.samples_N) / RATE for each in over] == pytest.approx([2.4, 1.4], abs=0.5)
    for each in over:
        np.testing.assert_array_equal(each.samples_N, sound[each.start : each.start + len(each.samples_N)])
    growing = [len(each.samples_N) for each in found if each is not None and not each.over]
    assert len(growing) >= 8 and growing[:8] == sorted(growing[:8])


def test_a_phrase_without_end_is_cut_where_it_is_softest() -> None:
    sound = speech((0.5, 12.0), (12.35, 18.0), seconds=18)  # a gap too short for a pause
    over = [each for each in phrases(blocks(sound, 0.25), RATE, VoiceActivity()) if each is not None and each.over]
    assert len(over) == 2 and over[0].start + len(over[0].samples_N) == pytest.approx(12.15 * RATE, abs=0.3 * RATE)


def test_what_is_being_said_when_the_sound_ends_is_a_phrase() -> None:
    over = [each for each in phrases(blocks(speech((2, 4), seconds=4), 0.25), RATE, VoiceActivity()) if each]
    assert over[-1].over and over[-1].start / RATE == pytest.approx(2, abs=0.35)


def test_without_a_gate_all_of_it_is_read() -> None:
    sound = speech(seconds=1)
    (*_, last) = phrases(blocks(sound, 0.25), RATE, None)
    assert last is not None and last.over and np.array_equal(last.samples_N, sound)
