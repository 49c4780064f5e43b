from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.data import noisy_speech
from conjure.data.noisy_speech import EFFECTS, KINDS, Noises, NoisyData, NoisySpeech
from tests.data.sounds import buzz, placed


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return with_effects(tmp_path, monkeypatch)


def with_effects(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """All sets of speech, four sounds of switches, one short piece of music."""
    placed(folder, patch)
    (folder / EFFECTS).mkdir()
    for number in range(4):
        soundfile.write(folder / EFFECTS / f"click_00{number}.wav", buzz(0.2, 70 + number, 44_100), 44_100)
    patch.setattr(noisy_speech, "PIECES", 1)
    patch.setattr(noisy_speech, "_PIECE", 1.0)
    return folder


def test_an_example_is_a_function_of_its_number(sets: Path) -> None:
    data = NoisyData(seconds=0.5)
    first, again, other = NoisySpeech(data, 1), NoisySpeech(data, 1), NoisySpeech(data, 2)
    made = [first.example(index) for index in range(12)]
    for index in reversed(range(12)):
        heard_N, clean_N = made[index]
        assert heard_N.shape == clean_N.shape == (8000,) and heard_N.dtype == clean_N.dtype == np.float32
        assert np.isfinite(heard_N).all() and heard_N.any()
        assert all(np.array_equal(*pair) for pair in zip(made[index], again.example(index)))
    assert not np.array_equal(made[0][0], other.example(0)[0])


def test_without_noise_and_rooms_both_are_the_same(sets: Path) -> None:
    source = NoisySpeech(NoisyData(seconds=0.5, quiet=1.0, echo=0.0, alone=0.0))
    assert all(np.array_equal(*source.example(index)) for index in range(5))


def test_the_ratio_is_the_one_asked_for(sets: Path) -> None:
    source = NoisySpeech(NoisyData(seconds=0.5, quiet=0.0, echo=0.0, alone=0.0, decibels=(3.0, 3.0)))
    for index in range(8):
        heard_N, clean_N = source.example(index)
        apart = 10 * np.log10((clean_N**2).mean() / ((heard_N - clean_N) ** 2).mean())
        assert apart == pytest.approx(3, abs=0.05)


def test_where_nobody_speaks_nothing_is_wanted(sets: Path) -> None:
    source = NoisySpeech(NoisyData(seconds=0.5, alone=1.0, quiet=1.0))
    for index in range(5):
        heard_N, clean_N = source.example(index)
        assert not clean_N.any() and np.sqrt((heard_N**2).mean()) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [160, 12_000])
def test_noise_has_power_one(sets: Path, kind: str, count: int) -> None:
    voices = [buzz(0.5, seed) for seed in (90, 91)]
    for seed in range(3):
        noise_N = Noises(voices, held_out=False).of(kind, count, rng(seed))
        assert noise_N.shape == (count,) and noise_N.dtype == np.float32
        assert (noise_N.astype(np.float64) ** 2).mean() == pytest.approx(1, rel=1e-3)


def test_recorded_sounds_are_held_out_by_halves(sets: Path) -> None:
    seen, held = (Noises([], held_out=each)._effects for each in (False, True))
    assert len(seen) == len(held) == 2 and not {each.tobytes() for each in seen} & {each.tobytes() for each in held}


def test_bad_numbers_and_empty_sets_are_refused(sets: Path) -> None:
    with pytest.raises(ConjureError, match="lower one first"):
        NoisyData(decibels=(5.0, 0.0))
    with pytest.raises(ConjureError, match="shares"):
        NoisyData(echo=1.5)
    for path in (sets / EFFECTS).iterdir():
        path.unlink()
    with pytest.raises(ConjureError, match="click_001"):
        Noises([], held_out=True).of("effects", 100, rng(0))
