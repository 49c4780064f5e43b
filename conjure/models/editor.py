"""The editor: a planner that reads a picture and an instruction, and a drawer that carries the plan out.

The planner sees the words of the instruction, a glance at the page of every thing it names, and the picture's latents,
all in one row of tokens. For each word it says whether its thing is touched, drawn, or moved, in which colour, in which
square of the picture it is found and in which one it is wanted. So the layout comes before the picture, as in GLIGEN
(Li et al. 2023, arXiv 2301.07093), here read from picture and words. Where a thing is found is also a matter of looks:
its page, shrunk to the size of each square, is laid over the picture there, and traits of both are compared, which are
learned (`Matcher`).

The drawer is a diffusion transformer that sees, beside its noisy latents, the draft: the picture with what goes taken
out and what moves put in its new place, and the mask of what may change. Both come in as further input channels whose
weights start at zero, as in InstructPix2Pix (Brooks et al. 2022, arXiv 2211.09800, section 3.2).

Legend: B batch, T text tokens, N patches, K parts or named things, h and w cells, S squares (side of a page, where it
stands twice), s cells of a square's side, L places of a square, Z latent channels, C values of a glance, D width,
Q width of a key, G grounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.diffusion.flow import RectifiedFlow
from conjure.models.dit import DiT, DiTConfig
from conjure.models.picture_text import PAD, TextBlock
from conjure.nn.linear import Linear
from conjure.nn.norm import RMSNorm
from conjure.nn.patches import to_patches
from conjure.nn.position import sincos_2d

FLAGS = ("touched", "drawn", "moved")
SHARP = 3.0  # scale of a measure's leading trait, at first


@dataclass(frozen=True, kw_only=True)
class PlannerConfig:
    vocab: int = 64  # words of instructions, with those that stand for padding, start, unknown and names
    length: int = 24  # tokens; longer instructions are cut
    channels: int = 16  # of the latents
    size: int = 16  # side of the latent grid
    patch: int = 2
    dim: int = 192
    layers: int = 4
    heads: int = 3
    keys: int = 32  # width of the keys by which words find cells
    sides: tuple[int, ...] = (5, 7, 8, 13, 15)  # of things, in cells
    measures: int = 2  # by which pages are compared with the picture
    named: int = 2  # things whose pages are compared with the picture: the first that are named
    colours: int = 9  # that a thing can be asked to have; 0 is its own
    grounds: int = 10  # that a picture can be asked to have; 0 is the one it has

    def __post_init__(self) -> None:
        if self.size % self.patch or self.dim % self.heads or self.dim % 4:
            raise ConjureError(f"planner: expected patch to divide size, and heads and 4 to divide dim, got {self}")


@dataclass(frozen=True, kw_only=True)
class EditorConfig:
    """`painter` names the model folder whose book, text encoder and codec are used; the drawer starts from its weights.
    The planner learns from all examples, the drawer from every `every`-th."""

    painter: str = "starter/pictograms"
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)
    flow: RectifiedFlow = field(default_factory=RectifiedFlow)
    every: int = 2

    def __post_init__(self) -> None:
        if (self.planner.channels, self.planner.size) != (self.dit.channels, self.dit.size):
            raise ConjureError("planner and dit must have the same channels and size")
        if self.every < 1:
            raise ConjureError(f"every: expected at least 1, got {self.every}")


class Plan(NamedTuple):
    """What the planner says, as logits."""

    flags_BT3: Tensor
    """By token: `FLAGS`."""
    colours_BTQ: Tensor
    found_BTS: Tensor
    """The square in which the token's thing is, of `squares`."""
    wanted_BTS: Tensor
    """The square in which a new thing is to be drawn."""
    ground_BG: Tensor
    cells_Bhw: Tensor
    """Cells that a new ground changes."""


class Wanted(NamedTuple):
    """What the planner should have said. Parts beyond an example's own have the token -1."""

    token_BK: Tensor
    flags_BK3: Tensor
    colour_BK: Tensor
    found_BK: Tensor
    """The number of the square among `squares`, -1 where there is none to be found."""
    wanted_BK: Tensor
    ground_B: Tensor
    cells_Bhw: Tensor


