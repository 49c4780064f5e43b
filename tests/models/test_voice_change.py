from __future__ import annotations

import numpy as np
import pytest
import torch

from conjure.codecs.pitch_comb import smoothed
from conjure.core.errors import ConjureError
from conjure.models.voice_change import LOUDER, VoiceChanger, Voiced, as_still, averaged, melody, speech_of
from tests.models import small_ear, small_voice

RATE, HOP, BANDS = 16_000, 200, 80


def vowel(hertz: float, seconds: float, formant: float = 700.0) -> np.ndarray:
    """Harmonics that are loudest around one frequency."""
    n = np.arange(round(seconds * RATE))
    tones = np.arange(hertz, 7500, hertz)
    heights = np.exp(-(((tones - formant) / 900) ** 2)) + 0.01
    return (0.05 * (heights[:, None] * np.sin(2 * np.pi * tones[:, None] / RATE * n)).sum(0)).astype(np.float32)


@pytest.fixture(scope="module")
def changer() -> VoiceChanger:
    return VoiceChanger(small_ear.ear(), small_voice.speaker().vocoder)


def frames(mouth_TM: torch.Tensor, phones: list[int], hertz: float = 100.0) -> Voiced:
    """A sound whose phones are sure, and whose states say which frame it is."""
    T = len(mouth_TM)
    phones_TP = torch.nn.functional.one_hot(torch.tensor(phones), 3).float()
    return Voiced(mouth_TM, torch.eye(T), phones_TP, np.full(T, hertz), mouth_TM)


def test_frames(changer: VoiceChanger) -> None:
    sound = np.concatenate([vowel(130, 1.0), np.zeros(8000, np.float32), vowel(130, 1.0)])
    seen = changer.seen(sound)
    T = 1 + len(sound) // HOP
    assert seen.mel.shape == seen.mouth.shape == (T, BANDS) and seen.states.shape[0] == len(seen.hertz) == T
    torch.testing.assert_close(seen.states.norm(dim=1), torch.ones(T))
    torch.testing.assert_close(seen.phones.sum(1), torch.ones(T))
    assert seen.pitch == pytest.approx(130, rel=0.02) and not seen.hertz[90:110].any()
    assert seen.speaking[20:60].all() and not seen.speaking[95:105].any()
    torch.testing.assert_close(seen.mouth, smoothed(seen.mel - changer.comb(seen.hertz)))


