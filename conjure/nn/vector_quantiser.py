"""Vectors to the nearest of a book of codes, which follows them by a moving average (van den Oord et al. 2017, arXiv
1711.00937, appendix A.1). Gradients go straight through.

Legend: N vectors, B batch, C codes, D width of a vector, h and w grid sides.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class VectorQuantiser(nn.Module):
    """`codes_CD` are buffers, not parameters: in training each forward pass moves them, as it moves the running
    statistics of a batch norm, so the number of micro batches changes the result a little. Of several processes all
    have the same book. A code that comes up less than `dead` times as often as the mean code is put where a vector of
    the batch is.
    """

    codes_CD: Tensor
    counts_C: Tensor

    def __init__(self, codes: int, dim: int, *, decay: float = 0.98, dead: float = 0.05) -> None:
        super().__init__()
        self.decay, self.dead = decay, dead
        self.register_buffer("codes_CD", torch.zeros(codes, dim))
        self.register_buffer("counts_C", torch.zeros(codes))

    @torch.no_grad()
    def start_from(self, z_ND: Tensor) -> None:
        """As many of these vectors as there are codes, spread over them evenly. They count for nothing yet."""
        places_C = torch.linspace(0, len(z_ND) - 1, len(self.codes_CD)).long()
        self.codes_CD.copy_(z_ND[places_C])
        self.counts_C.zero_()

    @torch.no_grad()
    def nearest(self, z_ND: Tensor) -> Tensor:
        """The number of the nearest code (L2), int64 `[N]`."""
        z_ND, codes_CD = z_ND.float(), self.codes_CD.float()
        return (codes_CD.square().sum(1) - 2 * z_ND @ codes_CD.T).argmin(1)

    def vectors(self, ids: Tensor) -> Tensor:
        """The codes of these numbers, `[*ids.shape, D]`."""
        return self.codes_CD[ids]

    def forward(self, z_BDhw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The codes in the vectors' place `[B, D, h, w]`, whose gradient is passed on to the vectors; their numbers
        `[B, h, w]`; and the commitment, the mean square distance of the vectors to their codes, `[B]`."""
        B, D, h, w = z_BDhw.shape
        z_ND = z_BDhw.detach().movedim(1, -1).reshape(-1, D).float()
        ids_N = self.nearest(z_ND)
        q_BDhw = self.vectors(ids_N).view(B, h, w, D).movedim(-1, 1).to(z_BDhw.dtype)
        commitment_B = (z_BDhw - q_BDhw).float().square().flatten(1).mean(1)
        if self.training and torch.is_grad_enabled():
            self._follow(z_ND, ids_N)
        return z_BDhw + (q_BDhw - z_BDhw).detach(), ids_N.view(B, h, w), commitment_B

    @torch.no_grad()
    def _follow(self, z_ND: Tensor, ids_N: Tensor) -> None:
        """One step of the moving average, then the dead codes' new places."""
        C, D = self.codes_CD.shape
        now_C = summed(z_ND.new_zeros(C).index_add_(0, ids_N, torch.ones_like(z_ND[:, 0])))
        sums_CD = summed(z_ND.new_zeros(C, D).index_add_(0, ids_N, z_ND))
        old_C = self.decay * self.counts_C
        counts_C = old_C + (1 - self.decay) * now_C
        moved_CD = (old_C[:, None] * self.codes_CD + (1 - self.decay) * sums_CD) / counts_C[:, None].clamp_min(1e-12)
        # The global generator is seeded for each step of training, so this draw is a function of the step.
        fresh_CD = z_ND[torch.randint(len(z_ND), (C,)).to(z_ND.device)]
        first = not distributed() or dist.get_rank() == 0
        fresh_CD = summed(fresh_CD if first else torch.zeros_like(fresh_CD))
        dead_C = counts_C <= self.dead * counts_C.mean()
        self.codes_CD.copy_(torch.where(dead_C[:, None], fresh_CD, moved_CD))
        self.counts_C.copy_(torch.where(dead_C, counts_C.mean(), counts_C))


def distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if distributed():
        dist.all_reduce(tensor)
    return tensor
