from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from conjure.core.config import to_dict
from conjure.core.errors import ConjureError
from conjure.metrics.bits import logistic_nats
from conjure.models.folder import save_weights, write_config
from conjure.models.vq_vae import VQVAE, VQVAEConfig, load_vq_vae

CONFIG = VQVAEConfig(width=8, blocks=1, codes=16, code_dim=4)


@pytest.fixture
def network() -> VQVAE:
    torch.manual_seed(0)
    made = VQVAE(CONFIG)
    made.start_from(pictures(8))
    return made


def pictures(count: int = 3) -> torch.Tensor:
    values = torch.randint(0, 256, (count, 3, 8, 12), generator=torch.Generator().manual_seed(count))
    return values / 127.5 - 1


def test_the_fast_ways_say_the_same_as_the_forward_pass(network: VQVAE) -> None:
    x = pictures()
    nats, commitment_B, ids = network.eval()(x)
    assert nats.shape == x.shape and commitment_B.shape == (3,) and ids.shape == (3, 2, 3)
    assert torch.equal(network.encode(x), ids)
    assert torch.allclose(network.nats(x, ids), nats, atol=1e-4)
    mean, log_scale = network._distribution(network.quantiser.vectors(ids).movedim(-1, 1))
    assert torch.allclose(logistic_nats(x, mean, log_scale), network.nats(x, ids))
    assert torch.equal(network.decode(ids), mean) and len(ids.unique()) > 4


def test_every_parameter_and_the_codes_learn(network: VQVAE) -> None:
    x = pictures(16)[..., :1, :1].expand(-1, -1, 8, 12).contiguous()  # plain colours
    before = network.quantiser.codes_CD.clone()
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=3e-3), []
    for _ in range(30):
        nats, commitment_B, _ = network(x)
        loss = nats.mean() + 0.25 * commitment_B.mean()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        if len(losses) == 2:  # what starts at zero has passed its first gradient on by now
            assert all(p.grad is not None and p.grad.any() for p in network.parameters())
        optimizer.step()
    assert losses[-1] < losses[0] - 0.2 and not torch.equal(network.quantiser.codes_CD, before)


def test_operations_are_counted(network: VQVAE) -> None:
    counted: list[float] = []

    def count(module: nn.Module, _: object, out: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        counted.append(2.0 * module.weight.numel() * out.shape[-1] * out.shape[-2])

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    network(pictures(1))
    for hook in hooks:
        hook.remove()
    assert network.flops(6) == sum(counted) + 2 * 6 * 16 * 4


def test_saved_and_loaded(network: VQVAE, tmp_path: Path) -> None:
    write_config(tmp_path, kind="vq_vae", task="vq_vae", network=network, sections={"codec": to_dict(CONFIG)})
    save_weights(tmp_path, "codec", network)
    again = load_vq_vae(tmp_path)
    assert torch.equal(again.encode(pictures()), network.encode(pictures())) and not again.training
    assert torch.equal(again.quantiser.codes_CD, network.quantiser.codes_CD)


def test_sides_that_four_does_not_divide(network: VQVAE) -> None:
    with pytest.raises(ConjureError, match="multiples of 4, got 10 x 8"):
        network.encode(torch.zeros(1, 3, 8, 10))
    with pytest.raises(ConjureError, match="expected decay"):
        VQVAEConfig(decay=1.0)
