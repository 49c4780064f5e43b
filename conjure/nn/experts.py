"""A feed-forward layer of many experts, of which each token uses a few.

Legend: N tokens, D model width, E experts, k experts a token, G groups of experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.feedforward import Activation, FeedForward
from conjure.nn.linear import Linear


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Shazeer et al. 2017 (arXiv 1701.06538) as Mixtral, Qwen, DeepSeek (arXiv 2401.06066) and gpt-oss vary it."""

    count: int
    chosen: int
    hidden: int
    """Width of each expert."""
    score: Literal["softmax", "sigmoid", "softmax_of_chosen"] = "softmax"
    renormalise: bool = False
    """The weights of the chosen experts add up to 1 (before `scale`)."""
    scale: float = 1.0
    groups: int = 1
    chosen_groups: int = 1
    """Experts are chosen from the best groups only."""
    group_score: Literal["best", "best_two"] = "best"
    corrected: bool = False
    """A bias per expert that counts for choosing, not for weighing (arXiv 2408.15664)."""
    shared_hidden: int = 0
    """Width of an expert that every token uses."""
    shared_gate: bool = False
    """The shared expert is weighed by a sigmoid."""
    bias: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.chosen <= self.count:
            raise ConjureError(f"experts.chosen: expected 1 to {self.count}, got {self.chosen}")
        if self.count % self.groups or not 0 < self.chosen_groups <= self.groups:
            groups = f"{self.groups} groups, {self.chosen_groups} chosen groups"
            raise ConjureError(f"experts: {self.count} experts, {groups}")


class ExpertLayer(nn.Module):
    """sum over the chosen experts of weight * expert(x), plus the shared one."""

    def __init__(self, config: Experts, dim: int, *, activation: Activation, gated: bool = True) -> None:
        super().__init__()
        self.config = config
        self.router = Linear(dim, config.count, bias=config.bias)
        self.correction = nn.Parameter(torch.zeros(config.count)) if config.corrected else None
        self.experts = nn.ModuleList(
            FeedForward(dim, config.hidden, activation=activation, gated=gated, bias=config.bias)
            for _ in range(config.count)
        )
        shared = config.shared_hidden
        self.shared = FeedForward(dim, shared, activation=activation, gated=gated) if shared else None
        self.shared_gate = Linear(dim, 1, bias=False) if config.shared_gate else None

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D] -> [..., D]`"""
        x_ND = x.reshape(-1, x.shape[-1])
        weight_Nk, expert_Nk = self.route(x_ND)
        out_ND = torch.zeros_like(x_ND)
        for index in expert_Nk.unique().tolist():
            token, slot = (expert_Nk == index).nonzero(as_tuple=True)
            found = self.experts[index](x_ND[token]) * weight_Nk[token, slot, None].to(x.dtype)
            out_ND = out_ND.index_add(0, token, found)
        if self.shared is not None:
            common_ND = self.shared(x_ND)
            out_ND = out_ND + (common_ND if self.shared_gate is None else self.shared_gate(x_ND).sigmoid() * common_ND)
        return out_ND.view_as(x)

    def route(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """(weights float32, experts int64), each `[N, k]`."""
        c = self.config
        router = self.router
        logits_NE = F.linear(x_ND.float(), router.weight.float(), None if router.bias is None else router.bias.float())
        if c.score == "softmax_of_chosen":
            best_Nk, expert_Nk = logits_NE.topk(c.chosen)
            return best_Nk.softmax(-1), expert_Nk
        score_NE = logits_NE.sigmoid() if c.score == "sigmoid" else logits_NE.softmax(-1)
        choice_NE = score_NE if self.correction is None else score_NE + self.correction.float()
        if c.chosen_groups < c.groups:
            by_group = choice_NE.view(len(x_ND), c.groups, -1)
            rank_NG = by_group.amax(-1) if c.group_score == "best" else by_group.topk(2).values.sum(-1)
            out_NG = torch.ones_like(rank_NG, dtype=torch.bool)
            out_NG = out_NG.scatter(1, rank_NG.topk(c.chosen_groups).indices, False)
            # DeepSeek-V2 writes 0 and V3 -inf where a group is out; a corrected score can be below 0.
            choice_NE = by_group.masked_fill(out_NG[..., None], -torch.inf).flatten(1)
        expert_Nk = choice_NE.topk(c.chosen).indices
        weight_Nk = score_NE.gather(1, expert_Nk)
        if c.renormalise:
            weight_Nk = weight_Nk / weight_Nk.sum(-1, keepdim=True).clamp_min(1e-20)
        return weight_Nk * c.scale, expert_Nk
