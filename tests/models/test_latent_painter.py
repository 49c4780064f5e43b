"""Networks that draw latents from a text: either conditions on it, and padding changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal
from conjure.models.latent_painter import LatentPainter, LatentPainterConfig
from conjure.models.mmdit import MMDiTConfig
from conjure.models.picture_text import PictureTextConfig
from conjure.models.unet import UNetConfig

TEXT = PictureTextConfig(vocab=20, length=6, dim=16, layers=1, heads=2)
UNET = LatentPainterConfig(text=TEXT, channels=3, side=8, patch=2, unet=UNetConfig(
    channels=12, channels_out=12, widths=(16, 24), residuals=1, depth=(1, 0), heads=(2, 2), context=16, groups=4))
MMDIT = LatentPainterConfig(text=TEXT, channels=3, side=8, mmdit=MMDiTConfig(
    channels=3, out_channels=3, patch=2, dim=16, layers=2, heads=2, context=16, pooled=16, size=8, places=4))


def network(config: LatentPainterConfig) -> LatentPainter:
    """With random weights: a new one says nothing yet."""
    made = LatentPainter(config).eval().requires_grad_(False)
    for k, parameter in enumerate(made.parameters()):
        parameter.copy_(0.2 * normal([k], parameter.shape)[0])
    return made


@pytest.mark.parametrize("config", [UNET, MMDIT])
def test_text_and_time_are_read_and_padding_is_not(config: LatentPainterConfig) -> None:
    made, x, t_B = network(config), normal([1], (3, 8, 8)), torch.tensor([0.5])
    words = torch.tensor([[1, 7, 9, 0, 0, 0]])
    out = made(x, t_B, words)
    assert out.shape == x.shape and out.dtype == torch.float32
    assert torch.allclose(made.paint(x, t_B, *made.read(words)), out)
    assert (made(x, t_B, torch.tensor([[1, 9, 7, 0, 0, 0]])) - out).abs().max() > 1e-4
    assert (made(x, torch.tensor([0.4]), words) - out).abs().max() > 1e-4
    states, mask, summary = made.read(words)
    other = states.clone()
    other[:, 3:] = 5
    assert torch.allclose(made.paint(x, t_B, other, mask, summary), out, atol=1e-6)
    assert (made.paint(x, t_B, states, mask, -summary) - out).abs().max() > 1e-4
    assert (made.paint(x, t_B, -states, mask, summary) - out).abs().max() > 1e-4


@pytest.mark.parametrize("config", [UNET, MMDIT])
def test_operations_are_counted(config: LatentPainterConfig) -> None:
    made = network(config)
    with FlopCounterMode(display=False) as counter:
        made(torch.zeros(2, 3, 8, 8), torch.zeros(2), torch.ones(2, 6, dtype=torch.long))
    seen = counter.get_total_flops()
    assert seen <= made.flops(2) <= 1.25 * seen, "on a CPU the counter leaves attention out"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConjureError, match="one of unet and mmdit"):
        replace(UNET, mmdit=MMDIT.mmdit)
    with pytest.raises(ConjureError, match="one of unet and mmdit"):
        LatentPainterConfig(text=TEXT)
    for config, change in ((UNET, {"patch": 1}), (UNET, {"side": 9}), (MMDIT, {"side": 16}), (MMDIT, {"patch": 2}),
                           (MMDIT, {"text": replace(TEXT, dim=8)}), (MMDIT, {"channels": 4})):
        with pytest.raises(ConjureError, match="expected channels"):
            replace(config, **change)
    with pytest.raises(ConjureError, match="a share from 0"):
        replace(MMDIT, drop=1.0)
