"""From a plan of an edit to what its drawer is told: caption, things in their places, draft and mask.

The words, the book and the codec are those of a painter. Of a plan's parts those that are drawn anew become a caption
and things of the book in place (`models/painter.py`); those that move are copied as latents; those that go are taken
out.

Legend: B batch, T text tokens, K parts, M things, N patches, h and w cells, Z latent channels, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageFilter
from torch import Tensor

from conjure.codecs.image_autoencoder import DOWNSCALE, ImageAutoencoder, from_pixels, to_pixels
from conjure.codecs.picture_words import NAME, PAD, START, PictureWords
from conjure.core.config import from_dict
from conjure.core.errors import ConjureError
from conjure.data.captions import COLOUR_NUMBERS
from conjure.data.phrases import spoken
from conjure.data.scene_edits import Edit, Part, Square
from conjure.data.scene_graph import BACKGROUNDS, GRID
from conjure.models.editor import FLAGS, Plan, Wanted, squares
from conjure.models.folder import load_weights, read_config
from conjure.models.image_codec import load_codec
from conjure.models.painter import Painter, PainterConfig

MOST_PARTS = 4  # of one instruction
PLAIN, STRAY = 0.4, 12  # share of a mask that its commonest colour fills where the ground is plain; how far it strays
ALIKE = 8  # of 255: a pixel that differs by no more counts as unchanged
COLOUR_NAMES = [name or "" for name in COLOUR_NUMBERS]
GROUNDS = ("", *BACKGROUNDS)  # what a plan can say of the ground; first that it stays

Drawing = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""What `models/editor.py:Drawer` is told beside its latents and the time."""


@dataclass(frozen=True)
class Outline:
    """A plan that is decided: what happens to which squares, the new ground or "", and the cells it changes."""

    parts: tuple[Part, ...] = ()
    ground: str = ""
    ground_cells: np.ndarray | None = None

    def mask(self) -> np.ndarray:
        """Cells that may change: bool `[GRID, GRID]`."""
        if self.ground:
            assert self.ground_cells is not None
            return self.ground_cells
        cells = np.zeros((GRID, GRID), bool)
        for part in self.parts:
            for square in (part.found if part.touched else None, part.wanted):
                if square is not None:
                    cells[square.within] = True
        return cells


