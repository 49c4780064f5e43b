from __future__ import annotations

import dataclasses

import pytest
import torch

from conjure.core import seeds as randomness
from conjure.core.errors import ConjureError
from conjure.models.voice import Voice, VoiceConfig, normalised, restored
from tests.models.small_voice import VOICE, speaker


@pytest.fixture(scope="module")
def network() -> Voice:
    return speaker().voice


def test_frames_belong_to_the_phone_they_lie_in(network: Voice) -> None:
    """Phones end at 1.5, 2.5 and 6.2: frames 0 and 1 are of the first, 2 of the second, 3 to 6 of the third."""
    h_BPD = randomness.normal([0], (3, VOICE.dim))
    ends_BP, voice_B = torch.tensor([[1.5, 2.5, 6.2]]), torch.tensor([1])
    bare = dataclasses.replace(VOICE, prior_layers=0)
    with randomness.drawing_weights(3):
        plain = Voice(bare).eval().requires_grad_(False)
    at_BT = torch.arange(9)[None]
    x_BTD, mean = plain.frames(h_BPD, ends_BP, voice_B, at_BT, torch.ones(1, 9, 1))
    told = x_BTD[0] - plain.voices.weight[1]
    for t, phone in enumerate([0, 0, 1, 2, 2, 2, 2, 2, 2]):
        start, end = [0.0, 1.5, 2.5][phone], [1.5, 2.5, 6.2][phone]
        share = min(max((t - start) / (end - start), 0), 1)
        place = torch.tensor([share, torch.cos(torch.tensor(torch.pi * share)), min(max(t - start, 0), 8) / 8,
                              min(max(end - t, 0), 8) / 8, torch.log(torch.tensor(end - start))])  # fmt: skip
        wanted = h_BPD[0, phone] + plain.place(place)
        assert float((told[t] - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())
    torch.testing.assert_close(mean, plain.mean(x_BTD))


def test_a_sentence_is_the_same_alone_and_beside_a_longer_one(network: Voice) -> None:
    phones = torch.tensor([[0, 5, 9, 0, -1, -1], [0, 3, 4, 30, 7, 0]])
    ends = torch.tensor([[2.0, 4, 7, 9, 9, 9], [1.0, 3, 6, 9, 12, 15.0]])
    voices, t_B = torch.tensor([2, 0]), torch.tensor([0.4, 0.8])
    at_BT = torch.arange(16).expand(2, -1)
    counted = (at_BT < torch.tensor([10, 16])[:, None]).float()[..., None]
    x_BTM = randomness.normal([0, 1], (16, 80))

    def run(rows: slice, P: int, T: int) -> torch.Tensor:
        h, _ = network.encode(phones[rows, :P], voices[rows])
        g, mean = network.frames(h, ends[rows, :P], voices[rows], at_BT[rows, :T], counted[rows, :T])
        return network.estimate(x_BTM[rows, :T], t_B[rows], g, mean, counted[rows, :T])

    both, alone = run(slice(0, 2), 6, 16), run(slice(0, 1), 4, 10)
    assert float((both[:1, :10] - alone).abs().max()) < 1e-5 * float(alone.abs().max())


def test_losses_are_those_of_the_parts(network: Voice) -> None:
    phones, ends = torch.tensor([[0, 5, 9, 0]]), torch.tensor([[2.0, 4, 7, 9]])
    voice, first = torch.tensor([2]), torch.tensor([3])
    mel, noise, t_B = randomness.normal([0], (6, 80)), randomness.normal([1], (6, 80)), torch.tensor([0.7])
    counted = torch.tensor([[1.0, 1, 1, 1, 0, 0]])
    flow_B, mean_B, duration_B = network(phones, ends, voice, first, mel, counted, noise, t_B)
    h, _ = network.encode(phones, voice)
    wanted = (network.log_durations(h)[0] - torch.tensor([2.0, 2, 3, 2]).log()).square().mean()
    torch.testing.assert_close(duration_B[0], wanted)
    g, mean = network.frames(h, ends, voice, torch.arange(3, 9)[None], counted[..., None])
    torch.testing.assert_close(mean_B[0], (mean - mel)[0, :4].abs().mean())
    noisy = 0.3 * mel + 0.7 * noise
    error = (network.estimate(noisy, t_B, g, mean, counted[..., None]) - mel)[0, :4] / 0.7
    torch.testing.assert_close(flow_B[0], error.square().mean())


def test_it_learns_a_sentence() -> None:
    with randomness.drawing_weights(1):
        network = Voice(VOICE)
    phones, ends = torch.tensor([[0, 5, 9, 0]]), torch.tensor([[3.0, 9, 14, 18]])
    mel = torch.cat([torch.full((1, 4, 80), -1.0), torch.full((1, 6, 80), 1.0), torch.zeros(1, 9, 80)], 1)
    counted, voice, first = torch.ones(1, 19), torch.tensor([0]), torch.tensor([0])
    optimizer, losses = torch.optim.AdamW(network.parameters(), 5e-3), []
    for k in range(40):
        noise, t_B = randomness.normal([k], (19, 80)), randomness.uniform([k])
        loss = torch.stack(network(phones, ends, voice, first, mel, counted, noise, t_B)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    with torch.no_grad():
        h, _ = network.encode(phones, voice)
        assert float((network.log_durations(h).exp()[0] - torch.tensor([3.0, 6, 5, 4])).abs().max()) < 1.5


def test_scale_and_count() -> None:
    mel = randomness.normal([0], (3, 4))
    torch.testing.assert_close(restored(normalised(mel)), mel)
    c, network = VOICE, speaker().voice
    matrices = sum(each.numel() for name, each in network.named_parameters() if each.dim() > 1 and any(
        part in name for part in ("encoder", "duration", "prior", "mean", "entry", "blocks", "ending.linear"))
        and "modulation" not in name)  # fmt: skip
    of_phone = c.encoder_layers * c.dim * (4 * c.dim + 2 * c.hidden + 5) + c.dim**2
    assert network.flops(1, 0) == 2 * of_phone
    assert network.flops(1, 1) == 2 * (matrices - c.dim)  # the last layer of the durations is left out


def test_what_cannot_be() -> None:
    with pytest.raises(ConjureError, match="heads"):
        VoiceConfig(dim=20, heads=3)
