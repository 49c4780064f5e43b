from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from conjure.train.audit import Finding, audit, size
from conjure.train.loop import Training
from conjure.train.toy import VOCABULARY, Toy

CONFIG = Training(steps=100, batch=4, micro_batch=2, optimizer="muon", lr=2e-2, ema=0.9)


class Mean(Toy):
    """The fault that went through all trainers: a mean per micro batch, averaged over micro batches."""

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        total, count = super().loss(batch, network)
        return total / count, torch.tensor(1)


class Forgetful(Toy):
    """Examples depend on how often one has asked."""

    asked = 0

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        self.asked += 1
        return super().batch([index + self.asked for index in indices])


class Clairvoyant(Toy):
    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        return super().logits(batch).roll(-1, dims=1)


class Packed(Toy):
    """Two documents a row, which see each other: the toy network knows no borders."""

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        made = super().batch(indices)
        return made | {"documents": (torch.arange(self.length) >= 6).long().expand(len(indices), -1)}


class Separate(Packed):
    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        halves = batch["tokens"].split(6, dim=1)
        return torch.cat([self.network(half) for half in halves], dim=1)


class Idle(Toy):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.network.spare = nn.Parameter(torch.ones(3))


class Unmasked(Toy):
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        made = super().batch(indices)
        return made | {"targets": torch.full_like(made["targets"], -100)}


class Deaf(Toy):
    """Nothing reaches the weights."""

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        total, count = super().loss(batch, network)
        return total.detach() + 0 * total, count


class Drifting(Toy):
    """State beside the network, which no checkpoint holds."""

    drift = 0.0

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        total, count = super().loss(batch, network)
        if network is not None and network.training and torch.is_grad_enabled():
            self.drift += 0.01
        return total * (1 + self.drift), count


def named(findings: Sequence[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_sound_task_passes_and_is_left_as_it_was() -> None:
    task = Toy(0)
    task.network.blocks.eval()
    before = {name: tensor.clone() for name, tensor in task.network.state_dict().items()}
    modes = [module.training for module in task.network.modules()]
    random = torch.get_rng_state()
    findings = named(audit(task, CONFIG))
    assert [finding for finding in findings.values() if finding.passed is False] == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.network.state_dict().items())
    assert all(parameter.grad is None for parameter in task.network.parameters())
    assert [module.training for module in task.network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    targets = int((task.batch(range(4))["targets"] >= 0).sum())
    assert findings["effective targets"].detail.startswith(f"{targets} in 4 examples of 48 positions")
    assert task.describe(task.batch(range(4))) in findings["batch"].detail
    assert f"{sum(p.numel() for p in task.network.parameters()):,} values" in str(list(findings.values()))
    assert VOCABULARY == 16 and "bit for bit" in findings["saved and resumed step"].detail


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Mean, "gradient of small batches"),
        (Forgetful, "examples depend on their index alone"),
        (Clairvoyant, "later tokens change no earlier logit"),
        (Packed, "documents do not see each other"),
        (Idle, "every parameter gets a gradient"),
        (Unmasked, "effective targets"),
        (Deaf, "one batch can be overfitted"),
        (Drifting, "saved and resumed step"),
    ],
)
def test_each_fault_is_found(kind: Callable[[int], Toy], name: str) -> None:
    assert named(audit(kind(0), CONFIG))[name].passed is False


def test_documents_apart_pass() -> None:
    findings = named(audit(Separate(0), CONFIG))
    assert findings["documents do not see each other"].passed is True
    assert findings["documents"].detail == "4 borders within 4 rows"


def test_sizes_for_human_eyes() -> None:
    assert [size(n) for n in (12, 1500, 2.5e6, 4e9)] == ["12 B", "1.5 kB", "2.5 MB", "4 GB"]