@dataclass(frozen=True)
class Sketcher:
    """A painter whose book, text encoder and codec an editor uses; nothing of it learns here."""

    config: PainterConfig
    network: Painter
    words: PictureWords
    codec: ImageAutoencoder | None

    @classmethod
    def load(cls, folder: Path) -> Sketcher:
        """The painter in a folder; `ConjureError` where it is none, has no book, or draws on another grid."""
        saved = read_config(folder)
        if saved.get("kind") != "painter":
            raise ConjureError(f"{folder}: expected a model that draws scenes, this is {saved.get('kind')!r}",
                               hint="model.painter=starter/pictograms")
        config = from_dict(PainterConfig, saved["model"], where="model")
        if not config.book.pages or config.dit.size != GRID:
            raise ConjureError(f"{folder}: edits need a painter with a book and {GRID} x {GRID} latent cells",
                               hint="model.painter=starter/pictograms")
        network = Painter(config.text, config.book, config.dit)
        load_weights(network, folder / "model.safetensors")
        words = PictureWords.load(folder, spoken, pages=config.book.pages)
        codec = load_codec(folder) if config.codec else None
        return cls(config, network.eval().requires_grad_(False), words, codec)

    @property
    def side(self) -> int:
        """Pixels of the canvas."""
        return GRID * (DOWNSCALE if self.codec is not None else 1)

    @torch.no_grad()
    def encode(self, pixels_BHWC: np.ndarray) -> Tensor:
        """uint8 RGB -> latents `[B, Z, h, w]`."""
        x_BCHW = from_pixels(torch.from_numpy(pixels_BHWC))
        return self.codec.encode(x_BCHW).contiguous() if self.codec is not None else x_BCHW

    @torch.no_grad()
    def decode(self, x_BZhw: Tensor) -> np.ndarray:
        """Latents -> uint8 RGB."""
        return to_pixels(self.codec.decode(x_BZhw) if self.codec is not None else x_BZhw).numpy()

    def glance(self, pages_BT: Tensor) -> Tensor:
        """What each named page looks like on the whole, `[B, T, 16 Z]`."""
        assert self.network.book is not None
        return self.network.book.glance(pages_BT)

    def looks(self, pages_BT: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The pages of the first `count` named things `[B, K, Z, S, S]`, and their tokens `[B, K]`, -1 for none."""
        book = self.network.book
        assert book is not None
        named_BT = pages_BT >= 0
        order_BK = torch.argsort((~named_BT).int(), dim=1, stable=True)[:, :count]
        there_BK = named_BT.gather(1, order_BK)
        pages_BKN = book.open(pages_BT.gather(1, order_BK)).unflatten(2, (book.config.side, book.config.side))
        looks_BKZSS = pages_BKN.permute(0, 1, 4, 2, 3) * there_BK[..., None, None, None]
        return looks_BKZSS.contiguous(), torch.where(there_BK, order_BK, -1)

    @torch.no_grad()
    def drawing(self, source_BZhw: Tensor, outlines: Sequence[Outline]) -> Drawing:
        """Context (three tensors), guide, draft and mask for each picture and what is to happen to it."""
        length = self.config.text.length
        rows = torch.full((len(outlines), length), PAD)
        pages = torch.full((len(outlines), length), -1)
        things = torch.full((len(outlines), MOST_PARTS, 5), -1.0)
        draft_BZhw = source_BZhw.clone()
        for b, outline in enumerate(outlines):
            for t, (row, page) in enumerate(self._caption(outline)[:length]):
                rows[b, t], pages[b, t] = row, page
            token = {int(page): t for t, page in reversed(list(enumerate(pages[b]))) if page >= 0}
            anew = [part for part in outline.parts if part.wanted and not part.moved and part.page in token]
            for k, part in enumerate(anew[:MOST_PARTS]):
                things[b, k] = torch.tensor([token[part.page], *_place(part.wanted), part.colour])
            _sketch(draft_BZhw[b], source_BZhw[b], outline)
        context = self.network.read(rows, pages)
        guide = self.network.guide(context, pages, things)
        masks = np.array([outline.mask() for outline in outlines], np.float32).reshape(-1, GRID, GRID)
        return (*context, guide, draft_BZhw, torch.from_numpy(masks))

    def _caption(self, outline: Outline) -> list[tuple[int, int]]:
        """(row, page) of each token of "a green apple and a hat on a blue background"."""
        tokens = [(START, -1)]

        def say(text: str) -> None:
            tokens.extend((int(row), -1) for row in self.words.encode([text], 8)[0][0][1:] if row != PAD)

        anew = [part for part in outline.parts if part.wanted is not None and not part.moved]
        for number, part in enumerate(anew):
            say(f"{'and ' if number else ''}a {COLOUR_NAMES[part.colour]}")
            tokens.extend([(NAME, part.page)] if part.page >= 0 else [])
        if outline.ground:
            say(f"on a {outline.ground} background")
        return tokens


def true_outline(edit: Edit, changed: np.ndarray) -> Outline:
    """What should happen, from the scenes; `changed` as in `changed_cells`."""
    return Outline(tuple(part for part in edit.parts if part.touched or part.wanted), edit.ground, changed)


def changed_cells(before_HWC: np.ndarray, after_HWC: np.ndarray) -> np.ndarray:
    """Cells in which the pictures differ by more than `ALIKE`: bool `[GRID, GRID]`."""
    step = before_HWC.shape[0] // GRID
    away_HW = np.abs(before_HWC.astype(np.int16) - after_HWC).max(2)
    return (away_HW > ALIKE).reshape(GRID, step, GRID, step).any((1, 3))


def wanted_plans(edits: Sequence[Edit], rows_BT: np.ndarray, pages_BT: np.ndarray, changed: Sequence[np.ndarray],
                 word_rows: dict[str, int], sides: Sequence[int]) -> Wanted:  # fmt: skip
    """What the planner should say of each edit. Only for what is added it says where it is wanted: the rest follows
    from where things are found (`decided`)."""
    shape = (len(edits), MOST_PARTS)
    token, flags, colour = torch.full(shape, -1), torch.zeros(*shape, len(FLAGS)), torch.zeros(shape, dtype=torch.int64)
    found, wanted = torch.full(shape, -1), torch.full(shape, -1)
    number = {square: k for k, square in enumerate(squares(sides, GRID))}
    for b, edit in enumerate(edits):
        for k, part in enumerate(edit.parts):
            where = pages_BT[b] == part.page if part.page >= 0 else rows_BT[b] == word_rows[part.word]
            if not where.any():
                continue  # beyond what the planner reads
            token[b, k] = int(where.argmax())
            flags[b, k] = torch.tensor([part.touched, part.wanted is not None, part.moved])
            colour[b, k] = part.colour
            new = part.wanted is not None and not any(each.touched for each in edit.parts)
            for squares_BK, square in ((found, part.found), (wanted, part.wanted if new else None)):
                if square is not None:
                    squares_BK[b, k] = number[square.left, square.top, square.side]
    ground = torch.tensor([GROUNDS.index(edit.ground) for edit in edits])
    return Wanted(token, flags, colour, found, wanted, ground, torch.from_numpy(np.stack(changed)))


def decided(plan: Plan, rows_BT: np.ndarray, pages_BT: np.ndarray, sides: Sequence[int]) -> list[Outline]:
    """The likeliest outline of each plan; of parts at most `MOST_PARTS`, the surest."""
    every = [Square(*square) for square in squares(sides, GRID)]
    found_BT, wanted_BT = plan.found_BTS.argmax(-1).tolist(), plan.wanted_BTS.argmax(-1).tolist()
    outlines = []
    for b in range(len(rows_BT)):
        ground = GROUNDS[int(plan.ground_BG[b].argmax())]
        if ground:
            outlines.append(Outline((), ground, (plan.cells_Bhw[b] > 0).numpy()))
            continue
        parts: list[tuple[float, int, Part]] = []
        for t in np.flatnonzero(rows_BT[b] > START):
            touched, drawn, moved = (plan.flags_BT3[b, t] > 0).tolist()
            moved = moved and touched and drawn
            if not touched and not (drawn and pages_BT[b, t] >= 0):
                continue
            found = every[found_BT[b][t]] if touched else None
            wanted = found if touched else every[wanted_BT[b][t]]
            colour = int(plan.colours_BTQ[b, t].argmax()) if drawn and not moved else 0
            part = Part(int(pages_BT[b, t]), "", found, wanted if drawn else None, touched, moved, colour)
            parts.append((float(plan.flags_BT3[b, t, :2].max()), int(t), part))
        surest = sorted(sorted(parts, key=lambda each: -each[0])[:MOST_PARTS], key=lambda each: each[1])
        outlines.append(Outline(tuple(_settled([part for _, _, part in surest]))))
    return outlines


def _settled(parts: list[Part]) -> list[Part]:
    """Places that follow from others: of two that move each goes to the middle of the other, and what comes while
    something goes takes its square."""
    moved = [part for part in parts if part.moved]
    gone = [part for part in parts if part.touched and part.wanted is None]
    out = []
    for part in parts:
        if part.moved and len(moved) == 2 and part.found:
            other = moved[1 - moved.index(part)].found
            part = replace(part, wanted=_resized(other, part.found.side) if other else part.found)
        elif not part.touched and len(gone) == 1:
            part = replace(part, wanted=gone[0].found)
        out.append(part)
    return out


def ground_pixels(pixels_HW3: np.ndarray, mask_HW: np.ndarray, edge: int) -> np.ndarray:
    """Of a mask, bool, the pixels that show a plain ground, and `edge` pixels around them: bool `[H, W]`.

    The ground is the commonest colour under the mask. Where it fills less than `PLAIN` of it there is no plain ground,
    and the mask stays what it is.
    """
    colours, counts = np.unique(pixels_HW3[mask_HW] // 8, axis=0, return_counts=True)
    ground = colours[counts.argmax()].astype(np.int16) * 8 + 4
    plain_HW = (np.abs(pixels_HW3.astype(np.int16) - ground).max(2) <= STRAY) & mask_HW
    if plain_HW.sum() < PLAIN * mask_HW.sum():
        return mask_HW
    grown = Pillow.fromarray(plain_HW.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * edge + 1))
    return (np.asarray(grown) > 0) & mask_HW


def same(a: Outline, b: Outline) -> bool:
    """Whether two outlines do the same, but for the exact cells of a ground."""
    bare = [sorted((replace(p, word="") for p in each.parts), key=repr) for each in (a, b)]
    return a.ground == b.ground and bare[0] == bare[1]


def _sketch(draft_Zhw: Tensor, source_Zhw: Tensor, outline: Outline) -> None:
    """Takes out what goes and puts what moves in its new place."""
    for part in outline.parts:
        if part.found and part.touched and (part.moved or part.wanted is None):
            draft_Zhw[(slice(None), *part.found.within)] = 0
    for part in outline.parts:
        if part.wanted and not part.touched:
            draft_Zhw[(slice(None), *part.wanted.within)] = 0
    for part in outline.parts:
        if part.moved and part.found and part.wanted:
            copied = source_Zhw[(slice(None), *part.found.within)]
            draft_Zhw[(slice(None), *part.wanted.within)] = copied


def _place(square: Square | None) -> tuple[float, float, float]:
    """x, y of the centre and scale, canvas sides as unit."""
    assert square is not None
    half = square.side / 2
    return (square.left + half) / GRID, (square.top + half) / GRID, square.side / GRID


def _resized(square: Square, side: int) -> Square:
    """A square of another side with its centre as near to the old one as the grid allows."""
    corner = [math.floor(at + (square.side - side) / 2 + 0.5) for at in (square.left, square.top)]
    left, top = (min(max(0, at), GRID - side) for at in corner)
    return Square(left, top, side)
