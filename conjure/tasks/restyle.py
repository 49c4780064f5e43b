"""image -> image: the shapes of one picture in the texture and colours of another. No model takes part.

By patches (`patch_style.py`) strokes and grain are the style's own. By features, Gatys et al. (arXiv 1508.06576) change
pixels until correlations of features agree with those of the style, and features with those of the content. Here the
features are those of one layer of random filters at several scales, which makes textures nearly as well as a trained
network (Ustyuzhaninov et al., arXiv 1606.00021) and keeps outlines, though it knows no things.

Legend: H and W pixels, C channels, F filters, N positions; B is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from conjure.codecs.image_autoencoder import from_pixels, to_pixels
from conjure.core import seeds as randomness
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result
from conjure.media.canvas import scaled
from conjure.media.image import Image
from conjure.tasks.inputs import FILE, moving, parted
from conjure.tasks.patch_style import patched, recoloured

STEPS = {"patches": 18, "features": 60}
SIDES = (3, 7)  # of the filters
FILTERS = 32  # of each size, on each level
LEVELS = 5  # each of half the size
SHARES = ((4, 0.5), (2, 0.33), (1, 0.17))  # of the steps: at a quarter of the size, at half of it, at the whole
PREVIEWS = 10
OUTLINES = 3  # levels at which those of the content are kept
FAINT = 1e-4  # the least mean square of an outline that counts
TEXTURE = 4.0  # what the style's error weighs beside that of the content at equal strength
START = 0.3  # noise on the small picture that the optimiser starts from


@dataclass(frozen=True, kw_only=True)
class RestyleOptions:
    """Where the style comes from and how far it goes."""

    style: str = Field(default="", json_schema_extra=FILE, description="the picture whose texture is taken")
    strength: float = Field(default=0.5, ge=0, le=1, description="0: the picture as it is, 1: texture alone")
    method: Literal["patches", "features"] = Field(default="patches", description="put together from pieces of the "
                                                   "style, or optimised (L-BFGS) until random features agree with it")
    steps: int = Field(default=0, ge=0, le=5000, description="rounds of either (0: 18 of patches, 60 of features)")
    size: int = Field(default=256, ge=16, le=2048, description="longer side at which texture is made; the result is "
                      "scaled to the picture's own size")
    colours: bool = Field(default=True, description="take the style's colours too, not its brightness alone")


class Restyle:
    """Gives a picture the texture of another."""

    Options = RestyleOptions

    @torch.no_grad()
    def generate(self, inputs: Sequence[Any], options: RestyleOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture a seed, of the picture's size and as transparent as it is."""
        picture, _, files = parted(inputs, options)
        if "style" not in files:
            raise ConjureError("no style was given", hint="name a picture: --style FILE")
        yield from moving(picture)
        made: list[Image] = []
        count = options.steps or STEPS[options.method]
        steps = assembled if options.method == "patches" else optimised
        for number, seed in enumerate(seeds):
            x = torch.zeros(1, 3, 8, 8)
            for step, x in enumerate(steps(picture, files["style"], options, count, seed), start=1):
                yield Progress(number * count + step, len(seeds) * count, "step")
                if step % max(1, count // PREVIEWS) == 0 and step < count:
                    yield Preview(lambda x=x: _picture(x, picture, options.colours))
            made.append(_picture(x, picture, options.colours))
        yield Result(made, {"steps": count})

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        return {}


def assembled(content: Image, style: Image, options: RestyleOptions, count: int, seed: int) -> Iterator[Tensor]:
    """After each of the steps the picture so far, `[1, 3, H, W]` in [-1, 1], put together from pieces of the style."""
    sizes = [options.size // part for part, _ in SHARES]
    styles = [_canvas(style, size) for size in sizes]
    contents = [recoloured(_canvas(content, size), its).clamp(-1, 1) for size, its in zip(sizes, styles, strict=True)]
    return patched(contents, styles, options.strength, count, seed)


def optimised(content: Image, style: Image, options: RestyleOptions, count: int, seed: int) -> Iterator[Tensor]:
    """The same, optimised.

    First at a quarter of the size and then larger, so that patterns grow from the coarse to the fine.
    """
    filters, done = random_filters(seed), 0
    x = _canvas(content, options.size // SHARES[0][0])
    x = x + START * options.strength * randomness.normal([seed], x.shape[1:])
    for part, share in SHARES:
        told, wanted = _canvas(content, options.size // part), _canvas(style, options.size // part)
        start = F.interpolate(x, told.shape[-2:], mode="bilinear", antialias=True).clamp(-1, 1)
        steps = count - done if part == 1 else round(share * count)
        for x in _descended(start, told, wanted, filters, options.strength, steps):
            yield x
        done += steps


def _descended(
    x: Tensor, content: Tensor, style: Tensor, filters: Sequence[Tensor], strength: float, steps: int
) -> Iterator[Tensor]:
    with torch.no_grad():
        wanted, told = correlations(style, filters), outlines(content, filters[-1])
    x = x.contiguous().requires_grad_(True)
    optimiser = torch.optim.LBFGS([x], max_iter=1, max_eval=20, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        texture = x.new_zeros(())
        for a, b in zip(correlations(x, filters), wanted):
            texture = texture + ((a - b) ** 2).sum() / (b**2).sum() / len(filters)
        beyond = (x.abs() - 1).clamp_min(0).square().mean()
        kept = x.new_zeros(())
        for a, b in zip(outlines(x, filters[-1]), told):
            kept = kept + (a - b).square().sum() / b.square().sum().clamp_min(FAINT * b.numel()) / len(told)
        total = strength * TEXTURE * texture + (1 - strength) * kept + beyond
        total.backward()
        return total

    for _ in range(steps):
        with torch.enable_grad():
            optimiser.step(loss)
        yield x.detach().clone().clamp(-1, 1)


def random_filters(seed: int) -> list[Tensor]:
    """Filters `[F, 3, side, side]` for each of `SIDES`, without a mean, so that even areas excite none, and of unit
    size; the first ones are single channels, for the colours themselves."""
    found = []
    for side in SIDES:
        (weight,) = randomness.normal([randomness.derive(seed, "filters", side)], (FILTERS, 3, side, side))
        weight = weight - weight.mean((2, 3), keepdim=True)
        weight[:3] = 0
        weight[:3, :, side // 2, side // 2] = torch.eye(3)
        found.append(weight / weight.flatten(1).norm(dim=1)[:, None, None, None])
    return found


def correlations(x_BCHW: Tensor, filters: Sequence[Tensor]) -> list[Tensor]:
    """What the style is: for each level and size of filters the mean products of all pairs of features, `[F, F]`."""
    found = []
    for _ in range(LEVELS):
        for weight in filters:
            features_FN = F.relu(_filtered(x_BCHW, weight))[0].flatten(1)
            found.append(features_FN @ features_FN.T / features_FN.shape[1])
        if min(x_BCHW.shape[-2:]) < 16:
            break
        x_BCHW = F.avg_pool2d(x_BCHW, 2)
    return found


def outlines(x_BCHW: Tensor, weight: Tensor) -> list[Tensor]:
    """What the content is: features of all filters but those of plain colours, at half the size and below."""
    found = []
    for _ in range(OUTLINES):
        x_BCHW = F.avg_pool2d(x_BCHW, 2)
        found.append(F.relu(_filtered(x_BCHW, weight[3:])))
        if min(x_BCHW.shape[-2:]) < 16:
            break
    return found


def _filtered(x_BCHW: Tensor, weight: Tensor) -> Tensor:
    """The colours lie around grey; their filters see them from black."""
    pad = weight.shape[-1] // 2
    return F.conv2d(F.pad((x_BCHW + 1) / 2, (pad, pad, pad, pad), mode="replicate"), weight)


def _canvas(image: Image, longest: int) -> Tensor:
    """`[1, 3, H, W]` in [-1, 1], sides multiples of 8, the longer one about `longest`."""
    scale = longest / max(image.height, image.width)
    height, width = (max(2, round(side * scale / 8)) * 8 for side in (image.height, image.width))
    return from_pixels(torch.from_numpy(np.array(scaled(image.rgb(), height, width)))[None]).contiguous()


def _picture(x_BCHW: Tensor, like: Image, colours: bool) -> Image:
    """The picture at the size of `like`, as transparent as that is, and in its colours unless told otherwise."""
    from PIL import Image as Pillow

    made = scaled(to_pixels(x_BCHW)[0].contiguous().numpy(), like.height, like.width)
    if not colours:
        bright = Pillow.fromarray(made).convert("YCbCr").getchannel(0)
        _, blue, red = Pillow.fromarray(like.rgb()).convert("YCbCr").split()
        made = np.asarray(Pillow.merge("YCbCr", (bright, blue, red)).convert("RGB"))
    alpha = like.alpha()
    return Image(made if alpha is None else np.dstack([made, alpha]))
