from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.models.class_dit import ClassDiT, ClassDiTConfig
from conjure.models.pixel_denoiser import PixelDenoiser, PixelDiffusionConfig

UNET = {"channels": 4, "channels_out": 4, "widths": [8, 16], "residuals": 1, "depth": [0, 1], "heads": [2, 2],
        "context": 0, "classes": 11, "groups": 4}  # fmt: skip
DIT = {"channels": 1, "out_channels": 1, "size": 28, "patch": 7, "dim": 16, "layers": 2, "heads": 2, "hidden": 32,
       "classes": 10}  # fmt: skip


def config(**values: Any) -> PixelDiffusionConfig:
    return from_dict(PixelDiffusionConfig, values, where="model")


class Kept(nn.Module):
    """Notes what it is given and gives it back."""

    def forward(self, x_BCHW: Tensor, t_B: Tensor, labels_B: Tensor | None = None) -> Tensor:
        self.x_BCHW, self.t_B, self.labels_B = x_BCHW, t_B, labels_B
        return x_BCHW


def test_one_network_and_one_process() -> None:
    both = config(unet=UNET, patch=2, edm={"sigma_data": 0.6})
    assert (both.channels, both.classes, both.multiple) == (1, 10, 2) and both.process is both.edm
    assert from_dict(PixelDiffusionConfig, to_dict(both), where="model") == both
    other = config(dit=DIT, ddpm={})
    assert (other.channels, other.classes, other.multiple) == (1, 10, 7) and other.process is other.ddpm
    for wrong in ({"unet": UNET, "patch": 2}, {"unet": UNET, "dit": DIT, "flow": {}}, {"edm": {}, "flow": {}},
                  {"unet": UNET, "flow": {}, "patch": 3}, {"dit": DIT, "flow": {}, "patch": 2},
                  {"dit": DIT | {"out_channels": 2}, "flow": {}},
                  {"unet": UNET | {"context": 8}, "patch": 2, "flow": {}}):  # fmt: skip
        with pytest.raises(ConjureError):
            config(**wrong)


@pytest.mark.parametrize(
    ("process", "told", "clock"), [("flow", 0.25, 250), ("edm", -0.3, -300), ("ddpm", 250, 250)]
)
def test_clocks_suit_the_waves_and_pixels_come_back_to_their_places(process: str, told: float, clock: float) -> None:
    denoiser = PixelDenoiser(config(unet=UNET, patch=2, **{process: {}}))
    kept = denoiser.network = Kept()  # type: ignore[assignment]
    x_BCHW, labels_B = torch.randn(2, 1, 6, 8), torch.tensor([3, 10])
    assert torch.equal(denoiser(x_BCHW, torch.full((2,), told), labels_B), x_BCHW)
    assert torch.allclose(kept.t_B, torch.full((2,), float(clock))) and kept.labels_B is labels_B
    assert torch.equal(kept.x_BCHW[:, 1], x_BCHW[:, 0, ::2, 1::2]), "channel 1: the pixels right of the first ones"
    share = PixelDenoiser(config(unet=UNET, patch=2, ddpm={"clock": "share"}))
    assert share.stretch == 1000


@pytest.mark.parametrize("network", [{"unet": UNET, "patch": 2}, {"dit": DIT}])
def test_half_precision_is_inside(network: dict[str, Any]) -> None:
    torch.manual_seed(0)
    denoiser = PixelDenoiser(config(**network, edm={})).eval()
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    told = torch.randn(2, 1, 28, 28), torch.tensor([0.1, -0.5]), torch.tensor([3, 10])
    whole = denoiser(*told)
    for module in denoiser.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.bfloat16  # type: ignore[assignment]
    half = denoiser(*told)
    apart = float((half - whole).detach().abs().max() / whole.detach().abs().max())
    assert half.dtype == whole.dtype == torch.float32 and 1e-4 < apart < 0.1


def test_operations_are_those_of_the_network() -> None:
    both = config(dit=DIT, flow={})
    counted, said = PixelDenoiser(both).flops(28, 28), ClassDiT(ClassDiTConfig(**DIT)).flops(1, 28, 28)
    assert counted == pytest.approx(said, rel=0.05)
    coarse, fine = UNET | {"classes": 0}, UNET | {"classes": 0, "channels": 1, "channels_out": 1}
    at_2, at_1 = (PixelDenoiser(config(unet=each, patch=patch, flow={})).flops(28, 28)
                  for each, patch in ((coarse, 2), (fine, 1)))  # fmt: skip
    assert at_1 / at_2 > 3.5, "a patch of 2 saves three quarters of the work, and more of the attention"
