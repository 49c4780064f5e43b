"""Knowing voices: pooling against a plain loop, padding, the loss in closed form, loudness."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conjure.core.errors import ConjureError
from conjure.models.who import MEL, Calibration, Who, WhoConfig, embedded, features, prototypical, statistics, voice
from tests.data.sounds import buzz

SMALL = WhoConfig(dim=16, hidden=24, kernel=3, dilations=(1, 2), channels=12, attention=6, embedding=8)


def network(seed: int = 0) -> Who:
    torch.manual_seed(seed)
    made = Who(SMALL)
    torch.nn.init.normal_(made.weigh.weight, std=0.7)
    return made.eval().requires_grad_(False)


def test_pooling_is_that_of_a_loop() -> None:
    made, h_BSC = network(), torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(1))
    lengths = [7, 4]
    here = torch.tensor([[float(s < n) for s in range(7)] for n in lengths])[..., None]
    found = statistics(h_BSC, made.weights(h_BSC, here))
    for row, length in enumerate(lengths):
        x_SC = h_BSC[row, :length]
        even = torch.cat([x_SC.mean(0), (x_SC.var(0, correction=0) + 1e-5).sqrt()])
        scores = [made.weigh(torch.tanh(made.look(torch.cat([x_C, even])))) for x_C in x_SC]
        for channel in range(12):
            weights = [math.exp(float(score[channel])) for score in scores]
            values = [float(x_C[channel]) for x_C in x_SC]
            mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
            spread = sum(w * (v - mean) ** 2 for w, v in zip(weights, values, strict=True)) / sum(weights)
            assert float(found[row, channel]) == pytest.approx(mean, abs=1e-5)
            assert float(found[row, 12 + channel]) == pytest.approx(math.sqrt(spread + 1e-5), abs=1e-5)


def test_padding_does_not_change_a_voice() -> None:
    made, mel_1TM = network(), torch.randn(1, 41, MEL.bands, generator=torch.Generator().manual_seed(2))
    alone = made.embed(mel_1TM, torch.tensor([41]))
    padded = torch.cat([F.pad(mel_1TM, (0, 0, 0, 60), value=9.0), torch.randn(1, 101, MEL.bands)])
    together = made.embed(padded, torch.tensor([41, 101]))
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(2))
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_sounds_of_several_lengths_at_once_are_as_alone() -> None:
    made, sounds = network(), [buzz(0.8, 1), buzz(0.31, 2), buzz(0.05, 3)]
    together = embedded(made, sounds)
    for sound, row in zip(sounds, together, strict=True):
        np.testing.assert_allclose(embedded(made, [sound])[0], row, atol=1e-5)


def test_loudness_does_not_matter() -> None:
    sound = torch.from_numpy(buzz(0.5, 3))
    torch.testing.assert_close(features(0.01 * sound), features(sound), rtol=0, atol=2e-3)
    assert features(torch.zeros(4000)).abs().max() == 0


def test_a_voice_is_the_mean_over_parts() -> None:
    made, sound = network(), buzz(7.0, 4)
    parts = [embedded(made, [sound[start : start + 48_000]])[0] for start in (0, 24_000, 48_000, 72_000)]
    wanted = np.sum(parts, axis=0)
    np.testing.assert_allclose(voice(made, sound), wanted / np.linalg.norm(wanted), atol=1e-5)
    np.testing.assert_allclose(voice(made, np.tile(sound, 12)), voice(made, np.tile(sound, 9)), atol=1e-6)  # a minute


def test_the_loss_in_closed_form() -> None:
    """Two speakers at right angles: each clip finds its other one with odds e^scale to 1."""
    one = torch.eye(2, 3)
    wanted = 4 * math.log1p(math.exp(-5.0))
    assert float(prototypical(one, one, torch.tensor([7, 8]), torch.tensor(5.0))) == pytest.approx(wanted, abs=1e-6)
    swapped = 4 * math.log1p(math.exp(5.0))
    assert float(prototypical(one, one.flip(0), torch.tensor([7, 8]), torch.tensor(5.0))) == pytest.approx(swapped)
    same = prototypical(one, one.flip(0), torch.tensor([7, 7]), torch.tensor(5.0))  # no wrong answer is left
    assert float(same) == pytest.approx(0, abs=1e-6)


def test_training_makes_the_loss_smaller() -> None:
    torch.manual_seed(0)
    made = Who(SMALL)
    mel_BTM = torch.stack([features(torch.from_numpy(buzz(0.5, n // 2) + 0.01 * buzz(0.5, 9 + n))) for n in range(8)])
    lengths, speakers = torch.full((8,), mel_BTM.shape[1]), torch.arange(8) // 2
    optimiser, losses = torch.optim.AdamW(made.parameters(), 3e-3), list[float]()
    for _ in range(12):
        loss = made(mel_BTM, lengths, speakers)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_chances_and_refusals() -> None:
    made = Calibration(same=0.5, slope=10.0)
    assert made.probability(0.5) == 0.5 and made.probability(0.6) == pytest.approx(1 / (1 + math.exp(-1)))
    assert Calibration(slope=1e9).probability(-1.0) == pytest.approx(0, abs=1e-300)
    with pytest.raises(ConjureError, match="odd kernel"):
        WhoConfig(kernel=4)
    assert network().flops(2, 100) == 2 * network().flops(1, 100) > 0
