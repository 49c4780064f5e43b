from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.models import inception
from conjure.models.inception import BlockA, BlockB, BlockC, BlockD, BlockE, Inception, find_weights, load_inception

Layer = tuple[str, int, tuple[int, int]]
"""Name, stride, padding."""


@pytest.fixture(scope="module")
def network() -> Inception:
    """Random weights that keep activations of size one; statistics that are not 0 and 1."""
    torch.manual_seed(0)
    made = Inception().eval().requires_grad_(False)
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            module.weight.copy_(module.weight.half())  # so that a file of half the size holds the same
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return made


def written_out(block: nn.Module, x: Tensor, *layers: Layer) -> Tensor:
    """Layers one after the other, with nothing but torch's functions and the tensors' names."""
    state = block.state_dict()
    for name, stride, padding in layers:
        x = F.conv2d(x, state[f"{name}.conv.weight"], stride=stride, padding=padding)
        mean, var = state[f"{name}.bn.running_mean"][:, None, None], state[f"{name}.bn.running_var"][:, None, None]
        scale, shift = state[f"{name}.bn.weight"][:, None, None], state[f"{name}.bn.bias"][:, None, None]
        x = torch.relu((x - mean) / torch.sqrt(var + 0.001) * scale + shift)
    return x


def mean_around(x: Tensor) -> Tensor:
    """The mean of the up to nine places around each, by sums and counts."""
    kernel = torch.ones(x.shape[1], 1, 3, 3)
    counted = F.conv2d(torch.ones_like(x), kernel, padding=1, groups=x.shape[1])
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1]) / counted


def plain(*names: str, padding: tuple[int, int] = (0, 0)) -> list[Layer]:
    return [(f"branch{name}", 1, padding) for name in names]


def reference(block: nn.Module, x: Tensor) -> Tensor:
    """Each block as the paper's figures 5 to 7 draw it, pooling as FID's weights need it."""
    row, column, same = (0, 3), (3, 0), (1, 1)

    def out(*layers: Layer) -> Tensor:
        return written_out(block, x, *layers)

    if isinstance(block, BlockA):
        five = out(*plain("5x5_1"), *plain("5x5_2", padding=(2, 2)))
        twice = out(*plain("3x3dbl_1"), *plain("3x3dbl_2", "3x3dbl_3", padding=same))
        parts = [out(*plain("1x1")), five, twice, written_out(block, mean_around(x), *plain("_pool"))]
    elif isinstance(block, BlockB):
        twice = out(*plain("3x3dbl_1"), *plain("3x3dbl_2", padding=same), ("branch3x3dbl_3", 2, (0, 0)))
        parts = [out(("branch3x3", 2, (0, 0))), twice, F.max_pool2d(x, 3, 2)]
    elif isinstance(block, BlockC):
        once = out(*plain("7x7_1"), *plain("7x7_2", padding=row), *plain("7x7_3", padding=column))
        twice = [plain("7x7dbl_1"), plain("7x7dbl_2", padding=column), plain("7x7dbl_3", padding=row)]
        twice += [plain("7x7dbl_4", padding=column), plain("7x7dbl_5", padding=row)]
        pooled = written_out(block, mean_around(x), *plain("_pool"))
        parts = [out(*plain("1x1")), once, out(*(layer for some in twice for layer in some)), pooled]
    elif isinstance(block, BlockD):
        large = [*plain("7x7x3_1"), *plain("7x7x3_2", padding=row), *plain("7x7x3_3", padding=column)]
        small = out(*plain("3x3_1"), ("branch3x3_2", 2, (0, 0)))
        parts = [small, out(*large, ("branch7x7x3_4", 2, (0, 0))), F.max_pool2d(x, 3, 2)]
    else:
        assert isinstance(block, BlockE)
        start = [*plain("3x3dbl_1"), *plain("3x3dbl_2", padding=same)]
        parts = [out(*plain("1x1"))]
        parts += [out(*plain("3x3_1"), *plain(f"3x3_2{k}", padding=p)) for k, p in (("a", (0, 1)), ("b", (1, 0)))]
        parts += [out(*start, *plain(f"3x3dbl_3{k}", padding=p)) for k, p in (("a", (0, 1)), ("b", (1, 0)))]
        last = block.pool is inception.greatest
        parts.append(written_out(block, F.max_pool2d(x, 3, 1, 1) if last else mean_around(x), *plain("_pool")))
    return torch.cat(parts, 1)


