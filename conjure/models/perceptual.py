"""How different two pictures look to a fixed network: a distance between the maps of its layers.

Zhang et al. 2018 (arXiv 1801.03924, equation 1) without their learnt weights: at each place of each layer the channels
are scaled to a vector of length 1, and the squared differences of these vectors are averaged over places. Even an
untrained network sees blur that a distance between pixels forgives.

Legend: B batch, C channels, H and W sides.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from conjure.core.errors import ConjureError
from conjure.core.shelf import find
from conjure.models.features import FeatureConfig, FeatureNetwork, load_network, new_network

EPS = 1e-6
UNTRAINED = FeatureConfig(size=64, patch=2, widths=(32, 64, 128), features=8, classes=2)
"""Layout of the network where no trained one is named."""


def judge(folder: str | Path = "") -> FeatureNetwork:
    """The network of a `features-...` recipe, or an untrained one, always the same; it reads colour and has no
    gradients."""
    if folder:
        network = load_network(find(folder))
        if network.config.channels != 3:
            raise ConjureError(f"{folder}: expected a network that reads colour, this one reads grey",
                               hint="conjure train features-scenes makes one")
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return new_network(UNTRAINED).eval().requires_grad_(False)


def maps(network: FeatureNetwork, x_BCHW: Tensor) -> list[Tensor]:
    """What each layer makes of pictures of any size that `patch` and the halvings divide, scaled to length 1."""
    x = functional.pixel_unshuffle(x_BCHW, network.config.patch).contiguous(memory_format=torch.channels_last)
    found = []
    for depth, stage in enumerate(network.stages):
        x = stage(functional.max_pool2d(x, 2) if depth else x)
        found.append(x * (x.square().sum(1, keepdim=True) + EPS).rsqrt())
    return found


def distance(network: FeatureNetwork, made_BCHW: Tensor, true_BCHW: Tensor) -> Tensor:
    """`[B]`, 0 where pictures are equal, at most about 4; pictures are in [-1, 1]. Gradients flow to `made` alone."""
    with torch.no_grad():
        wanted = maps(network, true_BCHW)
    layers = zip(maps(network, made_BCHW), wanted, strict=True)
    return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in layers]).mean(0)
