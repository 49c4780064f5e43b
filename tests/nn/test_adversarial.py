from __future__ import annotations

import torch
from torch import nn

from conjure.nn.adversarial import judged


def test_the_judgement_is_the_critics_and_its_gradient_goes_to_what_is_judged() -> None:
    critic, x = nn.Linear(3, 1), torch.rand(2, 3, requires_grad=True)
    score = judged(critic, x)
    assert torch.equal(score, critic(x))
    score.sum().backward()
    assert x.grad is not None and torch.allclose(x.grad, critic.weight.detach().expand(2, 3))
    assert critic.weight.grad is None and critic.bias.grad is None
