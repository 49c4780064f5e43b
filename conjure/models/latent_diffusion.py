"""Public picture models ready for use: a prompt and noise in, pixels out, whichever network takes the noise away.

Latent diffusion (Rombach et al. 2022, arXiv 2112.10752): an autoencoder makes latents of pixels; a network trained on
noisy latents and texts removes the noise step by step. What differs from model to model hangs on `Pipeline.kind`.

Legend: B pictures, C channels, H and W in pixels, h and w in latents, N numbers that say a picture's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.diffusion.guidance import rescaled
from conjure.diffusion.samplers import Draw, Step
from conjure.diffusion.schedule import schedule_from
from conjure.models.class_dit import ClassDiTConfig
from conjure.models.controlnet import ControlNet, summed
from conjure.models.prompts import Condition, Labels, Prompts
from conjure.models.public import diffusers, embeddings, lora, single_file
from conjure.models.public.denoisers import open_autoencoder, open_denoiser
from conjure.models.public.diffusers import Kind, Pipeline
from conjure.models.public.lora import Host, LoraReport
from conjure.models.taesd import TinyAutoencoder

Reads = Literal["", "picture", "mask"]

LARGEST_PREVIEW = 32
"""Side of the latents that a preview is decoded from."""
GUIDANCE: dict[Kind, float] = {"sd": 7.5, "sdxl": 5.0, "sd3": 7.0, "flux": 3.5, "dit": 4.0}
STEPS: dict[Kind, int] = {"sd": 50, "sdxl": 50, "sd3": 28, "flux": 28, "dit": 50}
"""What diffusers takes where nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How one batch of pictures is to be drawn."""

    steps: int
    sampler: str = ""
    """In any dialect; "" is the model's own."""
    guidance: float
    rescale: float = 0.0
    """Moves the spread of guided predictions back towards the unguided (Lin et al. 2023, arXiv 2305.08891, 3.4)."""
    strength: float = 1.0
    """How much of a picture that is started from is made anew."""
    likeness: float = 0.0
    """How strongly the picture in `beside` pulls, for networks that are told what to change in it (Brooks et al. 2023,
    arXiv 2211.09800, equation 3); 0: its pull is part of that of the text."""


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What a ControlNet is shown, and how much it counts."""

    network: ControlNet
    picture_BCHW: Tensor
    """float32 in [0, 1], B 1."""
    weight: float = 1.0


class TorchNoise:
    """Standard normal numbers as diffusers draws them: a generator of PyTorch on the CPU for each picture, `[1, ...]`
    at a time. A seed so gives the same picture here and there."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, shape: Sequence[int] = ()) -> Tensor:
        """float32 `[B, *shape]`."""
        return torch.cat([torch.randn((1, *shape), generator=each) for each in self.generators])


def open_pipeline(path: Path) -> Pipeline:
    """What a folder in diffusers' layout or a single file is made of; weights stay closed."""
    return single_file.open_file(path) if path.is_file() else diffusers.open_pipeline(path)


