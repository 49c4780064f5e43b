from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal, kl_divergence

from conjure.core.errors import ConjureError
from conjure.metrics.bits import importance_bound
from conjure.models.vae import VAE, VAEConfig


def network(**changes: object) -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(side=4, latent=3, hidden=(8, 6), **changes))  # type: ignore[arg-type]


def pictures(samples: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    x_BHWC = (torch.rand(5, 4, 4, 1, generator=draw) < 0.4).float()
    return x_BHWC, torch.randn(5, samples, 3, generator=draw), torch.tensor([0, 1, 2, 1, 0])


@pytest.mark.parametrize("samples", [1, 4])
def test_the_terms_are_those_of_the_distributions(samples: int) -> None:
    vae, (x, noise, _) = network(), pictures(samples)
    likelihood_KB, divergence_B, ratio_KB = vae.terms(x, noise)
    mean, logvar = vae.encode(x)
    posterior, prior = Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)
    assert torch.allclose(divergence_B, kl_divergence(posterior, prior).sum(-1), atol=1e-5)
    assert likelihood_KB.shape == ratio_KB.shape == (samples, 5)
    for k in range(samples):
        z_BZ = mean + posterior.stddev * noise[:, k]
        expected = Bernoulli(logits=vae.decode(z_BZ)).log_prob(x).sum((1, 2, 3))
        assert torch.allclose(likelihood_KB[k], expected, atol=1e-5)
        ratio = (prior.log_prob(z_BZ) - posterior.log_prob(z_BZ)).sum(-1)
        assert torch.allclose(ratio_KB[k], ratio, atol=1e-5)


def test_the_loss_of_each_member_of_the_family() -> None:
    vae, (x, noise, _) = network(), pictures()
    likelihood_KB, divergence_B, _ = vae.terms(x, noise)
    assert torch.allclose(vae(x, noise), likelihood_KB[0] - divergence_B)
    assert torch.allclose(network(beta=4.0)(x, noise), likelihood_KB[0] - 4 * divergence_B, atol=1e-5)
    x, noise, _ = pictures(6)
    likelihood_KB, _, ratio_KB = vae.terms(x, noise)
    several = network(samples=6)(x, noise)
    assert torch.allclose(several, importance_bound(likelihood_KB + ratio_KB))
    assert (several > (likelihood_KB + ratio_KB).mean(0)).all()


def test_the_mean_of_the_ratio_is_the_divergence() -> None:
    vae, (x, _, _) = network(), pictures()
    noise = torch.randn(5, 20_000, 3, generator=torch.Generator().manual_seed(2))
    _, divergence_B, ratio_KB = vae.terms(x, noise)
    assert torch.allclose(-ratio_KB.mean(0), divergence_B, atol=0.05)


def test_a_conditional_one_is_told_the_class_on_both_sides() -> None:
    vae, (x, noise, labels) = network(classes=3), pictures()
    other = (labels + 1) % 3
    assert (vae.encode(x, labels)[0] != vae.encode(x, other)[0]).any()
    assert (vae.decode(noise[:, 0], labels) != vae.decode(noise[:, 0], other)).any()
    z_BZ = torch.cat([noise[:, 0], F.one_hot(labels, 3).float()], -1)
    assert torch.equal(vae.decode(noise[:, 0], labels).flatten(1), vae.decoder(z_BZ))
    assert torch.equal(network()(x, noise, labels), network()(x, noise)), "a plain one does not look at classes"
    several = pictures(2)[1]
    alone = torch.stack([vae.terms(x, several[:, k : k + 1], labels)[0][0] for k in range(2)])
    assert torch.allclose(vae.terms(x, several, labels)[0], alone, atol=1e-5), "each sample keeps its class"


@pytest.mark.parametrize("classes", [0, 3])
def test_convolutions_in_place_of_dense_layers(classes: int) -> None:
    vae, (x, noise, labels) = network(width=8, blocks=2, classes=classes), pictures(2)
    assert vae.decode(noise[:, 0], labels).shape == x.shape
    bound_B = vae(x, noise, labels)
    bound_B.sum().backward()
    assert all(p.grad is not None for p in vae.parameters())
    assert torch.allclose(vae(x[2:3], noise[2:3], labels[2:3]), bound_B[2:3], atol=1e-4)
    counted: list[float] = []

    def count(module: torch.nn.Module, _: object, out: torch.Tensor) -> None:
        places = out.shape[-1] * out.shape[-2] if isinstance(module, torch.nn.Conv2d) else 1
        counted.append(2.0 * module.weight.numel() * places * len(out))  # type: ignore[operator]

    for module in vae.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    vae(x, noise, labels)
    assert vae.flops(5, samples=2) == sum(counted)
    assert vae.to(torch.float32)(x.bfloat16(), noise, labels).isfinite().all(), "layers follow the precision of x"


def test_operations_are_counted() -> None:
    encoder, decoder = 16 * 8 + 8 * 6 + 6 * 6, 3 * 6 + 6 * 8 + 8 * 16
    assert network().flops(10, samples=5) == 2 * 10 * (encoder + 5 * decoder)


def test_what_does_not_go_together() -> None:
    with pytest.raises(ConjureError, match=r"model\.beta"):
        VAEConfig(samples=5, beta=4.0)
    with pytest.raises(ConjureError, match=r"model\.latent"):
        VAEConfig(latent=0)
    with pytest.raises(ConjureError, match=r"model\.width"):
        VAEConfig(width=6)
    with pytest.raises(ConjureError, match="hidden"):
        VAEConfig(hidden=())
