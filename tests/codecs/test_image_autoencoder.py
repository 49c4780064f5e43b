"""The autoencoder begins as the best linear code there is, and its latents come out normalised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from conjure.codecs.image_autoencoder import (
    ImageAutoencoder,
    ImageAutoencoderConfig,
    ResidualBlock,
    channels_last,
    from_pixels,
    reconstruction_loss,
    to_pixels,
)
from conjure.core.errors import ConjureError
from conjure.core.seeds import normal

CONFIG = ImageAutoencoderConfig(latent_channels=5, width=8, fine_width=4)


def pictures(count: int = 6, side: int = 32, seed: int = 0) -> Tensor:
    """Smooth random pictures, so that patches have a few strong components."""
    coarse = normal([seed + k for k in range(count)], (3, side // 8 + 1, side // 8 + 1))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=True).tanh()


def random(config: ImageAutoencoderConfig = CONFIG) -> ImageAutoencoder:
    network = ImageAutoencoder(config)
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(0.1 * normal([k], parameter.shape)[0])
    return network


def test_a_new_one_reconstructs_like_principal_components() -> None:
    x_BCHW = pictures()
    network = ImageAutoencoder(CONFIG)
    network.start_from(x_BCHW)
    patches_NP = torch.nn.functional.unfold(x_BCHW, 8, stride=8).mT.flatten(0, 1).double().numpy()
    mean_P = patches_NP.mean(0)
    _, _, axes_PP = np.linalg.svd(patches_NP - mean_P, full_matrices=False)
    top_ZP = axes_PP[:5]
    expected_NP = (patches_NP - mean_P) @ top_ZP.T @ top_ZP + mean_P
    rows_BPN = torch.from_numpy(expected_NP).view(len(x_BCHW), 16, -1).mT
    expected = torch.nn.functional.fold(rows_BPN, (32, 32), 8, stride=8).float()
    with torch.no_grad():
        made = network(x_BCHW)
    assert (made - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (made - x_BCHW).square().mean() < 0.5 * x_BCHW.square().mean()


def test_latents_are_normalised_and_decode_to_the_same_picture() -> None:
    x_BCHW, network = pictures(), random()
    network.normalise(x_BCHW)
    with torch.no_grad():
        z_BZhw = network.encode(x_BCHW)
        assert z_BZhw.shape == (6, 5, 4, 4)
        assert torch.allclose(z_BZhw.mean((0, 2, 3)), torch.zeros(5), atol=1e-5)
        assert torch.allclose(z_BZhw.std((0, 2, 3)), torch.ones(5), atol=1e-5)
        assert torch.allclose(network.decode(z_BZhw), network(x_BCHW), atol=1e-5)


def test_noise_is_a_share_of_each_channels_spread() -> None:
    x_BCHW, network = pictures(), ImageAutoencoder(CONFIG)
    network.start_from(x_BCHW)
    noise = normal(range(6), (5, 4, 4))
    with torch.no_grad():
        z_BZhw = network._code(x_BCHW)
        spread = z_BZhw.std(dim=(0, 2, 3), keepdim=True)
        expected = network._picture(z_BZhw + CONFIG.noise * spread * noise)
        assert torch.allclose(network(x_BCHW, noise), expected, atol=1e-6)
        assert not torch.allclose(network(x_BCHW, noise), network(x_BCHW), atol=1e-3)


@pytest.mark.parametrize("height, width", [(32, 30), (31, 32), (4, 8)])
def test_sides_that_eight_does_not_divide(height: int, width: int) -> None:
    with pytest.raises(ConjureError, match=f"multiples of 8, got {width} x {height} pixels"):
        random().encode(torch.zeros(1, 3, height, width))


def test_any_whole_number_of_cells_will_do() -> None:
    network = random()
    with torch.no_grad():
        assert network.decode(network.encode(torch.zeros(2, 3, 16, 40))).shape == (2, 3, 16, 40)


@pytest.mark.parametrize("config", [CONFIG, ImageAutoencoderConfig(channels=1, encoder_blocks=2, decoder_blocks=0)])
def test_flops(config: ImageAutoencoderConfig) -> None:
    network = ImageAutoencoder(config)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(2, config.channels, 16, 24))
    assert counter.get_total_flops() == network.flops(cells=2 * 2 * 3)


def test_channels_last_changes_no_value() -> None:
    x_BCHW, plain = pictures(2), random()
    with torch.no_grad():
        expected = plain(x_BCHW)
        network = channels_last(random())
        assert network.encoder[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr]
        assert (network(x_BCHW) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_new_block_changes_nothing() -> None:
    x = normal([0], (4, 6, 6))
    block = ResidualBlock(4)
    torch.nn.init.zeros_(block.second.bias)  # type: ignore[arg-type]
    assert torch.equal(block(x), x)


def test_pixels_to_floats_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    x_BCHW = from_pixels(pixels)
    assert x_BCHW.shape == (1, 1, 16, 16) and (x_BCHW.min(), x_BCHW.max()) == (-1, 1)
    assert torch.equal(to_pixels(x_BCHW), pixels)
    assert to_pixels(torch.tensor([-7.0, 7.0]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_the_loss_counts_pixels_and_edges() -> None:
    target = torch.zeros(2, 1, 2, 3)
    out = target.clone()
    out[1, 0] = torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    across, down = 1 / 4, 1 / 3
    assert reconstruction_loss(out, target).tolist() == pytest.approx([0, 1 / 6 + across + down])
