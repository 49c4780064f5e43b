"""The autoencoder of latent diffusion: sizes, and bands. Parity with diffusers: `public/test_autoencoders.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal
from conjure.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig

TINY: dict[str, Any] = {"widths": (8, 16, 16), "residuals": 1, "groups": 4}


def random(**changes: Any) -> AutoencoderKL:
    network = AutoencoderKL(AutoencoderKLConfig(**{**TINY, **changes}))
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(0.2 * normal([k], parameter.shape)[0] + (parameter.mean() == 1))
    return network.eval()


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [({}, 83_653_863), ({"latent": 16, "mixed_in": False, "mixed_out": False}, 83_819_683)],  # SD 1, XL; SD 3, Flux
)
def test_parameters_are_those_published(changes: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        network = AutoencoderKL(AutoencoderKLConfig(**changes))
    assert sum(p.numel() for p in network.parameters()) == parameters
    if not changes:
        halves = [sum(p.numel() for p in half.parameters()) for half in (network.encoder, network.decoder)]
        assert [round(half / 1e6, 2) for half in halves] == [34.16, 49.49]


@torch.no_grad()
@pytest.mark.parametrize("tile", [1, 2, 3, 5, 64])
def test_in_bands_it_decodes_the_same_picture_everywhere(tile: int) -> None:
    """Rounding apart: no seams, since norms and the middle still see the whole picture."""
    network, z = random(), normal([1, 2], (4, 11, 6))
    whole, banded = network.decode(z), network.decode(z, tile=tile)
    assert whole.shape == (2, 3, 44, 24)
    assert (banded - whole).abs().max() <= 1e-5 * whole.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(("height", "tile"), [(44, 1), (44, 4), (47, 2), (45, 3), (44, 64)])
def test_in_bands_it_encodes_the_same_latents_everywhere(height: int, tile: int) -> None:
    network, x = random(), normal([1, 2], (3, height, 24))
    for whole, banded in zip(network.encode(x), network.encode(x, tile=tile), strict=True):
        assert whole.shape == (2, 4, 11, 6)
        assert (banded - whole).abs().max() <= 1e-5 * whole.abs().max()


@torch.no_grad()
def test_latents_are_shifted_then_scaled() -> None:
    network, z = random(scale=2.0, shift=0.5), normal([1], (4, 2, 2))
    assert torch.allclose(network.to_latent(z), 2 * z - 1)
    assert torch.allclose(network.from_latent(network.to_latent(z)), z, atol=1e-6)


@torch.no_grad()
def test_the_wrong_input_is_named() -> None:
    network = random()
    with pytest.raises(ConjureError, match="decodes 4 channels, got 16"):
        network.decode(torch.zeros(1, 16, 2, 2))
    with pytest.raises(ConjureError, match="reads 3 channels and sides from 4 pixels, got 3 channels, 3 x 8"):
        network.encode(torch.zeros(1, 3, 8, 3))


@pytest.mark.parametrize("change", [{"widths": (6, 8)}, {"latent": 0}, {"scale": 0.0}, {"widths": ()}])
def test_configs_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(ConjureError, match="expected"):
        AutoencoderKLConfig(**{**TINY, **change})
