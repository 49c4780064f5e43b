"""GPTQ beside rounding to nearest, and calibration of whole networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.calibration import calibrate, gptq, hessian
from conjure.nn.linear import Linear
from conjure.nn.quantised import QuantisedLinear, quantise, quantised
from conjure.nn.rounding import Weights, restored, rounded

DRAW = torch.Generator().manual_seed(0)
FORMS: list[tuple[Weights, int]] = [("int8", 32), ("int8", 0), ("int4", 32)]


def correlated(rows: int = 400, inputs: int = 160) -> Tensor:
    """Inputs that a dozen hidden causes explain for the most part."""
    causes = torch.randn(rows, 12, generator=DRAW) @ torch.randn(12, inputs, generator=DRAW)
    return causes + 0.3 * torch.randn(rows, inputs, generator=DRAW)


def matrix(outputs: int = 20, inputs: int = 160) -> Tensor:
    return torch.randn(outputs, inputs, generator=DRAW)


@pytest.mark.parametrize(("weights", "group"), FORMS)
@pytest.mark.parametrize("ordered", [False, True])
def test_products_with_correlated_inputs_are_nearer(weights: Weights, group: int, ordered: bool) -> None:
    x, weight = correlated(), matrix()
    near = restored(*rounded(weight, weights, group))
    better = restored(*gptq(weight, hessian(x), weights, group, ordered=ordered))
    assert (x @ (better - weight).T).norm() < 0.6 * (x @ (near - weight).T).norm()
    fresh = correlated(100)  # other causes: nothing is gained, and little is lost
    assert (fresh @ (better - weight).T).norm() < 2.5 * (fresh @ (near - weight).T).norm()


@pytest.mark.parametrize(("weights", "group"), FORMS)
@pytest.mark.parametrize("ordered", [False, True])
def test_with_uncorrelated_inputs_it_is_rounding_to_nearest(weights: Weights, group: int, ordered: bool) -> None:
    weight = matrix()
    diagonal = torch.diag(torch.rand(160, generator=DRAW) + 0.1)
    for got, want in zip(
        gptq(weight, diagonal, weights, group, ordered=ordered), rounded(weight, weights, group), strict=True
    ):
        assert torch.equal(got, want)


def test_errors_are_answered_as_the_closed_form_says() -> None:
    """Two inputs: with the first rounded by e, the best second is w2 + e H12 / H22 (a least-squares fit)."""
    h = torch.tensor([[2.0, 1.2], [1.2, 1.0]])
    weight = torch.tensor([[0.5, 127.0]])  # in whole steps of scale 1: 0.5 becomes 0, an error of 0.5
    q, scale = gptq(weight, h, "int8", 0, damping=0.0)
    assert scale.tolist() == [[1.0]] and q[0, 0] == 0
    assert q[0, 1] == 127  # 127.6 is clipped
    q, _ = gptq(torch.tensor([[0.5, 50.0, 127.0]]), torch.block_diag(h, torch.ones(1, 1)), "int8", 0, damping=0.0)
    assert q.tolist() == [[0, 51, 127]]  # 50 + 0.5 * 1.2 rounds up


def test_inputs_that_never_come_are_rounded_to_nearest() -> None:
    x, weight = correlated(), matrix()
    x[:, 32:64] = 0
    got, want = gptq(weight, hessian(x), "int4"), rounded(weight, "int4")
    assert torch.equal(got[0][:, 16:32], want[0][:, 16:32])


def test_fewer_rows_than_inputs_do() -> None:
    x, weight = correlated(5), matrix()
    better = restored(*gptq(weight, hessian(x), "int4"))
    assert torch.isfinite(better).all()
    assert (x @ (better - weight).T).norm() < (x @ (restored(*rounded(weight, "int4")) - weight).T).norm()


def test_activations_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ConjureError, match="no finite numbers"):
        gptq(matrix(), torch.full((160, 160), torch.nan), "int4")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Linear(64, 64), Linear(64, 32, bias=False)
        self.unused = Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x) / 8))


def network() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Net().requires_grad_(False)


def test_a_network_is_calibrated_layer_after_layer() -> None:
    x = correlated(600, 64)
    reference, near, better = network(), network(), network()
    want = reference(x)
    quantise(near, "int4")
    quantise(better, "int4", calibration=x.split(200))
    assert all(isinstance(module, QuantisedLinear) for module in better.children())
    assert torch.equal(better.unused.weight, quantised(reference.unused, "int4").weight)
    assert (better(x) - want).norm() < 0.8 * (near(x) - want).norm()
    # The second layer was fitted to what comes through the rounded first one.
    halfway = torch.tanh(better.first(x) / 8)
    q, scale = gptq(reference.second.weight, hessian(halfway), "int4", ordered=True)
    module = better.second
    assert isinstance(module, QuantisedLinear)
    mine = (halfway @ (module.weight - reference.second.weight).T).norm()
    ideal = (halfway @ (restored(q, scale) - reference.second.weight).T).norm()
    assert mine <= 1.3 * ideal


def test_what_is_skipped_or_not_reached_stays_and_hooks_are_gone() -> None:
    net = network()
    calibrate(net, "int8", [correlated(50, 64)], skip=("second",))
    assert isinstance(net.first, QuantisedLinear)
    assert type(net.second) is Linear and type(net.unused) is Linear
    assert not net.second._forward_hooks
    calls: list[int] = []
    calibrate(net, "int8", [correlated(50, 64)], run=lambda n, x: calls.append(len(x)))
    assert calls == [50] and type(net.second) is Linear


def test_batches_must_fit_together() -> None:
    for batches in ([], [torch.zeros(2, 64), torch.zeros(2, 32)], [torch.zeros(0, 64)]):
        with pytest.raises(ConjureError, match="batches of equal length"):
            calibrate(network(), "int8", batches)
