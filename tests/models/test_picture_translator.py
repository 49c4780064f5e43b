"""Two generators and their critics: whose gradient goes where, ways there and back, sizes, patches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.picture_translator import (
    CycleTranslator,
    PairTranslator,
    PatchCritic,
    Translator,
    TranslatorConfig,
    distance,
    rivals,
)

TINY = TranslatorConfig(side=16, widths=(16, 16), blocks=1, critic_widths=(8, 8), weight=3.0)


def given(config: TranslatorConfig = TINY, count: int = 3) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    shapes = (count, config.before, config.side, config.side), (count, config.after, config.side, config.side)
    x, y = (torch.rand(shape, generator=draw) * 2 - 1 for shape in shapes)
    return x, y


def gradients(network: nn.Module, value: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def same(found: dict[str, Tensor], expected: dict[str, Tensor], part: str) -> None:
    wanted = {name: grad for name, grad in expected.items() if name.startswith(part)}
    assert wanted
    for name, grad in wanted.items():
        assert torch.allclose(found[name], grad, atol=1e-5 * float(grad.abs().max()) + 1e-12, rtol=0), name


def test_pix2pix_gives_each_network_the_gradient_of_its_own_loss() -> None:
    torch.manual_seed(0)
    network, (x, y) = PairTranslator(TINY), given()
    critic_B, judged_B, apart_B = network(x, y)
    both = gradients(network, (critic_B + judged_B + 3 * apart_B).sum())
    assert both.keys() == dict(network.named_parameters()).keys()
    made = network.generator(x)
    real, fake = network.critic(torch.cat([x, y], 1)), network.critic(torch.cat([x, made.detach()], 1))
    own = ((real - 1) ** 2).mean(1) / 2 + (fake**2).mean(1) / 2
    same(both, gradients(network, own.sum()), "critic")
    judged = ((network.critic(torch.cat([x, network.generator(x)], 1)) - 1) ** 2).mean(1)
    closeness = (network.generator(x) - y).abs().flatten(1).mean(1)
    same(both, gradients(network, (judged + 3 * closeness).sum()), "generator")
    alone = gradients(network, network(x, y)[0].sum())
    assert alone and all(name.startswith("critic") for name in alone)
    judging = gradients(network, network(x, y)[1].sum())
    assert judging and all(name.startswith("generator") for name in judging)


def test_cycle_gan_gives_each_network_the_gradient_of_its_own_loss() -> None:
    torch.manual_seed(0)
    network, (x, y) = CycleTranslator(TINY), given()
    critic_B, judged_B, cycle_B = network(x, y)
    both = gradients(network, (critic_B + judged_B + 3 * cycle_B).sum())
    assert both.keys() == dict(network.named_parameters()).keys()
    with torch.no_grad():
        there, back = network.there(x), network.back(y)
    own = sum(
        ((critic(real) - 1) ** 2).mean(1) / 2 + (critic(fake) ** 2).mean(1) / 2
        for critic, real, fake in ((network.critic_there, y, there), (network.critic_back, x, back))
    )
    assert isinstance(own, Tensor)
    same(both, gradients(network, own.sum()), "critic")
    there, back = network.there(x), network.back(y)
    judged = ((network.critic_there(there) - 1) ** 2).mean(1) + ((network.critic_back(back) - 1) ** 2).mean(1)
    cycle = (network.back(there) - x).abs().flatten(1).mean(1) + (network.there(back) - y).abs().flatten(1).mean(1)
    theirs = gradients(network, (judged + 3 * cycle).sum())
    same(both, theirs, "there")
    same(both, theirs, "back")
    alone = gradients(network, network(x, y)[0].sum())
    assert alone and all(name.startswith("critic_") for name in alone)


def test_who_changes_nothing_arrives_where_they_started() -> None:
    config = TranslatorConfig(side=8, widths=(16,), critic_widths=(8,), before=2, after=2)
    network, (x, y) = CycleTranslator(config), given(config)
    assert float(network(x, y)[2].detach().min()) > 0.1
    network.there = network.back = nn.Identity()  # type: ignore[assignment]
    assert not network(x, y)[2].any()

    class Negative(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            return -x_BCHW

    network.there = Negative()  # type: ignore[assignment]
    assert torch.allclose(network(x, y)[2], 2 * (distance(x, 0 * x) + distance(y, 0 * y)))


def test_scores_of_an_even_game() -> None:
    class Half(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            return torch.full((len(x_BCHW), 4), 0.5)

    critic_B, judged_B = rivals(Half(), *given(TranslatorConfig(before=3)))
    assert critic_B.tolist() == judged_B.tolist() == [0.25] * 3


@pytest.mark.parametrize(("widths", "wide"), [((8,), 10), ((8, 8), 16), ((8, 8, 8), 34)])
def test_a_patch_is_as_wide_as_said(widths: tuple[int, ...], wide: int) -> None:
    critic = PatchCritic(TranslatorConfig(critic_widths=widths), 1)
    for down in critic.downs:
        down.norm = None  # group norm sees the whole picture  # type: ignore[assignment]
    x = torch.rand(1, 1, 96, 96, requires_grad=True)
    scores_P = critic(x)[0]
    middle = int(len(scores_P) ** 0.5) // 2
    scores_P[middle * int(len(scores_P) ** 0.5) + middle].backward()
    assert x.grad is not None
    seen = x.grad[0, 0].abs().sum(0).nonzero().flatten()
    assert int(seen[-1] - seen[0]) + 1 == wide


def test_a_picture_is_the_same_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    network, (x, _) = Translator(TINY, 1, 3), given()
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(each[None]) for each in x])
    assert together.shape == (3, 3, 16, 16) and float(together.abs().max()) <= 1
    assert torch.allclose(together, alone, atol=1e-6)
    assert float((together[0] - together[1]).abs().max()) > 1e-4


def test_operations_are_those_of_the_convolutions() -> None:
    network, counted = PairTranslator(TINY), [0.0]

    def count(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        weight = module.weight  # type: ignore[union-attr]
        places = inputs[0][0, 0].numel() if isinstance(module, nn.ConvTranspose2d) else out[0, 0].numel()
        counted[0] += 2 * weight.numel() * places  # type: ignore[union-attr,operator]

    def up(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        count(module.conv, inputs, out)  # type: ignore[arg-type]

    for module in network.generator.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)  # type: ignore[arg-type]
    for module in network.generator.ups:
        module.register_forward_hook(up)  # type: ignore[arg-type]
    x, y = given(count=1)
    network.generator(x)
    assert network.generator.flops(16) == counted[0]
    counted[0] = 0
    for module in network.critic.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)  # type: ignore[arg-type]
    network.critic(torch.cat([x, y], 1))
    assert network.critic.flops(16) == counted[0]
    assert network.flops(5) == 5 * (network.generator.flops(16) + 3 * network.critic.flops(16))


def test_half_precision_is_taken() -> None:
    network, (x, y) = PairTranslator(TINY), given()
    for value in network(x.bfloat16(), y.bfloat16()):
        assert value.dtype == torch.float32 and bool(value.isfinite().all())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConjureError, match="can be halved 4 times"):
        TranslatorConfig(side=24)
    with pytest.raises(ConjureError, match="multiples of 8, the first of 16"):
        TranslatorConfig(widths=(24, 32))
    with pytest.raises(ConjureError, match="channels above 0"):
        TranslatorConfig(weight=-1.0)
    with pytest.raises(ConjureError, match="expected side 64, before 1 and after 3"):
        TINY.expect(64, 1, 3)
