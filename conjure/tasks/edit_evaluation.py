"""Whether instruction edits do what they are told, and nothing else: 300 unseen edits, 50 of each kind.

An edit counts where its target is done and the rest is unchanged.

Target done: each thing that was to be drawn, recoloured or moved is slid over the picture as a template at its own
size; its best fit must lie within a cell of its place, and there no other pictogram and no other colour of its own
may fit better. Where something went, at least 98 % of the pixels must be those of the ground, within 24/255. With a new
background all things must be found so, and 98 % of the pixels that show nothing but ground must have its colour.

Rest unchanged: outside the squares of what is touched, before and after, every pixel is within 8/255 of what it was. A
new background touches all cells of 8 x 8 pixels in which it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image as PillowImage

from conjure.core.events import Event, Progress
from conjure.core.seeds import derive
from conjure.data.recolour import COLOURS
from conjure.data.scene_edits import KINDS, Edit, EditSource, square_of
from conjure.data.scene_graph import BACKGROUNDS, GRID, Scene, Thing
from conjure.data.scenes import SceneSource
from conjure.media.image import Image
from conjure.metrics.confidence import wilson
from conjure.metrics.template_search import locate, nearest
from conjure.tasks.edit_drafts import ALIKE, changed_cells

Act = Callable[[Sequence[Image], Sequence[str], Sequence[int]], list[Image]]
Tell = Callable[[Event], None]
EDITS = 300
SEED = 300  # of the edits that are asked for; the test split is of no use to training whatever the seed
WINDOW = 24  # pixels of a side when things are compared at one place
PLACE = 1 / GRID  # canvas sides: how far from its place a thing may lie
BESIDE = 0.2  # canvas sides between the centres of two things beside each other, at least, and at most across
GROUND, CLEAN = 24, 0.98  # how near to its colour (of 255) how much of a ground must be
PART = 25
PROTOCOL = "unseen edits; things found by template in place, other pixels within 8/255"


def edits_done(act: Act, source: EditSource, *, count: int = EDITS, tell: Tell | None = None) -> dict[str, dict]:
    """`act(pictures, instructions, seeds)` makes the edits. Shares of all edits: done as asked, the two halves of that,
    and by kind."""
    judge = Judge(source.scenes)
    done, kept, kinds = [], [], []
    for start in range(0, count, PART):
        numbers = range(start, min(start + PART, count))
        edits = [source.edit(SEED, k, "test", KINDS[k % len(KINDS)]) for k in numbers]
        before = [source.scenes.paint(edit.before) for edit in edits]
        seeds = [derive(SEED, "picture", k) for k in numbers]
        made = act([Image(pixels) for pixels in before], [edit.instruction for edit in edits], seeds)
        for edit, old, new in zip(edits, before, made, strict=True):
            done.append(judge.target_done(edit, new.rgb()))
            kept.append(judge.rest_unchanged(edit, old, new.rgb()))
            kinds.append(edit.kind)
        if tell:
            tell(Progress(numbers.stop, count, "edit"))
    both = [a and b for a, b in zip(done, kept, strict=True)]
    found = {"edits_done": _share(both, PROTOCOL), "target_done": _share(done, "the first half of it"),
             "rest_unchanged": _share(kept, "the second half")}
    for kind in KINDS:
        found[kind] = _share([b for b, k in zip(both, kinds, strict=True) if k == kind], PROTOCOL)
    return found


class Judge:
    """Looks at pictures of scenes. Legend: N pictograms, S pixels of a window, H and W pixels."""

    def __init__(self, scenes: SceneSource) -> None:
        self.scenes = scenes
        self.stamps_NSS4 = np.stack([scenes.stamp(n, None, WINDOW) for n in range(len(scenes.pictograms))])

    def target_done(self, edit: Edit, pixels_HWC: np.ndarray) -> bool:
        """Whether the picture shows what the edit asked for."""
        if edit.kind == "add":
            anchor, new = edit.after.things
            at = self.place(new, edit.after.background, pixels_HWC)
            beside = _beside((new.x - anchor.x, new.y - anchor.y), (at[0] - anchor.x, at[1] - anchor.y))
            return beside and self.like(new, edit.after.background, pixels_HWC, at)
        things, clean = self._asked(edit, len(pixels_HWC))
        true = self.scenes.paint(edit.after).astype(np.int16)
        near = np.abs(pixels_HWC - true).max(2) <= GROUND
        if clean.any() and near[clean].mean() < CLEAN:
            return False
        return all(self.found(thing, edit.after, pixels_HWC) for thing in things)

    def _asked(self, edit: Edit, size: int) -> tuple[Sequence[Thing], np.ndarray]:
        """The things to be found, and the pixels that are to be ground, bool `[H, W]`."""
        if edit.kind == "background":
            return edit.after.things, self._bare(edit.after)
        wanted = {part.wanted for part in edit.parts if part.wanted}
        left = edit.touched()
        for square in wanted:
            left[square.within] = False
        return [thing for thing in edit.after.things if square_of(thing) in wanted], _pixels(left, size)

    def rest_unchanged(self, edit: Edit, before_HWC: np.ndarray, pixels_HWC: np.ndarray) -> bool:
        """Whether all that the edit does not touch is as it was."""
        size, cells = len(before_HWC), edit.touched()
        if edit.kind == "background":
            cells = changed_cells(before_HWC, self.scenes.paint(edit.after))
        touched = _pixels(cells, size)
        if edit.kind == "add":
            new = edit.after.things[-1]
            x, y = self.place(new, edit.after.background, pixels_HWC)
            half = new.scale / 2 + 0.5 / GRID
            top, bottom, left, right = (max(0, round(at * size)) for at in (y - half, y + half, x - half, x + half))
            touched = np.zeros((size, size), bool)
            touched[top:bottom, left:right] = True
        away = np.abs(before_HWC.astype(np.int16) - pixels_HWC).max(2)
        return bool((away[~touched] <= ALIKE).all())

    def found(self, thing: Thing, scene: Scene, pixels_HWC: np.ndarray) -> bool:
        """Whether a thing is where it should be and looks like itself rather than like another. Of several that are
        alike each is looked for at its own place only."""
        if scene.kind == "count":
            return self.like(thing, scene.background, pixels_HWC, (thing.x, thing.y))
        x, y = self.place(thing, scene.background, pixels_HWC)
        near = max(abs(x - thing.x), abs(y - thing.y)) <= PLACE
        return near and self.like(thing, scene.background, pixels_HWC, (x, y))

    def place(self, thing: Thing, ground: str, pixels_HWC: np.ndarray) -> tuple[float, float]:
        """x and y of the centre, in canvas sides, where the thing's template fits best."""
        size = len(pixels_HWC)
        stamp = self.scenes.stamp(thing.concept, thing.colour, round(thing.scale * size))
        x, y, _ = locate(pixels_HWC, _on(stamp, BACKGROUNDS[ground]), 0.1 + 0.9 * stamp[..., 3] / 255)
        return x / size, y / size

    def like(self, thing: Thing, ground: str, pixels_HWC: np.ndarray, at: tuple[float, float]) -> bool:
        """Whether what is seen at a place looks most like this thing in its colour."""
        size, colour = len(pixels_HWC), BACKGROUNDS[ground]
        side = round(thing.scale * size)
        left, top = (round(centre * size - side / 2) for centre in at)
        seen = PillowImage.fromarray(np.ascontiguousarray(pixels_HWC[top : top + side, left : left + side]))
        seen_SSC = np.asarray(seen.resize((WINDOW, WINDOW), PillowImage.Resampling.LANCZOS), np.float32)
        known, wanted = _on(self.stamps_NSS4, colour), thing.concept
        if thing.concept in self.scenes.tints:
            tinted = [_on(self.scenes.stamp(thing.concept, name, WINDOW), colour) for name in COLOURS]
            known = np.concatenate([known, tinted])
        if thing.colour is not None:
            wanted = len(self.stamps_NSS4) + list(COLOURS).index(thing.colour)
        return int(nearest(seen_SSC[None], known)[0]) == wanted

    def _bare(self, scene: Scene) -> np.ndarray:
        """Pixels that show nothing but ground: bool `[H, W]`."""
        on_white, on_black = (self.scenes.paint(replace(scene, background=name)) for name in ("white", "black"))
        return (on_white == BACKGROUNDS["white"]).all(2) & (on_black == BACKGROUNDS["black"]).all(2)


def _beside(wanted: tuple[float, float], seen: tuple[float, float]) -> bool:
    """Whether a thing lies on the same side of another as was wanted; both are offsets between their centres."""
    along = 0 if abs(wanted[0]) > abs(wanted[1]) else 1
    return seen[along] * np.sign(wanted[along]) > BESIDE and abs(seen[1 - along]) < BESIDE


def _on(stamps_SS4: np.ndarray, colour: Sequence[int]) -> np.ndarray:
    """Stamps, their colour multiplied by their opacity, on a plain ground: float32 `[..., S, S, 3]`."""
    ground = np.asarray(colour, np.float32)
    return stamps_SS4[..., :3] + ground * (1 - stamps_SS4[..., 3:] / 255)


def _pixels(cells: np.ndarray, size: int) -> np.ndarray:
    return cells.repeat(size // GRID, 0).repeat(size // GRID, 1)


def _share(which: Sequence[bool], protocol: str) -> dict[str, object]:
    value, low, high = wilson(sum(which), len(which))
    return {"value": value, "low": low, "high": high, "n": len(which), "protocol": protocol}
