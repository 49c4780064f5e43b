from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conjure.train.optim import Muon, build_optimizers, orthogonalize, split_parameters

PLAIN = {"adam_lr": None, "betas": (0.9, 0.95), "weight_decay": 0.1}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthogonalize_slowly(g: np.ndarray) -> np.ndarray:
    """The same iteration on the singular values, in float64: x -> a x + b x^3 + c x^5, five times."""
    left, values, right = np.linalg.svd(g.astype(np.float64), full_matrices=False)
    x = values / (np.sqrt((values**2).sum()) + 1e-7)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    return left * x @ right


@pytest.mark.parametrize("shape", [(12, 12), (6, 20), (20, 6), (1, 5)])
def test_orthogonalize_acts_on_singular_values_alone(shape: tuple[int, int]) -> None:
    g_KMN = draw(3, *shape)
    out_KMN = orthogonalize(g_KMN)
    for g, out in zip(g_KMN, out_KMN, strict=True):
        expected = torch.from_numpy(orthogonalize_slowly(g.numpy())).float()
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        singular = torch.linalg.svdvals(out)
        assert singular.max() < 1.3
        if min(shape) < max(shape):  # a square random matrix has one singular value near nothing
            assert singular.min() > 0.6


def test_muon_step_is_the_formula() -> None:
    shapes = [(8, 8), (4, 10), (8, 8), (6, 3, 2, 2)]
    parameters = [nn.Parameter(draw(*shape, seed=i)) for i, shape in enumerate(shapes)]
    expected = [p.detach().numpy().astype(np.float64).reshape(p.size(0), -1) for p in parameters]
    momenta = [np.zeros_like(e) for e in expected]
    optimizer = Muon(parameters, lr=0.02, weight_decay=0.1)
    for step in range(3):
        for i, parameter in enumerate(parameters):
            parameter.grad = draw(*shapes[i], seed=100 + 10 * step + i)
            g = parameter.grad.numpy().astype(np.float64).reshape(parameter.size(0), -1)
            momenta[i] = 0.95 * momenta[i] + 0.05 * g
            update = orthogonalize_slowly(0.05 * g + 0.95 * momenta[i]) * 0.2 * max(g.shape) ** 0.5
            expected[i] = (1 - 0.02 * 0.1) * expected[i] - 0.02 * update
        optimizer.step()
    for parameter, reference in zip(parameters, expected, strict=True):
        target = torch.from_numpy(reference).float().view(parameter.shape)
        torch.testing.assert_close(parameter.detach(), target, rtol=0, atol=1e-5 * float(target.abs().max()))


def test_muon_moves_as_far_as_adam() -> None:
    weight = nn.Parameter(torch.zeros(64, 256))
    weight.grad = draw(64, 256)
    Muon([weight], lr=1.0).step()
    assert 0.15 < float(weight.detach().square().mean().sqrt()) < 0.25  # Moonlight: AdamW's lies in 0.2..0.4


def test_adamw_step_is_the_formula() -> None:
    network = nn.Linear(3, 4)
    parameters = dict(network.named_parameters())
    built = build_optimizers(parameters, split_parameters(network), optimizer="adamw", lr=0.01, **PLAIN)
    expected = {name: p.detach().double().clone() for name, p in parameters.items()}
    first = {name: torch.zeros_like(e) for name, e in expected.items()}
    second = {name: torch.zeros_like(e) for name, e in expected.items()}
    for step in range(1, 4):
        for i, (name, parameter) in enumerate(parameters.items()):
            parameter.grad = draw(*parameter.shape, seed=7 * step + i)
            g = parameter.grad.double()
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.95 * second[name] + 0.05 * g * g
            update = first[name] / (1 - 0.9**step) / ((second[name] / (1 - 0.95**step)).sqrt() + 1e-8)
            decay = 0.1 if name == "weight" else 0.0
            expected[name] = (1 - 0.01 * decay) * expected[name] - 0.01 * update
        for optimizer in built:
            optimizer.step()
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.detach().double(), expected[name], rtol=0, atol=1e-5)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(4, 4), nn.Embedding(3, 4))])
        self.own = nn.ModuleList([nn.Linear(4, 4)])
        self.own[0].weight.adam = True  # type: ignore[assignment]
        self.frozen = nn.ModuleList([nn.Linear(4, 4).requires_grad_(False)])
        self.head = nn.Linear(4, 5)


def test_split_names_every_trained_parameter_once() -> None:
    muon, adam = split_parameters(Mixed())
    assert muon == ["blocks.0.0.weight", "blocks.0.1.weight"]
    assert set(adam) == {
        "embed.weight", "blocks.0.0.bias", "blocks.0.1.bias", "blocks.0.2.weight",
        "own.0.weight", "own.0.bias", "head.weight", "head.bias",
    }  # fmt: skip


def test_rates_of_the_two_optimisers() -> None:
    network = Mixed()
    parameters = dict(network.named_parameters())
    settings = PLAIN | {"adam_lr": 0.003}
    built = build_optimizers(parameters, split_parameters(network), optimizer="muon", lr=0.02, **settings)
    peaks = [[group["peak"] for group in optimizer.param_groups] for optimizer in built]
    assert peaks == [[0.02], [0.003, 0.003]]
    assert [group["weight_decay"] for group in built[1].param_groups] == [0.1, 0.0]