class LatentDiffusion:
    """A public picture model. Weights are float32."""

    def __init__(self, pipeline: Pipeline, device: str | torch.device = "cpu") -> None:
        self.pipeline, self.device = pipeline, torch.device(device)
        self.kind: Kind = pipeline.kind
        self.denoiser, maps = open_denoiser(pipeline)
        self.autoencoder = open_autoencoder(pipeline)
        told: Any = self.denoiser.config
        self.prompts = Labels.load(pipeline, told.classes) if isinstance(told, ClassDiTConfig) else \
            Prompts.load(pipeline, told.context)
        part = "unet" if "unet" in pipeline.parts else "transformer"
        self.hosts = {part: Host(self.denoiser, maps)}
        self.hosts |= {name: Host(reader.network, (reader.names,)) for name, reader in self.prompts.readers.items()}
        for network in (self.denoiser, self.autoencoder, *(each.network for each in self.prompts.readers.values())):
            network.to(self.device)

    @classmethod
    def load(
        cls, path: Path, *, loras: Sequence[tuple[Path, float]] = (), words: Sequence[Path] = (), device: str = "cpu"
    ) -> LatentDiffusion:
        """From a folder or a file, with LoRA files (and their strengths) added, and words learnt by inversion."""
        model = cls(open_pipeline(path), device)
        for file, strength in loras:
            model.add_lora(file, strength)
        for file in words:
            model.learn(file)
        return model

    # -- facts

    @property
    def channels(self) -> int:
        """Of latents."""
        return self.autoencoder.config.latent

    @property
    def downscale(self) -> int:
        """Pixels to a latent along each side."""
        return self.autoencoder.config.shrink

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of this many pixels."""
        return multiple_of(self.kind, self.pipeline, self.downscale)

    @property
    def size(self) -> int:
        """The side of the pictures it was trained on, in pixels."""
        return default_side(self.pipeline) * self.downscale

    @property
    def reads(self) -> Reads:
        """What its network reads beside noise."""
        return reads_of(self.pipeline)

    @property
    def distilled(self) -> bool:
        """Guidance is told to the network, so there is nothing to compare with: Flux, latent consistency models."""
        return self.kind == "flux" or (self.kind == "sd" and bool(getattr(self.denoiser.config, "guidance", 0)))

    # -- what can be added

    def add_lora(self, path: Path, strength: float = 1.0) -> LoraReport:
        """Merged into the weights."""
        return lora.merge(path, self.hosts, strength)

    def learn(self, path: Path) -> list[str]:
        """The words of a textual inversion, each for the encoders that it was learnt for."""
        learnt = []
        for word in embeddings.read(path):
            for name, vectors in word.vectors.items():
                fitting = [name] if name else self._of_width(vectors.shape[1])
                if not fitting or any(each not in self.prompts.readers for each in fitting):
                    widths = ", ".join(f"{each} {width}" for each, width in self._widths().items())
                    raise ConjureError(f"{path}: '{word.text}' has vectors of width {vectors.shape[1]}, this model's "
                                       f"text encoders have: {widths}", hint="it was learnt for another base model")
                for each in fitting:
                    self.prompts.readers[each].learn(word.text, vectors)
            learnt.append(word.text)
        return learnt

    def _widths(self) -> dict[str, int]:
        return {name: reader.width for name, reader in self.prompts.readers.items()}

    def _of_width(self, width: int) -> list[str]:
        return [name for name, its in self._widths().items() if its == width][:1]

    # -- a picture

    @torch.inference_mode()
    def encode_prompts(self, texts: Sequence[str], skip: int = 0) -> Condition:
        """What the denoiser is told of each text."""
        return self.prompts(texts, skip)

    @torch.inference_mode()
    def encode_negative(self, texts: Sequence[str]) -> Condition:
        """What it is told of what should not be there, which for SDXL may be nothing at all."""
        told = self.prompts(texts)
        zeros = self.kind == "sdxl" and bool(self.pipeline.index.get("force_zeros_for_empty_prompt"))
        return told.nothing() if zeros and not any(texts) else told

    def latents(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of a picture's latents; `ConjureError` where its sides do not fit."""
        for side in (height, width):
            if side % self.multiple or side < self.multiple:
                low = max(self.multiple, side // self.multiple * self.multiple)
                raise ConjureError(f"{width} x {height}: this model makes pictures whose sides are multiples of "
                                   f"{self.multiple} pixels", hint=f"nearest to {side}: {low} or {low + self.multiple}")
        return self.channels, height // self.downscale, width // self.downscale

    @torch.inference_mode()
    def sample(
        self, condition: Condition, unconditional: Condition | None, wish: Wish, *, noise: Draw, height: int,
        width: int, start: Tensor | None = None, mask: Tensor | None = None, beside: Tensor | None = None,
        drawn: Tensor | None = None, guides: Sequence[Guide] = (),
    ) -> Iterator[Step]:  # fmt: skip
        """Steps from noise, or from the latents `start` `[B, C, h, w]` as far as `wish.strength` goes.

        `noise` gives the start's noise, where it is not `drawn` already, and that of the steps. Where `mask`
        `[B, 1, h, w]` is 0, every estimate is that of `start`; where it is 1, it is free. `beside` `[B, C', h, w]` are
        channels that some networks read beside the noisy latents (inpainting, edits). A `ConjureError` names the step
        that gave no numbers.
        """
        assert mask is None or start is not None, "a mask keeps parts of what is started from"
        shape = self.latents(height, width)
        plan = schedule_from(self.pipeline.scheduler, wish.sampler).plan(
            wish.steps, strength=wish.strength, tokens=tokens_of(self.pipeline, shape[1], shape[2])
        )
        drawn = noise(shape) if drawn is None else drawn
        x = plan.prior(drawn) if start is None else plan.noisy(start.cpu(), drawn)
        hold = None
        if mask is not None and start is not None:
            free, kept = mask.to(self.device), start.to(self.device)
            hold = lambda x0: free * x0 + (1 - free) * kept  # noqa: E731
        predict = self._predict(condition, unconditional, wish, (height, width), beside, guides)
        yield from plan.steps(predict, x.to(self.device), noise, hold=hold)

    @torch.inference_mode()
    def decode(self, latents_BChw: Tensor, tile: int = 0) -> Tensor:
        """Pixels uint8 `[B, H, W, 3]` on the CPU; with `tile` in latents, part by part."""
        pixels_BCHW = self.autoencoder.decode(self.autoencoder.from_latent(latents_BChw.to(self.device)), tile=tile)
        whole = (pixels_BCHW.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        return whole.permute(0, 2, 3, 1).cpu()

    @torch.inference_mode()
    def encode(self, pixels_BHWC: Tensor, noise: Draw | None = None, tile: int = 0) -> Tensor:
        """Latents of uint8 pixels `[B, H, W, 3]`, as they stand at the end of sampling: the means, or drawn around them
        with `noise`, as diffusers starts from a picture."""
        return self.autoencoder.to_latent(self.moments(pixels_BHWC.float() / 127.5 - 1, noise, tile))

    @torch.inference_mode()
    def moments(self, x_BHWC: Tensor, noise: Draw | None = None, tile: int = 0) -> Tensor:
        """The same of pixels in [-1, 1], as the autoencoder itself has them, not scaled for diffusion."""
        mean, logvar = self.autoencoder.encode(x_BHWC.to(self.device).permute(0, 3, 1, 2), tile)
        if noise is None or isinstance(self.autoencoder, TinyAutoencoder):  # which knows no spread
            return mean
        return mean + (0.5 * logvar).exp() * noise(mean.shape[1:]).to(mean)

    def preview(self, x0_BChw: Tensor) -> Tensor:
        """Pixels of an estimate, small: latents are pictures themselves, so shrunk ones decode to the same in small."""
        side = max(x0_BChw.shape[2:])
        by = -(-side // LARGEST_PREVIEW)
        return self.decode(nn.functional.avg_pool2d(x0_BChw, by) if by > 1 else x0_BChw)

    # -- the network

    def _predict(
        self, condition: Condition, unconditional: Condition | None, wish: Wish, sides: tuple[int, int],
        beside: Tensor | None, guides: Sequence[Guide],
    ) -> Callable[[Tensor, Tensor], Tensor]:  # fmt: skip
        """What a plan asks for its steps: the network's output, guided."""
        told = condition.to(self.device)
        ask = partial(self._call, wish=wish, sides=sides, guides=guides)
        if unconditional is None:
            return lambda x, t_B: ask(_beside(x, beside), t_B, told)
        nothing = unconditional.to(self.device)
        if wish.likeness and beside is not None:
            return partial(_edited, ask, nothing.joined(nothing).joined(told), beside, wish)
        both = nothing.joined(told)

        def predict(x: Tensor, t_B: Tensor) -> Tensor:
            doubled = torch.cat([_beside(x, beside)] * 2)
            without, with_it = ask(doubled, torch.cat([t_B, t_B]), both).chunk(2)
            out = without + wish.guidance * (with_it - without)
            return rescaled(out, with_it, wish.rescale) if wish.rescale else out

        return predict

    def _call(
        self, x: Tensor, t_B: Tensor, told: Condition, *, wish: Wish, sides: tuple[int, int], guides: Sequence[Guide]
    ) -> Tensor:
        t_B = t_B.to(self.device).float()
        if self.kind in ("sd", "sdxl"):
            more = {} if self.kind == "sd" else {
                "pooled_BP": told.pooled_NP,
                "sizes_BN": torch.tensor([[*sides, 0, 0, *sides]] * len(x), dtype=torch.float32, device=self.device),
            }  # fmt: skip
            scale_B = torch.full((len(x),), wish.guidance - 1, device=self.device) if self.distilled else None
            said = [each.network(x, t_B, told.context_NTD, scale=each.weight, hint_BCHW=each.picture_BCHW.to(
                self.device).expand(len(x), -1, -1, -1), **more) for each in guides]  # fmt: skip
            return self.denoiser(x, t_B, told.context_NTD, guidance_B=scale_B,
                                 residuals=summed(said) if said else None, **more)  # fmt: skip
        assert not guides, "guides are for U-Nets"
        if self.kind == "dit":  # it also says how sure it is, which no sampler here asks for
            return self.denoiser(x, t_B, told.context_NTD)[:, : x.shape[1]]
        if self.kind == "sd3":
            return self.denoiser(x, t_B, told.context_NTD, told.pooled_NP)
        guidance_B = torch.full((len(x),), wish.guidance, device=self.device)
        return self.denoiser(x, t_B, told.context_NTD, told.pooled_NP, guidance_B)


def _edited(
    ask: Callable[..., Tensor], told: Condition, beside: Tensor, wish: Wish, x: Tensor, t_B: Tensor
) -> Tensor:
    """The output of a network that changes a picture as it is told, guided by the picture, then by the text."""
    rows = torch.cat([_beside(x, 0 * beside), _beside(x, beside), _beside(x, beside)])
    neither, picture, both = ask(rows, t_B.repeat(3), told).chunk(3)
    out = neither + wish.likeness * (picture - neither) + wish.guidance * (both - picture)
    return rescaled(out, both, wish.rescale) if wish.rescale else out


def _beside(x: Tensor, beside: Tensor | None) -> Tensor:
    return x if beside is None else torch.cat([x, beside.to(x)], dim=1)


def reads_of(pipeline: Pipeline) -> Reads:
    """What the network of a model reads beside noise: nothing, a picture to change, or a mask and what it leaves."""
    if pipeline.kind not in ("sd", "sdxl"):
        return ""
    latents = int(pipeline.parts["vae"].config.get("latent_channels") or 4)
    channels = int(pipeline.network.config.get("in_channels") or 4)
    found = {latents: "", 2 * latents: "picture", 2 * latents + 1: "mask"}
    if channels not in found:
        raise ConjureError(f"{pipeline.path}: the network reads {channels} channels, its autoencoder has {latents}",
                           hint=f"known are {latents}, {2 * latents} (a picture to change) and {2 * latents + 1} (a "
                           "mask and what it leaves)")
    return found[channels]  # type: ignore[return-value]


def tokens_of(pipeline: Pipeline, height: int, width: int) -> int | None:
    """Patches of 2 x 2 latents, for schedules that shift with the size of a picture, and for Flux, whose levels are
    evenly spaced in any case."""
    shifts = pipeline.kind == "flux" or bool(pipeline.scheduler.get("use_dynamic_shifting"))
    return (height // 2) * (width // 2) if shifts else None


def default_side(pipeline: Pipeline) -> int:
    """Side of the latents a model was trained on."""
    said = pipeline.network.config.get("sample_size")
    side = said[0] if isinstance(said, list | tuple) else said
    return side if isinstance(side, int) and side > 0 else 128 if pipeline.kind in ("sdxl", "sd3", "flux") else 64


def multiple_of(kind: Kind, pipeline: Pipeline, downscale: int) -> int:
    """Sides of pictures, in pixels. U-Nets take latents of any size, the others cut them into patches."""
    if "unet" in pipeline.parts:
        return downscale
    patch = 2 if kind == "flux" else int(pipeline.network.config.get("patch_size") or 2)
    return downscale * patch