class Matcher(nn.Module):
    """forward(looks_BKZSS, source_BZhw) -> how well each page fits into each square of the picture, `[B, K, S]`.

    Every cell of page and picture gets traits, and a cell of a page a weight; the fit is minus the weighted mean of
    squared differences, and of several such measures the best counts, softly. Traits begin as latents, of which one
    channel leads in each measure: the codec's channels come in the order of their spread, so the first says how light
    a cell is, which stays when a thing takes another colour. Pages are shrunk by area, which is right for mean colours;
    what to make of finer detail is learned.
    """

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__()
        self.config = config
        z, ways = config.channels, config.measures
        more = [Linear(4 * z, ways * z, bias=False) for _ in range(2)]
        for last in more:
            nn.init.zeros_(last.weight)
        self.page, self.picture = (nn.Sequential(Linear(z, 4 * z), nn.GELU(), last) for last in more)
        self.counts = nn.Sequential(Linear(z, 2 * z), nn.GELU(), Linear(2 * z, 1))
        behind = (torch.arange(z) - torch.arange(ways).unsqueeze(1)).abs()
        self.scale = nn.Parameter(SHARP * 0.25**behind)
        self.bias = nn.Parameter(torch.zeros(ways, len(config.sides)))

    def forward(self, looks_BKZSS: Tensor, source_BZhw: Tensor) -> Tensor:
        ways = len(self.scale)
        cells_BhwZ = source_BZhw.permute(0, 2, 3, 1)
        seen_BhwZ = (cells_BhwZ.repeat(1, 1, 1, ways) + self.picture(cells_BhwZ)) * self.scale.flatten()
        seen_BZhw = rearrange(seen_BhwZ.float(), "b h w (m z) -> (b m) z h w", m=ways)
        squared_B1hw = seen_BZhw.square().sum(1, keepdim=True)
        fits = []
        for number, side in enumerate(self.config.sides):
            page_BKssZ = shrunk(looks_BKZSS, side).permute(0, 1, 3, 4, 2)
            weight_BKss = torch.sigmoid(self.counts(page_BKssZ).squeeze(-1)).float()
            weight_BKss = (weight_BKss / weight_BKss.sum((2, 3), keepdim=True)).repeat_interleave(ways, 0)
            traits_BKssZ = (page_BKssZ.repeat(1, 1, 1, 1, ways) + self.page(page_BKssZ)) * self.scale.flatten()
            traits_BKZss = rearrange(traits_BKssZ.float(), "b k i j (m z) -> (b m) k z i j", m=ways)
            around_BXL, squared_BYL = F.unfold(seen_BZhw, side), F.unfold(squared_B1hw, side)
            weighted_BKZss = traits_BKZss * weight_BKss.unsqueeze(2)
            cross_BKL = weighted_BKZss.flatten(2) @ around_BXL
            own_BK1 = (weighted_BKZss * traits_BKZss).flatten(2).sum(-1, keepdim=True)
            off_BKL = own_BK1 - 2 * cross_BKL + weight_BKss.flatten(2) @ squared_BYL
            off_BmKL = rearrange(off_BKL, "(b m) k l -> b m k l", m=ways)
            fits.append(self.bias[:, number, None, None] - off_BmKL)
        return torch.cat(fits, dim=-1).logsumexp(1)


