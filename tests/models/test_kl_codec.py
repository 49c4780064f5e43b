"""The variational autoencoder that scenes are drawn in: its divergence, the scale of its latents, its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from conjure.codecs.image_autoencoder import ImageAutoencoder, ImageAutoencoderConfig
from conjure.core.config import to_dict
from conjure.core.errors import ConjureError
from conjure.core.seeds import normal
from conjure.models.autoencoder_kl import AutoencoderKLConfig
from conjure.models.folder import save_weights, write_config
from conjure.models.kl_codec import KLCodec, KLCodecConfig, divergence, load_any_codec, load_kl_codec

SMALL = KLCodecConfig(
    autoencoder=AutoencoderKLConfig(channels=12, latent=3, widths=(8, 8), residuals=1, groups=4, attends=False), patch=2
)


def network() -> KLCodec:
    torch.manual_seed(0)
    return KLCodec(SMALL).eval()


def kept(made: torch.nn.Module, config: object, folder: Path) -> Path:
    write_config(folder, kind="any", task="any", network=made, sections={"codec": to_dict(config)})
    save_weights(folder, "codec", made)
    return folder


def test_the_divergence_is_that_of_two_normal_distributions() -> None:
    mean, logvar = normal([1, 2], (3, 4, 5)), normal([3, 4], (3, 4, 5))
    wanted_B = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(divergence(mean, logvar), wanted_B, rtol=1e-5, atol=1e-5)
    assert divergence(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)).item() == 0


@torch.no_grad()
def test_it_is_the_autoencoder_over_patches_through_a_sample() -> None:
    made = network()
    x, noise = normal([1, 2], (3, 16, 8)), normal([3, 4], (3, 4, 2))
    out, mean, logvar = made(x, noise)
    wanted_mean, wanted_logvar = made.autoencoder.encode(functional.pixel_unshuffle(x, 2))
    assert mean.shape == (2, 3, 4, 2) and torch.equal(mean, wanted_mean) and torch.equal(logvar, wanted_logvar)
    sample = mean + torch.exp(logvar / 2) * noise
    assert torch.allclose(out, functional.pixel_shuffle(made.autoencoder.decode(sample), 2), atol=1e-5)
    assert out.shape == x.shape and (out - made(x, 0 * noise)[0]).abs().max() > 1e-3
    assert -5 < logvar.mean().item() < -3, "a new network is sure of its latents"


@torch.no_grad()
def test_latents_have_mean_0_and_deviation_1_after_measuring_and_decode_the_same() -> None:
    made, x = network(), normal([1, 2, 3], (3, 16, 16))
    before = made.decode(made.encode(x))
    made.normalise(x)
    z = made.encode(x)
    assert abs(z.mean().item()) < 1e-4 and z.std().item() == pytest.approx(1, abs=1e-4)
    assert torch.allclose(made.decode(z), before, atol=1e-4)
    assert made.config.autoencoder.shift != 0 and made.config.patch == 2


@torch.no_grad()
def test_a_folder_gives_back_which_autoencoder_it_holds(tmp_path: Path) -> None:
    made, x = network(), normal([1], (3, 16, 16))
    made.normalise(x)
    kept(made, made.config, tmp_path / "kl")
    plain = ImageAutoencoderConfig(latent_channels=2, width=8, encoder_blocks=1, decoder_blocks=1, fine_width=4)
    kept(ImageAutoencoder(plain), plain, tmp_path / "plain")
    again = load_any_codec(tmp_path / "kl")
    assert isinstance(again, KLCodec) and torch.equal(again.encode(x), made.encode(x))
    assert isinstance(load_any_codec(tmp_path / "plain"), ImageAutoencoder)
    with pytest.raises(ConjureError, match="expected a variational autoencoder"):
        load_kl_codec(tmp_path / "plain")


def test_operations_are_counted_and_what_does_not_fit_is_refused() -> None:
    made = network()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 4, 4))
    assert made.flops(16, 16) == counter.get_total_flops()
    with pytest.raises(ConjureError, match="multiples of 4, got 18 x 16"):
        made.encode(torch.zeros(1, 3, 16, 18))
    with pytest.raises(ConjureError, match="3 channels for each of 1 x 1"):
        KLCodecConfig(autoencoder=SMALL.autoencoder, patch=1)
    with pytest.raises(ConjureError, match="weights from 0"):
        KLCodecConfig(autoencoder=SMALL.autoencoder, patch=2, kl=-1)
