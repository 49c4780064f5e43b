from __future__ import annotations

from typing import Any

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.nn.vocoding import HifiGan, HifiGanConfig

SMALL: dict[str, Any] = {"channels": 6, "width": 8, "rates": (4, 2), "kernels": (8, 4), "block_kernels": (3,),
                         "block_dilations": ((1, 3),)}  # fmt: skip


def frames(T: int = 9) -> torch.Tensor:
    return torch.randn(2, 6, T, generator=torch.Generator().manual_seed(1))


def test_a_frame_is_a_hop_of_samples_between_minus_one_and_one() -> None:
    network = HifiGan(HifiGanConfig(**SMALL))
    assert network.config.hop == 8
    made = network(100 * frames())
    assert made.shape == (2, 72) and made.abs().max() <= 1 and made.std() > 0


def test_what_is_far_away_changes_nothing() -> None:
    network, given = HifiGan(HifiGanConfig(**SMALL)), frames(60)
    other = given.clone()
    other[:, :, 45:] += 1
    differs = (network(given) != network(other)).any(0).nonzero()
    assert 8 * 30 < int(differs.min()) <= 8 * 45 and int(differs.max()) == 8 * 60 - 1


def test_the_scale_of_a_file_and_a_speaker() -> None:
    plain, scaled = HifiGan(HifiGanConfig(**SMALL)), HifiGan(HifiGanConfig(**SMALL, scaled=True))
    scaled.load_state_dict({**plain.state_dict(), "mean": torch.arange(6.0), "scale": torch.full((6,), 2.0)})
    assert torch.equal(scaled(frames()), plain((frames() - torch.arange(6.0)[:, None]) / 2))
    heard = HifiGan(HifiGanConfig(**SMALL, speaker=3))
    first, other = (heard(frames(), torch.full((2, 3, 1), value)) for value in (0.0, 1.0))
    assert not torch.equal(first, other) and not torch.equal(heard(frames()), first)


@pytest.mark.parametrize(("said", "wrong"), [
    ({"kernels": (8,)}, "a rate and a kernel for each stage"), ({"kernels": (8, 5)}, "by an even number"),
    ({"block_dilations": ()}, "a kernel and dilations for each block"), ({"width": 6}, "cannot halve a width of 6"),
    ({"block_kernels": (4,)}, "expected odd kernels"),
])  # fmt: skip
def test_what_does_not_fit(said: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConjureError, match=wrong):
        HifiGanConfig(**{**SMALL, **said})
