"""image + text -> image: a picture changed as an instruction says, and nowhere else.

A planner reads picture and instruction and says which squares change; a drawer draws them (`models/editor.py`). All
other pixels are those of the input, bit for bit (`media/canvas.py:pasted`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.picture_words import PictureWords
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.core.shelf import find
from conjure.data.captions import COLOUR_NUMBERS, SceneCaptions
from conjure.data.phrases import spoken
from conjure.data.scene_edits import WORDS, Edit, EditSource
from conjure.data.scene_graph import GRID
from conjure.data.scenes import SceneSource
from conjure.diffusion.names import SAMPLER_NAMES, without_spacing
from conjure.diffusion.samplers import SAMPLERS
from conjure.media.canvas import pasted
from conjure.media.fit import Fit, on_square
from conjure.media.image import Image, grid
from conjure.models.editor import Editor, EditorConfig, Wanted, plan_loss
from conjure.models.folder import load_weights, read_config, save_weights, weights_digest, write_config
from conjure.tasks.edit_drafts import (
    ALIKE,
    GROUNDS,
    Drawing,
    Outline,
    Sketcher,
    changed_cells,
    decided,
    ground_pixels,
    same,
    true_outline,
    wanted_plans,
)
from conjure.tasks.edit_evaluation import edits_done
from conjure.tasks.inputs import moving, parted

FAINT = 0.05  # weight of the cells that stay, beside 1 of those that change
EDGE = 2  # pixels of the canvas in which a thing's edge mixes with the ground
BATCH = 25  # pictures at a time when many are edited
READ = ("words", "glance", "looks", "spots")  # of a batch: what the planner is told beside the picture


@plain_dataclass(frozen=True, kw_only=True)
class EditData:
    """`size` is the side of the scenes in pixels."""

    size: int = 128


@dataclass(frozen=True, kw_only=True)
class InstructOptions:
    """How what changes is drawn."""

    steps: int = Field(default=8, ge=1, le=1000, description="steps of the sampler; more is slower")
    sampler: Annotated[Literal[*SAMPLER_NAMES], BeforeValidator(without_spacing)] = Field(  # type: ignore
        default="euler", description="how the noise is removed"
    )
    feather: int = Field(default=0, ge=0, le=512, description="pixels inside the seam over which old and new blend")


class Instruct:
    """Does to a picture what a text says. `source` is there while the model trains; a loaded one has none."""

    Options = InstructOptions
    ModelConfig = EditorConfig
    DataConfig = EditData
    sets = ("noto_emoji",)
    causal = False

    def __init__(self, config: EditorConfig, network: Editor, words: PictureWords, sketcher: Sketcher, *,
                 source: EditSource | None = None, data: EditData | None = None, seed: int = 0) -> None:
        self.config, self.network, self.words, self.sketcher = config, network, words, sketcher
        self.source, self.data, self.seed = source, data or EditData(), seed
        self.rows = {word: row for row, word in enumerate(words.vocabulary)}

    @classmethod
    def create(cls, model: EditorConfig, data: EditData, seed: int = 0) -> Instruct:
        """A new model whose drawer begins as the painter; the recipe's numbers must agree with painter and data."""
        sketcher = Sketcher.load(find(model.painter))
        captions = SceneCaptions(SceneSource.load(data.size))
        words = PictureWords(WORDS, captions.names, spoken)
        for key, wanted, got in (("planner.vocab", len(words.vocabulary), model.planner.vocab),
                                 ("planner.colours", len(COLOUR_NUMBERS), model.planner.colours),
                                 ("planner.grounds", len(GROUNDS), model.planner.grounds)):
            if got != wanted:
                raise ConjureError(f"model.{key} is {got}, the data have {wanted}", hint=f"model.{key}={wanted}")
        if model.dit != sketcher.config.dit or data.size != sketcher.side:
            raise ConjureError(f"model.dit and data.size must be those of {model.painter}: {sketcher.config.dit}, "
                               f"{sketcher.side}")
        if len(captions.scenes.pictograms) != sketcher.config.book.pages:
            raise ConjureError(f"{model.painter} has a book of {sketcher.config.book.pages} pages, the data have "
                               f"{len(captions.scenes.pictograms)} pictograms", hint="train the painter on these data")
        with randomness.drawing_weights(seed):
            network = Editor(model.planner, model.dit)
        network.drawer.dit.load_state_dict(sketcher.network.dit.state_dict())
        return cls(model, network, words, sketcher, source=EditSource(captions.scenes), data=data, seed=seed)

    @classmethod
    def load(cls, folder: Path) -> Instruct:
        """The model in a folder, with the painter that it names; `ConjureError` where that is another than it was."""
        saved = read_config(folder)
        config = from_dict(EditorConfig, saved["model"], where="model")
        painter = find(config.painter)
        if weights_digest(painter) != saved.get("painter_digest"):
            raise ConjureError(f"{folder}: it was trained beside another {config.painter} than the one that is here",
                               hint="fetch or train both again")
        network = Editor(config.planner, config.dit)
        load_weights(network, folder / "model.safetensors")
        sketcher = Sketcher.load(painter)
        words = PictureWords.load(folder, spoken, pages=sketcher.config.book.pages)
        if len(words.vocabulary) != config.planner.vocab:
            raise ConjureError(f"{folder / 'words.json'}: {len(words.vocabulary)} words for a network of "
                               f"{config.planner.vocab}", hint="fetch or train the model again")
        data = from_dict(EditData, saved["data"], where="data")
        return cls(config, network.eval().requires_grad_(False), words, sketcher, data=data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        assert self.source is not None
        edits = [self.source.edit(self.seed, i) for i in indices]
        drawn = [k for k, i in enumerate(indices) if i % self.config.every == 0]
        return self._tensors(edits, drawn, [randomness.derive(self.seed, "example", i) for i in indices])

    def _tensors(self, edits: Sequence[Edit], drawn: Sequence[int], own: Sequence[int]) -> dict[str, Tensor]:
        """Planner's tensors for all edits, the drawer's ("d0" and on, "x", "drawn", "seeds") for those in `drawn`."""
        assert self.source is not None
        paint, cells = self.source.scenes.paint, np.zeros((GRID, GRID), bool)
        before = np.stack([paint(edit.before) for edit in edits])
        after = {k: paint(edits[k].after) for k in range(len(edits)) if k in drawn or edits[k].ground}
        changed = [changed_cells(before[k], after[k]) if k in after else cells for k in range(len(edits))]
        rows, pages = self.words.encode([edit.instruction for edit in edits], self.config.planner.length)
        source = self.sketcher.encode(before)
        drawing = self.sketcher.drawing(source[list(drawn)], [true_outline(edits[k], changed[k]) for k in drawn])
        wanted = wanted_plans(edits, rows, pages, changed, self.rows, self.config.planner.sides)
        read = zip(READ, self._told(rows, pages), strict=True)
        return {
            **dict(read), "pages": torch.from_numpy(pages), "source": source,
            **{f"want_{name}": value for name, value in wanted._asdict().items()},
            "x": self.sketcher.encode(np.stack([after[k] for k in drawn])) if drawn else source[:0],
            "drawn": torch.tensor(list(drawn), dtype=torch.int64),
            **{f"draw_{n}": each for n, each in enumerate(drawing)},
            "seeds": torch.tensor([own[k] for k in drawn], dtype=torch.int64),
        }

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum of the planner's and the drawer's losses, edits). Those that the drawer sees count for all."""
        plan_B, draw_A = self._losses(batch, network)
        total = plan_B.sum() + draw_A.sum() * len(plan_B) / max(1, len(draw_A))
        return total, torch.tensor(len(plan_B))

    def _losses(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        editor, own = self.network if network is None else network, batch["seeds"].tolist()
        x0, drawing = batch["x"], tuple(batch[f"draw_{n}"] for n in range(6))
        noise = randomness.normal(own, x0.shape[1:]).to(x0.device, x0.dtype)
        t_A = self.config.flow.time(randomness.uniform(own)).to(x0.device)
        plans = []

        def predict(x: Tensor, t: Tensor) -> Tensor:
            plan, out = editor(*(batch[name] for name in READ), batch["source"], x, t, *drawing)
            plans.append(plan)
            return out

        weight_A1hw = (FAINT + drawing[-1]).unsqueeze(1)
        weight_A1hw = weight_A1hw / weight_A1hw.mean((1, 2, 3), keepdim=True)
        draw_A = self.config.flow.loss(predict, x0, noise, t_A, weight_A1hw)
        wanted = Wanted(**{name: batch[f"want_{name}"] for name in Wanted._fields})
        return plan_loss(plans[0], batch["words"], wanted), draw_A

    def tokens(self, batch: dict[str, Tensor]) -> int:
        """Patches that either network reads."""
        return (len(batch["words"]) + len(batch["x"])) * self.network.drawer.dit.patch_count

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        drawer = self.network.drawer.dit.flops(len(batch["x"]), self.sketcher.config.text.length)
        return 3 * (self.network.planner.flops(len(batch["words"])) + drawer)

    def describe(self, batch: dict[str, Tensor]) -> str:
        """Instructions as the planner reads them, with the share of the picture that changes."""
        drawn = dict(zip(batch["drawn"].tolist(), batch["draw_5"].flatten(1).mean(1).tolist(), strict=True))
        lines = [f"{len(batch['words'])} edits, {len(drawn)} of them drawn; words with their squares carry loss, and "
                 "every latent value, most where it changes. Instructions:"]
        for k, told in enumerate(zip(batch["words"].tolist(), batch["pages"].tolist(), strict=True)):
            lines.append("  " + self.words.read(*told) + (f"   changes {drawn[k]:.0%}" if k in drawn else ""))
        return "\n".join(lines)

    def preview(self, seed: int) -> dict[str, Image]:
        """Eight unseen edits: before, and below as the model does them."""
        before, made, _ = self._samples([randomness.derive(seed, k) % 1000 for k in range(8)])
        return {"edits": grid([*before, *made], columns=len(before))}

    def _samples(self, indices: Sequence[int]) -> tuple[list[Image], list[Image], list[str]]:
        assert self.source is not None
        edits = [self.source.edit(self.seed, i, "test") for i in indices]
        before = [Image(self.source.scenes.paint(edit.before)) for edit in edits]
        instructions = [edit.instruction for edit in edits]
        return before, self.apply(before, instructions, list(indices)), instructions

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """The loss over held-out edits at fixed times and noise, its two halves, and the share of plans that are right
        in everything: what is touched, drawn and moved, in which colour and in which squares."""
        assert self.source is not None
        plan = draw = right = 0.0
        indices = range(limit or 256)
        for start in range(0, len(indices), 32):
            part = indices[start : start + 32]
            edits = [self.source.edit(self.seed, i, "test") for i in part]
            own = [randomness.derive(0, "validation", i) for i in part]
            batch = self._tensors(edits, range(len(part)), own)
            plan_B, draw_B = self._losses(batch)
            plan, draw = plan + plan_B.sum().item(), draw + draw_B.sum().item()
            rows, pages = batch["words"].numpy(), batch["pages"].numpy()
            said = self.network.planner(*(batch[name] for name in READ), batch["source"])
            made = decided(said, rows, pages, self.config.planner.sides)
            true = [true_outline(edit, cells.numpy()) for edit, cells in zip(edits, batch["want_cells_Bhw"])]
            right += sum(same(a, b) for a, b in zip(made, true, strict=True))
        n = len(indices)
        return {"loss": (plan + draw) / n, "plan": plan / n, "draw": draw / n, "plans_right": right / n}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="editor", task="instruct", network=self.network, sections={
            "model": to_dict(self.config), "data": to_dict(self.data),
            "painter_digest": weights_digest(find(self.config.painter))})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)
        self.words.save(folder)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Any], options: InstructOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture a seed; sample k is the same alone and among others."""
        picture, text, _ = parted(inputs, options)
        if not text:
            raise ConjureError("nothing says what to do with the picture",
                               hint='for example: conjure make photo.png "make the apple green" -o out.png')
        yield from moving(picture)
        yield from map(Warn, self.words.unread(text, self.config.planner.length, "This model does what it can"))
        fit = on_square((picture.height, picture.width), self.sketcher.side)
        source, (outline,) = self._read([fit.laid(picture.rgb())], [text])
        if not outline.mask().any():
            yield Warn("the model found nothing that this instruction changes: the picture stays as it is")
            yield Result([picture] * len(seeds), {"changed": 0.0})
            return
        if fit.enlarges > 1.05:
            yield Warn(f"what is new is drawn at {fit.scaled[1]} x {fit.scaled[0]} pixels and enlarged "
                       f"{fit.enlarges:.1f} times")
        mask = self._mask(outline, fit, picture)
        told = tuple(each.expand(len(seeds), *each.shape[1:]) for each in self.sketcher.drawing(source, [outline]))
        x = source
        for done, x0 in enumerate(self._steps(told, source, options, seeds), start=1):
            x = x0
            yield Progress(done, options.steps, "step")
            if done < options.steps:
                yield Preview(lambda x0=x0: grid(self._composed([picture] * len(seeds), x0, [fit] * len(seeds),
                                                                [mask] * len(seeds), options.feather)))
        count = len(seeds)
        made = self._composed([picture] * count, x, [fit] * count, [mask] * count, options.feather)
        yield Result(made, {"changed": round(float((mask > 0).mean()), 4),
                            "evaluations": SAMPLERS[options.sampler].evaluations(options.steps)})

    @torch.no_grad()
    def apply(self, pictures: Sequence[Image], instructions: Sequence[str], seeds: Sequence[int],
              options: InstructOptions | None = None) -> list[Image]:  # fmt: skip
        """Many pictures of any sizes, each with its own instruction and seed; each is the same as alone."""
        options, made = options or InstructOptions(), []
        for start in range(0, len(pictures), BATCH):
            part = slice(start, start + BATCH)
            fits = [on_square((p.height, p.width), self.sketcher.side) for p in pictures[part]]
            laid = [fit.laid(p.rgb()) for fit, p in zip(fits, pictures[part], strict=True)]
            source, outlines = self._read(laid, instructions[part])
            x = source
            for x0 in self._steps(self.sketcher.drawing(source, outlines), source, options, seeds[part]):
                x = x0
            masks = [self._mask(*each) for each in zip(outlines, fits, pictures[part], strict=True)]
            made += self._composed(pictures[part], x, fits, masks, options.feather)
        return made

    @torch.no_grad()
    def _read(self, laid: Sequence[np.ndarray], instructions: Sequence[str]) -> tuple[Tensor, list[Outline]]:
        """The latents of canvases and what is to happen to each."""
        source = self.sketcher.encode(np.stack(laid))
        rows, pages = self.words.encode(list(instructions), self.config.planner.length)
        plan = self.network.planner(*self._told(rows, pages), source)
        return source, decided(plan, rows, pages, self.config.planner.sides)

    def _told(self, rows_BT: np.ndarray, pages_BT: np.ndarray) -> tuple[Tensor, ...]:
        """What the planner reads of instructions, in the order of `READ`."""
        pages = torch.from_numpy(pages_BT)
        looks, spots = self.sketcher.looks(pages, self.config.planner.named)
        return torch.from_numpy(rows_BT), self.sketcher.glance(pages), looks, spots

    @torch.no_grad()
    def _steps(self, told: Drawing | tuple[Tensor, ...], source: Tensor, options: InstructOptions,
               seeds: Sequence[int]) -> Iterator[Tensor]:  # fmt: skip
        """The estimate of the picture's latents after each step; what stays is the source's."""
        flow, c = self.config.flow, self.config.dit
        x = flow.prior(randomness.normal(list(seeds), (c.channels, c.size, c.size)))
        mask_B1hw = told[-1].unsqueeze(1)
        denoise = flow.denoise(lambda x, t: self.network.drawer(x, t, *told))
        steps = SAMPLERS[options.sampler].steps(denoise, x, flow.sigmas(options.steps), randomness.Noise(list(seeds)))
        for done, step in enumerate(steps, start=1):
            x0 = step.x if done == options.steps else step.x0
            yield mask_B1hw * x0 + (1 - mask_B1hw) * source

    def _mask(self, outline: Outline, fit: Fit, picture: Image) -> np.ndarray:
        """What may change of the picture itself: uint8 `[H, W]`, 0 or 255. Where a ground is plain its pixels are told
        from those of the things on it, which keep theirs."""
        cell = self.sketcher.side // GRID
        canvas = outline.mask().repeat(cell, 0).repeat(cell, 1).astype(np.uint8) * 255
        mask_HW = fit.taken(canvas[..., None])[..., 0] > 127
        if outline.ground and mask_HW.any():
            mask_HW = ground_pixels(picture.rgb(), mask_HW, EDGE * max(1, round(fit.enlarges)))
        return np.where(mask_HW, 255, 0).astype(np.uint8)

    def _composed(self, pictures: Sequence[Image], x: Tensor, fits: Sequence[Fit], masks: Sequence[np.ndarray],
                  feather: int) -> list[Image]:  # fmt: skip
        drawn = self.sketcher.decode(x)
        return [_pasted(picture, fit.taken(made), mask, feather)
                for picture, made, fit, mask in zip(pictures, drawn, fits, masks, strict=True)]

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """The protocol of `edit_evaluation.py` over 300 unseen edits."""
        source = EditSource(SceneSource.load(self.data.size))

        def act(pictures: Sequence[Image], instructions: Sequence[str], seeds: Sequence[int]) -> list[Image]:
            return self.apply(pictures, instructions, seeds)

        return edits_done(act, source, tell=on_progress)


def _pasted(picture: Image, made_HW3: np.ndarray, mask_HW: np.ndarray, feather: int) -> Image:
    """What was made in place of what the mask marks, but for pixels that would change by `ALIKE` or less, which stay:
    a plain ground stays the very same."""
    if not mask_HW.any():
        return picture
    old_HW3 = picture.rgb()
    faint_HW1 = np.abs(old_HW3.astype(np.int16) - made_HW3).max(2, keepdims=True) <= ALIKE
    return pasted(picture, np.where(faint_HW1, old_HW3, made_HW3), mask_HW, feather)
