"""Pictures of one kind made into pictures of another: pix2pix from pairs, CycleGAN without.

pix2pix (Isola et al. 2017, arXiv 1611.07004): a U-Net makes the picture, an L1 term holds it to the true one, and a
critic looks at patches of it beside what it was made from. CycleGAN (Zhu et al. 2017, arXiv 1703.10593): two such
networks lead there and back, a critic on either side knows what pictures of that kind look like, and who goes there
and back has to arrive where they started. Both play for least squares (Mao et al. 2017, arXiv 1611.04076).

What differs from the papers: group norm in place of batch and instance norm and no dropout, so that a picture is the
same alone and in a batch; CycleGAN has U-Nets, and its critics see the newest pictures only and no pool of older ones,
so that a step depends on nothing but the weights and its examples.

Legend: B batch, C channels, H and W pixels, P patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.adversarial import judged
from conjure.nn.convolution import Conv2d, GroupNorm

SLOPE = 0.2  # of leaky ReLU
SPREAD = 0.02  # of new weights
GROUP = 8  # channels of a group


@dataclass(frozen=True, kw_only=True)
class TranslatorConfig:
    """Pictures of `side` pixels are halved once for each of `widths`, to which their channels grow."""

    side: int = 64
    before: int = 1
    """Channels of the pictures to start from."""
    after: int = 3
    """Channels of the pictures to make."""
    widths: tuple[int, ...] = (32, 64, 128, 128)
    blocks: int = 2
    """Residual blocks at the smallest size."""
    critic_widths: tuple[int, ...] = (32, 64, 64)
    """All but the last halve the picture. Patches are 10, 16, 34 and 70 pixels wide with one to four of them."""
    weight: float = 100.0
    """Of the L1 term: pix2pix has 100, CycleGAN 10."""

    def __post_init__(self) -> None:
        least = 2 ** len(self.widths)
        if not self.widths or not self.critic_widths or self.side % least or self.side < 2 * least:
            raise ConjureError(
                f"model: expected widths, critic_widths and a side that can be halved {len(self.widths)} times to 2 "
                f"pixels or more, got {self.side}"
            )
        if any(width % GROUP for width in (*self.widths, *self.critic_widths)) or self.widths[0] % (2 * GROUP):
            raise ConjureError(f"model: expected widths in multiples of {GROUP}, the first of {2 * GROUP}")
        if min(self.before, self.after) < 1 or self.blocks < 0 or self.weight < 0:
            raise ConjureError("model: expected channels above 0, and blocks and weight of at least 0")

    def expect(self, side: int, before: int, after: int) -> None:
        """Refuses pictures that are not of these sides and channels."""
        if (self.side, self.before, self.after) != (side, before, after):
            raise ConjureError(
                f"model: expected side {side}, before {before} and after {after}, as the data have, got {self.side}, "
                f"{self.before} and {self.after}"
            )


class Block(nn.Module):
    """x + norm(conv(relu(norm(conv x))))"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = (GroupNorm(width // GROUP, width) for _ in range(2))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.norm2(self.second(F.relu(self.norm1(self.first(x_BCHW)))))