def test_long_sound_is_seen_in_pieces(changer: VoiceChanger, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = np.tile(np.concatenate([vowel(120, 0.8), np.zeros(3200, np.float32)]), 6)
    whole = changer.seen(sound)
    monkeypatch.setattr("conjure.models.voice_change.LONGEST", 2.0)
    pieces = changer.seen(sound)
    assert len(changer._pieces(sound)) > 2 and pieces.states.shape == whole.states.shape
    torch.testing.assert_close(pieces.mel, whole.mel)


def test_the_ear_looks_every_ten_milliseconds(changer: VoiceChanger) -> None:
    sound = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    states_FD, phones_FP = changer._heard(sound)
    assert len(states_FD) == len(phones_FP) == 101
    step = states_FD[1:] - states_FD[:-1]
    assert (step.norm(dim=1) > 0).all(), "no frame is that of another one"


def test_a_phone_moves_by_its_own_difference(changer: VoiceChanger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vocoder aside: frames of phones 0 and 1 end where the sample has them, whatever the states say."""
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(changer.vocoder, "whole", lambda mel_MT: seen.append(mel_MT.T) or torch.zeros(599 * HOP))
    phones = [0] * 300 + [1] * 300
    mine = frames(torch.cat([torch.full((300, BANDS), -4.0), torch.full((300, BANDS), -5.0)]), phones, 0.0)
    theirs = frames(torch.cat([torch.full((300, BANDS), -3.0), torch.full((300, BANDS), -6.0)]), phones, 0.0)
    changer.changed(mine, theirs, 0.0)
    (mel_TM,) = seen
    assert mel_TM[100].mean() == pytest.approx(-3.0, abs=0.1)
    assert mel_TM[500].mean() == pytest.approx(-6.0, abs=0.1)


def test_pauses_stay_as_still_as_they_were() -> None:
    mouth_TM = torch.cat([torch.full((10, BANDS), -3.0), torch.full((10, BANDS), -10.0)])
    sound = frames(mouth_TM, [0] * 20)
    made_TM = torch.cat([torch.full((10, BANDS), -2.0), torch.full((10, BANDS), -5.0)])
    found_TM = as_still(made_TM, sound)
    assert torch.equal(found_TM[:10], made_TM[:10])
    assert found_TM[10:].mean() == pytest.approx(-10 + 1 + LOUDER, abs=1e-4)
    torch.testing.assert_close(as_still(mouth_TM - 2, sound), mouth_TM - 2)


def test_the_nearest_frames_of_the_sample(changer: VoiceChanger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conjure.models.voice_change.NEAREST", 1)
    monkeypatch.setattr("conjure.models.voice_change.AT_ONCE", 7)
    mouth_TM = torch.randn(20, BANDS, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    mine, theirs = frames(torch.zeros(20, BANDS), [0] * 20), frames(mouth_TM, [0] * 20)
    shuffled = Voiced(mine.mel, mine.states[order], mine.phones, mine.hertz, mine.mouth)
    assert torch.equal(changer._nearest(shuffled, theirs), mouth_TM[order])


def test_melody() -> None:
    low = frames(torch.zeros(4, BANDS), [0] * 4)
    mine = Voiced(low.mel, low.states, low.phones, np.array([0, 90.0, 100.0, 110.0]), low.mouth)
    theirs = Voiced(low.mel, low.states, low.phones, np.array([0, 180.0, 200.0, 220.0]), low.mouth)
    found = melody(mine.hertz, mine, theirs)
    assert found == pytest.approx(theirs.hertz, rel=1e-3)
    assert mine.pitch == 100 and melody(mine.hertz, mine, frames(low.mel, [0] * 4, 0.0)) is mine.hertz


def test_averaged() -> None:
    x_TM = torch.zeros(11, 2)
    x_TM[5, 0] = 1.0
    found = averaged(x_TM, 3)
    torch.testing.assert_close(found[4:7, 0], torch.tensor([0.25, 0.5, 0.25]))
    torch.testing.assert_close(averaged(torch.ones(5, 2), 9), torch.ones(5, 2))


def test_what_is_spoken_of_a_sound() -> None:
    still = np.zeros(3 * RATE, np.float32)
    assert len(speech_of(still, RATE, 9)) == 0
    loud = np.concatenate([still, vowel(120, 1.0) * np.hanning(RATE).astype(np.float32), still])
    found = speech_of(loud, RATE, 9)
    assert 0.8 * RATE < len(found) < 2 * RATE and len(speech_of(loud, RATE, 0.5)) == RATE // 2


def test_the_mean_spectrum_is_what_was_asked_for(changer: VoiceChanger) -> None:
    """Whatever colour the vocoder gives: here 6 dB too little above 2 kHz."""
    noise = (0.1 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)
    wanted_TM = changer._mel(noise)
    spectrum = np.fft.rfft(noise)
    spectrum[len(spectrum) // 4 :] *= 0.5
    dull = np.fft.irfft(spectrum).astype(np.float32)
    here_T1 = torch.ones(len(wanted_TM), 1)
    found = changer._coloured(dull, wanted_TM, here_T1)
    assert len(found) == len(dull)
    before, after = ((changer._mel(each) - wanted_TM).mean(0) for each in (dull, found))
    assert before[45:75].mean() == pytest.approx(-np.log(2), abs=0.05) and after[45:75].abs().mean() < 0.1
    lag = np.fft.irfft(np.fft.rfft(found) * np.fft.rfft(noise).conj()).argmax()
    assert lag == 0


def test_too_short(changer: VoiceChanger) -> None:
    assert len(changer.changed(changer.seen(vowel(120, 0.03)), changer.seen(vowel(200, 1.0)), 0.5)) == 1600
    with pytest.raises(ConjureError, match="at least 25 ms"):
        changer.seen(np.zeros(100, np.float32))
