"""Adversarial losses: whose gradient goes where, the published formulas, and the penalty in closed form."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.gan import GAN, GANConfig

SMALL = {"side": 8, "channels": 1, "latent": 4, "widths": (6, 4)}


def made(game: str, **more: object) -> tuple[GAN, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    network = GAN(GANConfig(**{**SMALL, "game": game, **more}))  # type: ignore[arg-type]
    x = torch.rand(5, 1, 8, 8) * 2 - 1
    return network, (x, torch.randn(5, 4), torch.rand(5), torch.arange(5) % 2, torch.ones(5))


@pytest.mark.parametrize("game", ["nonsaturating", "hinge", "wasserstein"])
def test_each_network_has_the_gradient_of_its_own_loss(game: str) -> None:
    network, (x, z, mix, labels, turn) = made(game)
    network.eval()  # averages of batches would move between the passes
    critic_B, generator_B, _ = network(x, z, mix, labels, turn)
    (critic_B.sum() + generator_B.sum()).backward()
    both = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    assert both.keys() == dict(network.named_parameters()).keys()

    fake, critic = network.generator(z), network.critic
    if game == "wasserstein":
        own = critic(fake.detach()) - critic(x) + 10 * network.slope_penalty(x, fake.detach(), mix, labels)
        theirs = -critic(fake)
    elif game == "hinge":
        own = F.relu(1 - critic(x)) + F.relu(1 + critic(fake.detach()))
        theirs = -critic(fake)
    else:
        own = -F.logsigmoid(critic(x)) - F.logsigmoid(-critic(fake.detach()))
        theirs = -F.logsigmoid(critic(fake))
    for part, value in (("critic", own), ("generator", theirs)):
        network.zero_grad()
        value.sum().backward()
        for name, parameter in network.named_parameters():
            if name.startswith(part):
                assert parameter.grad is not None
                scale = float(parameter.grad.abs().max())
                assert torch.allclose(both[name], parameter.grad, atol=1e-5 * scale, rtol=0), name


def test_a_generator_that_sits_out_has_no_gradient() -> None:
    network, (x, z, mix, labels, turn) = made("hinge")
    critic_B, generator_B, _ = network(x, z, mix, labels, 0 * turn)
    assert not generator_B.any()
    (critic_B.sum() + generator_B.sum()).backward()
    assert all(p.grad is None for p in network.generator.parameters())
    assert all(p.grad is not None for p in network.critic.parameters())


def test_the_penalty_of_a_plane_is_its_slope_minus_one_squared() -> None:
    network, (x, z, mix, labels, _) = made("wasserstein")

    class Plane(nn.Module):
        def forward(self, x_BCHW: Tensor, labels_B: Tensor) -> Tensor:
            return 3.0 * x_BCHW[:, 0, 0, 0] + 4.0 * x_BCHW[:, 0, 7, 7]

    network.critic = Plane()  # type: ignore[assignment]
    with torch.no_grad():
        fake = network.generator(z)
        assert torch.allclose(network.slope_penalty(x, fake, mix, labels), torch.full((5,), 16.0))


def test_scores_of_an_even_game() -> None:
    """A critic that says 0 to everything: log 4, and 2 for the hinge."""
    for game, critic, generator in (("nonsaturating", math.log(4), math.log(2)), ("hinge", 2.0, 0.0)):
        network, given = made(game)
        nn.init.zeros_(network.critic.score.bias)
        network.critic.score.register_forward_hook(lambda module, args, out: out * 0)
        critic_B, generator_B, gap_B = network(*given)
        assert torch.allclose(critic_B, torch.full((5,), critic))
        assert torch.allclose(generator_B, torch.full((5,), generator)) and not gap_B.any()


def test_the_hinge_critic_has_matrices_of_norm_one() -> None:
    network, given = made("hinge", classes=2)
    for _ in range(50):  # each pass improves the estimate of the norm
        network(*given)
    network.eval()
    for module in (*network.critic.downs, network.critic.score, network.critic.embed):
        assert module is not None
        norm = torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2)  # type: ignore[operator,union-attr]
        assert float(norm) == pytest.approx(1, abs=0.02)


def test_classes_reach_both_networks() -> None:
    network, (x, z, _, labels, _) = made("hinge", classes=2)
    network.eval()
    assert not torch.equal(network.generator(z, labels), network.generator(z, 1 - labels))
    assert not torch.equal(network.critic(x, labels), network.critic(x, 1 - labels))


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ConjureError, match="30 cannot be halved 2 times"):
        GANConfig(side=30)


def test_pictures_of_one_class_are_paid_to_lie_as_far_apart_as_their_noise() -> None:
    network, (x, z, mix, labels, turn) = made("hinge", classes=2, seek=0.5)

    class Ramp(nn.Module):
        def forward(self, z_BZ: Tensor, labels_B: Tensor) -> Tensor:
            return (z_BZ.mean(1) * 2 + labels_B)[:, None, None, None].expand(-1, 1, 8, 8)

    network.eval()
    network.generator = Ramp()  # type: ignore[assignment]
    apart = z - z.roll(1, 0)
    wanted = apart.abs().mean() / (2 * apart.mean(1)).abs().mean()
    fake = network.generator(z, labels)
    assert torch.allclose(network.likeness(z, fake, labels), wanted, rtol=1e-4)
    _, paid_B, _ = network(x, z, mix, labels, turn)
    assert torch.allclose(paid_B, -network.critic(fake, labels) + 0.5 * wanted, rtol=1e-4)
    assert not network(x, z, mix, labels, 0 * turn)[1].any()
    with pytest.raises(ConjureError, match=r"model\.seek: expected 0 or more, got -1"):
        GANConfig(seek=-1)