class Down(nn.Module):
    """Half the size, by a 4x4 convolution; the first one of a network comes without a norm."""

    def __init__(self, before: int, after: int, *, norm: bool, stride: int = 2) -> None:
        super().__init__()
        self.conv = Conv2d(before, after, 4, stride=stride, padding=1, bias=not norm)
        self.norm = GroupNorm(after // GROUP, after) if norm else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.conv(x_BCHW)
        return F.leaky_relu(x_BCHW if self.norm is None else self.norm(x_BCHW), SLOPE)


class Up(nn.Module):
    """Twice the size, by a 4x4 transposed convolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
        self.norm = GroupNorm(after // GROUP, after)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weight = self.conv.weight.to(x_BCHW.dtype)
        return F.relu(self.norm(F.conv_transpose2d(x_BCHW, weight, stride=2, padding=1)))


class Translator(nn.Module):
    """A U-Net: pictures `[B, before, H, W]` -> `[B, after, H, W]`, both in [-1, 1].

    Its last convolution sees the given picture at full size as well, which keeps lines where they are."""

    def __init__(self, config: TranslatorConfig, before: int, after: int) -> None:
        super().__init__()
        widths = config.widths
        self.downs = nn.ModuleList(
            Down(a, b, norm=place > 0) for place, (a, b) in enumerate(pairwise((before, *widths)))
        )
        self.blocks = nn.ModuleList(Block(widths[-1]) for _ in range(config.blocks))
        outward = (*widths[::-1], widths[0] // 2)
        self.ups = nn.ModuleList(
            Up(a * (2 if place else 1), b) for place, (a, b) in enumerate(pairwise(outward))
        )
        self.last = Conv2d(outward[-1] + before, after, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        given_BCHW, skips = x_BCHW, []
        for down in self.downs:
            x_BCHW = down(x_BCHW)
            skips.append(x_BCHW)
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        for place, up in enumerate(self.ups):
            x_BCHW = up(torch.cat([x_BCHW, skips[-1 - place]], 1) if place else x_BCHW)
        return torch.tanh(self.last(torch.cat([x_BCHW, given_BCHW], 1)))

    def flops(self, side: int) -> float:
        """Multiply-adds times two of one picture."""
        total, small = 0, side >> len(self.downs)
        for place, down in enumerate(self.downs):
            total += down.conv.weight.numel() * (side >> (place + 1)) ** 2  # type: ignore[union-attr]
        for place, up in enumerate(self.ups):
            total += up.conv.weight.numel() * (small << place) ** 2  # type: ignore[union-attr]
        total += sum(p.numel() for block in self.blocks for p in block.parameters() if p.ndim == 4) * small**2
        total += self.last.weight.numel() * side**2
        return 2.0 * total


class PatchCritic(nn.Module):
    """Pictures `[B, C, H, W]` -> a score for each patch `[B, P]`: towards 1 where it looks real, 0 where not."""

    def __init__(self, config: TranslatorConfig, channels: int) -> None:
        super().__init__()
        widths = config.critic_widths
        self.downs = nn.ModuleList(
            Down(a, b, norm=place > 0, stride=2 if place < len(widths) - 1 or not place else 1)
            for place, (a, b) in enumerate(pairwise((channels, *widths)))
        )
        self.score = Conv2d(widths[-1], 1, 4, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for down in self.downs:
            x_BCHW = down(x_BCHW)
        return self.score(x_BCHW).flatten(1).float()

    def flops(self, side: int) -> float:
        """Multiply-adds times two of one picture."""
        total = 0
        for conv in (*(down.conv for down in self.downs), self.score):
            side = (side + 2 - 4) // conv.stride[0] + 1  # type: ignore[operator,union-attr]
            total += conv.weight.numel() * side**2  # type: ignore[operator,union-attr]
        return 2.0 * total


class PairTranslator(nn.Module):
    """pix2pix: the generator, and a critic that sees a picture together with what it was made from."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Translator(config, config.before, config.after)
        self.critic = PatchCritic(config, config.before + config.after)
        start_small(self)

    def forward(self, x_BCHW: Tensor, y_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(the critic's loss, the critic's judgement as the generator's loss, the mean distance of values between what
        it made of `x` and the true `y`), each `[B]`."""
        made_BCHW = self.generator(x_BCHW)
        critic_B, judged_B = rivals(self.critic, torch.cat([x_BCHW, y_BCHW], 1), torch.cat([x_BCHW, made_BCHW], 1))
        return critic_B, judged_B, distance(made_BCHW, y_BCHW)

    def flops(self, pictures: int) -> float:
        """Of one pass: one picture made, three criticised."""
        side = self.config.side
        return pictures * (self.generator.flops(side) + 3 * self.critic.flops(side))


class CycleTranslator(nn.Module):
    """CycleGAN: `there` from the first kind of pictures to the second, `back` again, and a critic of either kind."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.config = config
        self.there = Translator(config, config.before, config.after)
        self.back = Translator(config, config.after, config.before)
        self.critic_there = PatchCritic(config, config.after)
        self.critic_back = PatchCritic(config, config.before)
        start_small(self)

    def forward(self, x_BCHW: Tensor, y_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(the critics' loss, their judgement as the generators' loss, how far from `x` and from `y` who goes there and
        back arrives, as mean distances of values), each `[B]` and the sum of both ways; `x` and `y` need not belong
        together."""
        there_BCHW = self.there(x_BCHW)
        again_BCHW, back_BCHW = self.back(torch.cat([there_BCHW, y_BCHW])).chunk(2)
        cycle_B = distance(again_BCHW, x_BCHW) + distance(self.there(back_BCHW), y_BCHW)
        one_B, judged_one_B = rivals(self.critic_there, y_BCHW, there_BCHW)
        other_B, judged_other_B = rivals(self.critic_back, x_BCHW, back_BCHW)
        return one_B + other_B, judged_one_B + judged_other_B, cycle_B

    def flops(self, pictures: int) -> float:
        """Of one pass: two pictures made by each network, three criticised by each critic."""
        side = self.config.side
        made = self.there.flops(side) + self.back.flops(side)
        return pictures * (2 * made + 3 * (self.critic_there.flops(side) + self.critic_back.flops(side)))


def rivals(critic: nn.Module, real_BCHW: Tensor, made_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """The critic's loss and the generator's `[B]`, over patches: the critic sees what was made cut off from its maker,
    and the maker is judged by a critic whose weights stand still, so one backward pass serves both."""
    real_BP, made_BP = critic(torch.cat([real_BCHW, made_BCHW.detach()])).chunk(2)
    critic_B = ((real_BP - 1).square().mean(1) + made_BP.square().mean(1)) / 2
    return critic_B, (judged(critic, made_BCHW) - 1).square().mean(1)


def distance(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Mean of |a - b| over the values of each picture, `[B]`."""
    return (a_BCHW.float() - b_BCHW.float()).abs().mean((1, 2, 3))


def start_small(network: nn.Module) -> None:
    """Normal weights of `SPREAD` in all convolutions."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            with torch.no_grad():
                module.weight.normal_(0, SPREAD)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
