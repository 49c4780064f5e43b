"""Inpainting, outpainting and variation by a tiny painter, from options to pictures; files that options name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.core.seeds import rng
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.tasks.inpaint import Inpaint, InpaintOptions
from conjure.tasks.inputs import Given, attached, instructed, parted
from conjure.tasks.outpaint import Outpaint, OutpaintOptions
from conjure.tasks.picture_models import picture_model
from conjure.tasks.scene_painter import ScenePainter, framed
from conjure.tasks.vary import Vary, VaryOptions, subject
from tests.media.test_mask import disc
from tests.tasks.painters import digits, painter

BOX = Text("a box")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painter(tmp_path_factory.mktemp("edits"))


def photo(height: int = 64, width: int = 64, channels: int = 3) -> Image:
    return Image(rng(0).integers(0, 256, (height, width, channels)).astype(np.uint8))


def mask(height: int = 64, width: int = 64) -> Image:
    pixels = np.zeros((height, width, 1), np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 255
    return Image(pixels)


def last(events: Any) -> list[Image]:
    result = list(events)[-1]
    assert isinstance(result, Result)
    return list(result.media)  # type: ignore[arg-type]


def inpainted(folder: Path, *inputs: Any, seeds: tuple[int, ...] = (1,), **options: Any) -> list[Image]:
    options = {"steps": 3, "mask": "m.png", **options}
    return last(Inpaint.load(folder).generate(inputs, InpaintOptions(**options), seeds))


# -- inpainting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (97, 130), (40, 200), (5, 3)])
@pytest.mark.parametrize("said", [(BOX,), ()])
def test_outside_the_mask_every_bit_stays(folder: Path, size: tuple[int, int], said: tuple[Text, ...]) -> None:
    before, its = photo(*size), mask(*size)
    (after,) = inpainted(folder, before, *said, its)
    kept = its.pixels[:, :, 0] == 0
    assert np.array_equal(after.pixels[kept], before.pixels[kept])
    assert (after.pixels[~kept] != before.pixels[~kept]).any()


def test_the_old_content_does_not_show_through(folder: Path) -> None:
    one, its = photo(), mask()
    other = Image(np.where(its.pixels > 0, 255 - one.pixels, one.pixels))
    a, b = (inpainted(folder, each, BOX, its, feather=0)[0] for each in (one, other))
    assert np.array_equal(a.pixels, b.pixels)


def test_alpha_is_a_mask_and_is_kept(folder: Path) -> None:
    hole = Image(np.dstack([photo().pixels, 255 - mask().pixels]))
    (after,) = inpainted(folder, hole, BOX, mask="")
    assert after.pixels.shape == (64, 64, 3), "nothing is left transparent"
    kept = mask().pixels[:, :, 0] == 0
    assert np.array_equal(after.pixels[kept], hole.pixels[kept][:, :3])
    glass = Image(np.dstack([photo().pixels, np.full((64, 64), 90, np.uint8)]))
    (after,) = inpainted(folder, glass, BOX, mask())
    assert np.array_equal(after.pixels[kept], glass.pixels[kept]) and (after.pixels[~kept, 3] == 255).all()


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral"])
def test_a_sample_is_the_same_alone_and_among_others(folder: Path, sampler: str) -> None:
    wide, its = photo(40, 150), Image(np.full((40, 150, 1), 255, np.uint8))
    its.pixels[:, :30] = 0
    options: dict[str, Any] = {"sampler": sampler, "repeats": 2, "guidance": 2.0}
    among = inpainted(folder, wide, BOX, its, seeds=(4, 5, 6), **options)
    (alone,) = inpainted(folder, wide, BOX, its, seeds=(5,), **options)
    assert np.abs(among[1].pixels.astype(int) - alone.pixels).max() <= 1
    assert np.abs(among[1].pixels.astype(int) - among[0].pixels).max() > 8
    assert np.array_equal(inpainted(folder, wide, BOX, its, seeds=(5,), **options)[0].pixels, alone.pixels)


def test_the_text_and_its_place_matter(folder: Path) -> None:
    a, b = (inpainted(folder, photo(), Text(said), mask())[0] for said in ("a box", "a wolf"))
    assert np.abs(a.pixels.astype(int) - b.pixels).max() > 3


def test_events(folder: Path) -> None:
    moving = Image(photo().pixels, frames=4)
    options = InpaintOptions(steps=3, mask="m.png", negative="a wolf")
    *events, result = Inpaint.load(folder).generate([moving, Text("a qwertz"), mask()], options, [1, 2])
    said = [event.text for event in events if isinstance(event, Warn)]
    assert "4 frames" in said[0] and "'qwertz'" in said[1] and "negative prompt" in said[2] and len(said) == 3
    assert [event for event in events if isinstance(event, Progress)] == [
        Progress(0, 3, "step", "reading the model"), *(Progress(n, 3, "step") for n in (1, 2, 3))]
    shown = [event.medium for event in events if isinstance(event, Preview)]
    assert len(shown) == 2 and shown[0].pixels.shape == (64, 128, 3)  # type: ignore[attr-defined]
    assert isinstance(result, Result) and result.facts == {"squares": 1, "evaluations": 3}


def warned(events: list[Event]) -> str:
    return " ".join(event.text for event in events if isinstance(event, Warn))


def test_what_will_look_soft_is_said(folder: Path) -> None:
    big, its = photo(300, 300), Image(np.full((300, 300, 1), 255, np.uint8))
    events = list(Inpaint.load(folder).generate([big, its], InpaintOptions(steps=1, mask="m.png"), [1]))
    assert "enlarged 4.7 times" in warned(events) and "nothing of it stays" in warned(events)


def test_masks_that_do_not_fit(folder: Path) -> None:
    with pytest.raises(ConjureError, match="no mask, and no part of the picture is transparent"):
        inpainted(folder, photo(), BOX, mask="")
    with pytest.raises(ConjureError, match="the mask is 32 x 64 pixels, the picture 64 x 64"):
        inpainted(folder, photo(), BOX, mask(64, 32))
    with pytest.raises(ConjureError, match="marks nothing"):
        inpainted(folder, photo(), BOX, Image(np.zeros((64, 64, 1), np.uint8)))
    with pytest.raises(ConjureError, match="expected one picture to change, got 2") as caught:
        inpainted(folder, photo(), photo(), mask())
    assert "--mask" in caught.value.hint


def test_a_painter_without_a_codec(tmp_path: Path) -> None:
    model = digits(tmp_path)
    (after,) = inpainted(model, photo(), Text("seven"), mask())
    assert after.pixels.shape == (64, 64, 3)


def test_a_model_that_does_not_draw(folder: Path) -> None:
    with pytest.raises(ConjureError, match="expected a model that draws, this is image_autoencoder"):
        picture_model(folder.parent / "codec")


# -- outpainting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, place",
    [
        ({"extend": "left=30,bottom=7"}, np.s_[:64, 30:94]),
        ({"size": "200x70"}, np.s_[3:67, 68:132]),
        ({"extend": "3"}, np.s_[3:67, 3:67]),
    ],
)
def test_the_picture_stays_bit_for_bit(folder: Path, options: dict[str, Any], place: Any) -> None:
    (after,) = last(Outpaint.load(folder).generate([photo(), BOX], OutpaintOptions(steps=2, **options), [1]))
    assert np.array_equal(after.pixels[place], photo().pixels)


@pytest.mark.parametrize(
    "options, said",
    [({}, "got neither"), ({"extend": "3", "size": "9x9"}, "got both"), ({"extend": "left=0"}, "nothing to draw")],
)
def test_canvases_that_cannot_be(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConjureError, match=said):
        last(Outpaint.load(folder).generate([photo()], OutpaintOptions(**options), [1]))


# -- variation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 64, 3), (20, 90, 4), (1, 1, 3)])
def test_a_variation_has_the_size_and_transparency_of_its_picture(folder: Path, shape: tuple[int, int, int]) -> None:
    (after,) = last(Vary.load(folder).generate([photo(*shape), BOX], VaryOptions(steps=2), [1]))
    assert after.pixels.shape == shape
    if shape[2] == 4:
        assert np.array_equal(after.pixels[:, :, 3], photo(*shape).pixels[:, :, 3])


def test_the_strength_says_how_much_of_the_picture_is_left(folder: Path) -> None:
    task, other = Vary.load(folder), Image(255 - photo().pixels)

    def apart(strength: float) -> float:
        options = VaryOptions(steps=3, strength=strength)
        a, b = (last(task.generate([each], options, [1]))[0].pixels.astype(int) for each in (photo(), other))
        return float(np.abs(a - b).mean())

    assert apart(0.2) > apart(0.8) > apart(1.0) == 0


def test_variations_are_the_same_alone_and_among_others(folder: Path) -> None:
    task = Vary.load(folder)
    among = last(task.generate([photo(), BOX], VaryOptions(steps=3), [4, 5]))
    (alone,) = last(task.generate([photo(), BOX], VaryOptions(steps=3), [5]))
    assert np.abs(among[1].pixels.astype(int) - alone.pixels).max() <= 1
    assert not np.array_equal(among[0].pixels, among[1].pixels)


def test_the_subject_is_what_differs_from_the_ground() -> None:
    pixels = np.full((40, 40, 3), 250, np.uint8)
    assert subject(pixels) is None
    pixels[disc() > 0] = (200, 0, 0)
    assert subject(pixels) == (6 / 40, 6 / 40, 34 / 40, 34 / 40)
    assert subject(photo().pixels) is None


# -- what a painter is told -------------------------------------------------------------------------------


def test_things_fill_their_frame_on_the_grid() -> None:
    import torch

    things = torch.tensor([[[2.0, 0.5, 0.5, 0.8, 1], [-1, 0.3, 0.3, 0.5, 0]], [[-1.0, 0, 0, 1, 0]] * 2])
    out = framed(things, (0.5, 0.25, 1.0, 0.75))
    assert out[0, 0].tolist() == [2, 0.75, 0.5, 0.5, 1]
    assert torch.equal(out[1], things[1])
    pair = torch.tensor([[[1.0, 0.25, 0.5, 0.4, 0], [3, 0.75, 0.5, 0.4, 0]]])
    out = framed(pair, (0, 0, 0.5, 1))
    assert out[0, :, 3].tolist() == [0.25, 0.25] and 0 < out[0, 0, 1] < out[0, 1, 1] < 0.5


def test_the_ground_that_is_seen_is_said(folder: Path) -> None:
    import torch

    model = picture_model(folder)
    assert isinstance(model, ScenePainter)
    seen = torch.ones(64, 64).bool()
    blue = torch.tensor([190, 220, 255], dtype=torch.uint8).expand(64, 64, 3)
    assert model.caption("a box", blue, seen) == "a box, on a blue background"
    assert model.caption("", blue, seen) == "a blue background"
    assert model.caption("a box on a pink background", blue, seen) == "a box on a pink background"
    assert model.caption("a box", torch.full_like(blue, 255), seen) == "a box"
    assert model.caption("a box", torch.full_like(blue, 120), seen) == "a box", "near none of them"
    assert model.caption("a box", blue, ~seen) == "a box"


# -- files behind options ---------------------------------------------------------------------------------


def test_a_file_that_an_option_names_is_a_further_input(tmp_path: Path) -> None:
    file = mask().save(tmp_path / "m.png")
    given = (Given(photo(), "p.png"), Given(BOX))
    inputs, options = attached(InpaintOptions, {"mask": str(file), "steps": 3}, given)
    assert inputs[:2] == given and options == {"mask": "m.png", "steps": 3}
    assert inputs[2].recorded() == {
        "kind": "image", "name": "m.png", "digest": inputs[2].medium.digest(), "option": "mask"
    }  # fmt: skip
    assert attached(InpaintOptions, options, inputs) == (inputs, options), "it is not read again"
    picture, text, files = parted([each.medium for each in inputs], InpaintOptions(**options))
    assert np.array_equal(picture.pixels, photo().pixels) and text == "a box"
    assert files["mask"].digest() == inputs[2].medium.digest()
    voices = (Given(photo()), Given(mask(), "Ann", "known"), Given(mask(), "Ben", "known"))
    assert attached(InpaintOptions, {"known": ["Ann", "Ben"]}, voices)[0] == voices, "several of one option stay behind"
    held = attached(InpaintOptions, {"mask": mask()}, given)
    assert held[1] == {"mask": "mask"} and held[0][2].option == "mask"


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("white")
    with pytest.raises(ConjureError, match=r"--mask: expected a picture, m\.txt is text"):
        attached(InpaintOptions, {"mask": str(tmp_path / "m.txt")}, (Given(photo()),))
    with pytest.raises(ConjureError, match="no such file"):
        attached(InpaintOptions, {"mask": str(tmp_path / "n.png")}, (Given(photo()),))


def test_options_tell_the_task() -> None:
    given = (Given(photo(), "p.png"), Given(BOX))
    told = {name: instructed(given, [name, "steps"]) for name in ("mask", "extend", "style", "scale", "strength")}
    assert told == {
        "mask": "inpaint", "extend": "outpaint", "style": "restyle", "scale": "upscale", "strength": "vary"
    }  # fmt: skip
    assert instructed(given, ["steps"]) is None
    assert instructed((Given(BOX),), ["strength"]) is None
