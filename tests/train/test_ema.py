from __future__ import annotations

import pytest
import torch

from conjure.train.ema import EMA, decay_at


def test_decay_warms_up() -> None:
    assert [decay_at(s, 0.9) for s in (0, 1, 8, 80, 1000)] == pytest.approx([0.1, 2 / 11, 0.5, 0.9, 0.9])


def test_average_is_the_weighted_sum_of_the_past() -> None:
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    weight = values[0].clone()
    ema = EMA({"weight": weight}, 0.4)
    expected = values[0].double()
    for step, value in enumerate(values[1:]):
        weight.copy_(value)
        ema.update(step)
        decay = min(0.4, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value.double()
    torch.testing.assert_close(ema.average["weight"].double(), expected, atol=1e-6, rtol=1e-6)


def test_swapping_restores_the_bits_even_after_an_error() -> None:
    weight = torch.randn(5, generator=torch.Generator().manual_seed(1))
    ema = EMA({"weight": weight}, 0.9)
    weight += 0.3
    own, average = weight.clone(), ema.average["weight"].clone()
    with pytest.raises(KeyError), ema.swapped():
        assert torch.equal(weight, average)
        raise KeyError
    assert torch.equal(weight, own)
    assert torch.equal(ema.average["weight"], average)