class Planner(nn.Module):
    """forward(words_BT, glance_BTC, looks_BKZSS, spots_BK, source_BZhw) -> Plan.

    `glance` and `looks` show the pages of named things, as a whole by token, and in full for the first few, whose
    tokens are `spots` (-1 for none).
    """

    place_ND: Tensor

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__()
        self.config = config
        c, dim, cells = config, config.dim, config.patch**2
        self.words = nn.Embedding(c.vocab, dim)
        nn.init.normal_(self.words.weight, std=0.3)
        self.order = nn.Parameter(torch.randn(c.length, dim) * 0.1)
        self.glance = Linear(16 * c.channels, dim, bias=False)
        self.patches = Linear(c.channels * cells, dim)
        side = c.size // c.patch
        self.register_buffer("place_ND", sincos_2d(side, side, dim), persistent=False)
        self.blocks = nn.ModuleList(TextBlock(dim, c.heads) for _ in range(c.layers))
        self.norm = RMSNorm(dim)
        self.flags, self.colours = Linear(dim, len(FLAGS)), Linear(dim, c.colours)
        self.queries, self.keys = Linear(dim, 2 * c.keys + 2), Linear(dim, 2 * c.keys * cells)
        self.ground, self.cells = Linear(dim, c.grounds), Linear(dim, cells)
        with torch.no_grad():
            self.queries.weight.mul_(0.1)  # sums over many cells begin small
        self.matcher = Matcher(c)

    def forward(
        self, words_BT: Tensor, glance_BTC: Tensor, looks_BKZSS: Tensor, spots_BK: Tensor, source_BZhw: Tensor
    ) -> Plan:
        c, length, p = self.config, words_BT.shape[1], self.config.patch
        text_BTD = self.words(words_BT) + self.order[:length]
        text_BTD = text_BTD + self.glance(glance_BTC.to(text_BTD.dtype))
        seen_BND = self.patches(to_patches(source_BZhw, p)) + self.place_ND.to(text_BTD.dtype)
        mask_BT = words_BT != PAD
        mask_B11S = torch.cat([mask_BT, mask_BT.new_ones(seen_BND.shape[:2])], dim=1)[:, None, None]
        x_BSD = torch.cat([text_BTD, seen_BND.to(text_BTD.dtype)], dim=1)
        for block in self.blocks:
            x_BSD = block(x_BSD, mask_B11S)
        x_BSD = self.norm(x_BSD)
        text_BTD, seen_BND = x_BSD[:, :length], x_BSD[:, length:]
        queries_BTQ = self.queries(text_BTD).float()
        bias_BT2, queries_BTQ = queries_BTQ[..., :2], queries_BTQ[..., 2:]
        side = c.size // p
        keys_BhwQ = rearrange(self.keys(seen_BND).float(), "b (y x) (j i q) -> b (y j) (x i) q", y=side, j=p, i=p)
        maps = [torch.einsum("btq,bhwq->bthw", q, k) / c.keys**0.5 + bias_BT2[..., n, None, None]
                for n, (q, k) in enumerate(zip(queries_BTQ.chunk(2, -1), keys_BhwQ.chunk(2, -1), strict=True))]
        found_BTS, wanted_BTS = (within_squares(each_BThw, c.sides) for each_BThw in maps)
        fit_BKS = self.matcher(looks_BKZSS, source_BZhw) * (spots_BK >= 0).unsqueeze(-1)
        slot_BKS = spots_BK.clamp_min(0).unsqueeze(-1).expand_as(fit_BKS)
        found_BTS = found_BTS.scatter_add(1, slot_BKS, fit_BKS)
        cells_Bhw = rearrange(self.cells(seen_BND).float(), "b (y x) (j i) -> b (y j) (x i)", y=side, j=p)
        return Plan(self.flags(text_BTD).float(), self.colours(text_BTD).float(), found_BTS, wanted_BTS,
                    self.ground(text_BTD[:, 0]).float(), cells_Bhw)

    def flops(self, batch: int) -> float:
        """Multiply-adds times two of one forward pass."""
        c = self.config
        patches, cells = (c.size // c.patch) ** 2, c.patch**2
        tokens = patches + c.length
        ends = patches * c.dim * cells * (c.channels + 2 * c.keys) + c.length * c.dim * (16 * c.channels + 2 * c.keys)
        layer = tokens * 12 * c.dim**2 + 2 * tokens**2 * c.dim
        return 2.0 * batch * (c.layers * layer + ends + 2 * c.length * c.size**2 * c.keys)


class Drawer(nn.Module):
    """forward(x_BZhw, t_B, *context, guide_BND, draft_BZhw, mask_Bhw) -> [B, Z, h, w]; context as in `DiT`."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.dit = DiT(config)
        self.draft = Linear((config.channels + 1) * config.patch**2, config.dim, bias=False)
        nn.init.zeros_(self.draft.weight)

    def forward(
        self, x_BZhw: Tensor, t_B: Tensor, context_BSD: Tensor, mask_BS: Tensor, summary_BD: Tensor, guide_BND: Tensor,
        draft_BZhw: Tensor, mask_Bhw: Tensor,
    ) -> Tensor:  # fmt: skip
        seen_BYhw = torch.cat([draft_BZhw, mask_Bhw.unsqueeze(1).to(draft_BZhw.dtype)], dim=1)
        more_BND = self.draft(to_patches(seen_BYhw, self.dit.config.patch))
        return self.dit(x_BZhw, t_B, context_BSD, mask_BS, summary_BD, guide_BND + more_BND)


class Editor(nn.Module):
    """forward(words, glance, looks, spots, source, x, t, *drawing) -> (Plan, the drawer's output); `drawing` as in
    `Drawer`."""

    def __init__(self, planner: PlannerConfig, dit: DiTConfig) -> None:
        super().__init__()
        self.planner, self.drawer = Planner(planner), Drawer(dit)

    def forward(
        self, words_BT: Tensor, glance_BTC: Tensor, looks_BKZSS: Tensor, spots_BK: Tensor, source_BZhw: Tensor,
        x_AZhw: Tensor, t_A: Tensor, *drawing: Tensor,
    ) -> tuple[Plan, Tensor]:  # fmt: skip
        plan = self.planner(words_BT, glance_BTC, looks_BKZSS, spots_BK, source_BZhw)
        return plan, self.drawer(x_AZhw, t_A, *drawing)


def plan_loss(plan: Plan, words_BT: Tensor, wanted: Wanted) -> Tensor:
    """Per-sample cross-entropy [B] of flags, colours, squares and ground, each a mean over what it is asked of."""
    B, T = words_BT.shape
    here_BK, token_BK = wanted.token_BK >= 0, wanted.token_BK.clamp_min(0)
    row_B1 = torch.arange(B, device=words_BT.device).unsqueeze(1)
    flags_BT3 = plan.flags_BT3.new_zeros(B, T + 1, len(FLAGS))
    slot_BK = torch.where(here_BK, token_BK, T)
    flags_BT3[row_B1, slot_BK] = wanted.flags_BK3.to(flags_BT3.dtype)
    off_BT = F.binary_cross_entropy_with_logits(plan.flags_BT3, flags_BT3[:, :T], reduction="none").sum(-1)
    loss_B = mean_over(off_BT, words_BT != PAD)
    off_BK = F.cross_entropy(plan.colours_BTQ[row_B1, token_BK].transpose(1, 2), wanted.colour_BK, reduction="none")
    loss_B = loss_B + mean_over(off_BK, here_BK & (wanted.flags_BK3[..., 1] > 0))
    for said_BTS, square_BK in ((plan.found_BTS, wanted.found_BK), (plan.wanted_BTS, wanted.wanted_BK)):
        said_BSK = said_BTS[row_B1, token_BK].transpose(1, 2)
        off_BK = F.cross_entropy(said_BSK, square_BK.clamp_min(0), reduction="none")
        loss_B = loss_B + mean_over(off_BK, here_BK & (square_BK >= 0))
    loss_B = loss_B + F.cross_entropy(plan.ground_BG, wanted.ground_B, reduction="none")
    cells_Bhw = wanted.cells_Bhw.to(plan.cells_Bhw.dtype)
    off_B = F.binary_cross_entropy_with_logits(plan.cells_Bhw, cells_Bhw, reduction="none").mean((1, 2))
    return loss_B + off_B * (wanted.ground_B > 0)


def mean_over(values_BK: Tensor, which_BK: Tensor) -> Tensor:
    """The mean of each row over what is marked, 0 where nothing is."""
    return (values_BK * which_BK).sum(1) / which_BK.sum(1).clamp_min(1)


def squares(sides: Sequence[int], size: int) -> list[tuple[int, int, int]]:
    """(left, top, side) of every square of these sides on a grid, in the order of the planner's logits."""
    return [(x, y, s) for s in sides for y in range(size - s + 1) for x in range(size - s + 1)]


def within_squares(logits_BThw: Tensor, sides: Sequence[int]) -> Tensor:
    """The sum of a map's logits inside each of `squares` over its side, `[B, T, S]`. Were cells independent, the sum
    would be the square's log likelihood; they are not, and the larger a square the less."""
    means = [F.avg_pool2d(logits_BThw, side, stride=1).flatten(2) * side for side in sides]
    return torch.cat(means, dim=-1)


def shrunk(looks_BKZSS: Tensor, side: int) -> Tensor:
    """Pages at `side` x `side` cells, each the mean over the area that it covers."""
    size = looks_BKZSS.shape[-1]
    edges_s1 = torch.arange(side + 1, dtype=torch.float64).unsqueeze(1) * size / side
    cell_S = torch.arange(size, dtype=torch.float64)
    covered_sS = (torch.minimum(edges_s1[1:], cell_S + 1) - torch.maximum(edges_s1[:-1], cell_S)).clamp_min(0)
    area_sS = (covered_sS * side / size).to(looks_BKZSS)
    return area_sS @ looks_BKZSS @ area_sS.T