BLOCKS = {
    "Mixed_5b": (192, 256),
    "Mixed_5d": (288, 288),
    "Mixed_6a": (288, 768),
    "Mixed_6b": (768, 768),
    "Mixed_6e": (768, 768),
    "Mixed_7a": (768, 1280),
    "Mixed_7b": (1280, 2048),
    "Mixed_7c": (2048, 2048),
}
"""Channels before and behind."""


@pytest.mark.parametrize("name", BLOCKS)
def test_each_block_written_out(network: Inception, name: str) -> None:
    block, (channels, width) = getattr(network, name), BLOCKS[name]
    x = torch.from_numpy(rng(0).normal(size=(1, channels, 7, 7)).astype(np.float32))
    expected = reference(block, x)
    assert expected.shape[1] == width
    assert (block(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_only_the_last_block_pools_by_maximum(network: Inception) -> None:
    assert network.Mixed_7c.pool is inception.greatest and network.Mixed_7b.pool is inception.averaged


def test_parameters_names_and_sizes(network: Inception) -> None:
    """23,834,568 of Inception-v3 without its second classifier, less 2,049,000 of its classifier of 1,000 classes."""
    assert sum(p.numel() for p in network.parameters()) == 23_834_568 - 2_049_000
    names = set(network.state_dict())
    assert {"Conv2d_1a_3x3.conv.weight", "Mixed_5b.branch3x3dbl_3.bn.running_var", "Mixed_7c.branch3x3_2a.conv.weight",
            "Mixed_6c.branch7x7dbl_5.bn.bias", "Mixed_7a.branch7x7x3_4.conv.weight"} <= names  # fmt: skip
    assert len([name for name in names if name.endswith("conv.weight")]) == 94
    assert network(torch.zeros(1, 3, 75, 75)).shape == (1, 2048)


def weights(network: Inception, classes: int) -> dict[str, Tensor]:
    state = {n: t.clone() for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    state = {n: t.half() if n.endswith("conv.weight") else t for n, t in state.items()}
    return state | {"fc.weight": torch.zeros(classes, 2048), "fc.bias": torch.zeros(classes)}


def test_weights_from_a_folder_a_file_and_the_hub(
    network: Inception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ConjureError, match="found no pt_inception") as caught:
        find_weights()
    assert "never read" in caught.value.hint
    place = tmp_path / "hub" / "models--a--b" / "snapshots" / "c"
    place.mkdir(parents=True)
    file = place / "pt_inception-2015-12-05-6726825d.safetensors"
    save_file(weights(network, 1008), file)
    assert find_weights() == find_weights(place) == find_weights(file) == file

    assert inception.SIDE == 299
    monkeypatch.setattr(inception, "SIDE", 75)  # the smallest that it reads
    extractor = load_inception(place)
    picture = rng(0).integers(0, 256, (2, 75, 75, 3)).astype(np.uint8)
    expected = network(torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 127.5 - 1)
    np.testing.assert_allclose(extractor(picture), expected.numpy(), rtol=1e-4, atol=1e-5 * float(expected.max()))
    assert extractor.count == 2048
    assert "2048 features of 75x75 pixels, resized bicubic with antialiasing" in extractor.protocol
    assert "classes" not in extractor.protocol
    small = extractor(np.full((1, 5, 9, 1), 128, np.uint8))
    assert small.shape == (1, 2048) and np.isfinite(small).all()


def test_other_files_are_told_apart(network: Inception, tmp_path: Path) -> None:
    save_file(weights(network, 1000), tmp_path / "model.safetensors")
    assert "a file of 1,000 classes, not the one" in load_inception(tmp_path).protocol
    wrong = weights(network, 1008)
    del wrong["Mixed_7c.branch1x1.conv.weight"]
    save_file(wrong, tmp_path / "model.safetensors")
    with pytest.raises(ConjureError, match=r"is not Inception-v3:\n.*Mixed_7c.branch1x1.conv.weight"):
        load_inception(tmp_path)
    (tmp_path / "second.safetensors").write_bytes(b"")
    with pytest.raises(ConjureError, match="found 2 of them"):
        load_inception(tmp_path)
    with pytest.raises(ConjureError, match="not a whole safetensors file"):
        load_inception(tmp_path / "second.safetensors")
    with pytest.raises(ConjureError, match="no folder and no such file"):
        load_inception(tmp_path / "absent")
