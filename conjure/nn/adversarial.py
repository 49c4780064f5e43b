"""What adversarial training needs of a critic: its judgement without its own gradient."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call


def judged(critic: nn.Module, *given: Tensor) -> Tensor:
    """The scores of a critic whose weights stand still: the gradient goes to what it is given and not to the critic, so
    one backward pass serves the critic's loss and that of the network that is judged."""
    still = {name: weight.detach() for name, weight in critic.named_parameters()}
    return functional_call(critic, still, given)
