"""TAESD: sizes, and bands. Parity with diffusers: `public/test_autoencoders.py`."""

from __future__ import annotations

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal
from conjure.models.taesd import TinyAutoencoder, TinyAutoencoderConfig

TINY = TinyAutoencoderConfig(widths_in=(4, 4), widths_out=(4, 4), blocks_in=(0, 1), blocks_out=(1, 0))


def random() -> TinyAutoencoder:
    network = TinyAutoencoder(TINY)
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(0.2 * normal([k], parameter.shape)[0])
    return network


def test_parameters() -> None:
    with torch.device("meta"):
        network = TinyAutoencoder(TinyAutoencoderConfig())
    halves = [sum(p.numel() for p in half.parameters()) for half in (network.encoder, network.decoder)]
    assert halves == [1_222_532, 1_222_531]


@torch.no_grad()
@pytest.mark.parametrize("tile", [1, 3, 10])
def test_bands_are_the_whole(tile: int) -> None:
    network, z, x = random(), normal([1, 2], (4, 37, 3)), normal([1, 2], (3, 74, 6))
    pairs = ((network.decode(z), network.decode(z, tile)), (network.encode(x)[0], network.encode(x, tile)[0]))
    for whole, banded in pairs:
        assert (banded - whole).abs().max() <= 1e-6 * whole.abs().max()


@torch.no_grad()
def test_what_is_out_of_reach_does_not_matter() -> None:
    """The bound that bands rest on is not too small: a change so far away changes no bit."""
    network, z = random(), normal([1], (4, 40, 3))
    reach = network._reach()
    other = z.clone()
    other[:, :, 20] += 1
    touched = (network.decode(other) - network.decode(z)).abs().amax((0, 1, 3)).nonzero().flatten() // 2
    assert touched.numel()
    assert 20 - reach < touched.min()
    assert touched.max() < 20 + reach


def test_the_wrong_input_is_named() -> None:
    network = random()
    with pytest.raises(ConjureError, match="decodes 4 channels, got 16"):
        network.decode(torch.zeros(1, 16, 2, 2))
    with pytest.raises(ConjureError, match="sides that 2 divides, got 3 channels, 4 x 3"):
        network.encode(torch.zeros(1, 3, 3, 4))
    with pytest.raises(ConjureError, match="expected equal widths"):
        TinyAutoencoderConfig(widths_in=(4, 8, 8, 8))
