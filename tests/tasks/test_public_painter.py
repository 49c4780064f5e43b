"""Edits by public models, beside those of the reference pipelines: same picture, prompt, seed, sampler and steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import save_file

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.media.image import Image, read
from conjure.media.text import Text
from conjure.models.latent_diffusion import TorchNoise
from conjure.tasks.drawing_options import DrawingOptions
from conjure.tasks.inpaint import Inpaint, InpaintOptions
from conjure.tasks.make import forecast, make, plan
from conjure.tasks.outpaint import Outpaint, OutpaintOptions
from conjure.tasks.public_painter import PublicPainter
from conjure.tasks.remake import remake
from conjure.tasks.vary import Vary, VaryOptions
from tests.models.public import tiny_pipelines as tiny

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of the reference

PROMPT = "a photo of red apple"
PICTURES: dict[str, tuple[Any, str]] = {
    "sd": (tiny.stable_diffusion, "StableDiffusionImg2ImgPipeline"),
    "sdxl": (tiny.stable_diffusion_xl, "StableDiffusionXLImg2ImgPipeline"),
    "sd3": (tiny.stable_diffusion_3, "StableDiffusion3Img2ImgPipeline"),
}


def photo(height: int = 32, width: int = 48) -> Image:
    """Smooth, as photos are: every value is another one."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(7 * x + 3 * y), np.cos(5 * y - x), np.sin(9 * x * y + 1)]
    return Image((127 + 120 * np.stack(waves, -1)).astype(np.uint8))


def hole(height: int = 32, width: int = 48) -> Image:
    """With odd borders, so that latents lie across them."""
    pixels = np.zeros((height, width, 1), np.uint8)
    pixels[height // 4 + 1 : height // 2 + 2, width // 3 : width // 2 + 3] = 255
    return Image(pixels)


def pillow(image: Image) -> Any:
    return PIL.Image.fromarray(image.pixels.squeeze())


def last(events: Any) -> list[Image]:
    result = list(events)[-1]
    assert isinstance(result, Result)
    return list(result.media)  # type: ignore[arg-type]


def alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape and theirs.std() > 10, "a flat picture shows nothing"
    most = int(np.abs(ours.astype(int) - theirs.astype(int)).max())
    assert most <= 1, f"{most} of 255"


@pytest.mark.parametrize("name", PICTURES)
def test_variations_equal_the_reference(name: str, tmp_path: Path) -> None:
    maker, pipeline = PICTURES[name]
    made = maker(tmp_path / "source")
    made.save_pretrained(tmp_path / "saved")
    theirs = getattr(diffusers, pipeline)(**made.components)
    before, task = photo(32, 32), Vary.load(tmp_path / "saved")
    for strength in (0.6, 1.0):
        said: dict[str, Any] = {"num_inference_steps": 5, "guidance_scale": 4.0, "strength": strength}
        wanted = tiny.drawn(theirs, PROMPT, seed=5, image=pillow(before), **said)
        options = VaryOptions(steps=5, guidance=4.0, strength=strength)
        alike(last(task.generate([before, Text(PROMPT)], options, [5]))[0].pixels, wanted)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    tiny.stable_diffusion(folder / "source").save_pretrained(folder / "saved")
    return folder / "saved"


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filler")
    made = tiny.stable_diffusion(folder / "source", in_channels=9)
    with torch.no_grad():
        made.unet.conv_in.weight[:, 4:] *= 8  # so strongly that a mask or a picture which is passed over shows
    made.save_pretrained(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize(("sampler", "scheduler"), [("euler_a", "EulerAncestralDiscreteScheduler"),
                                                    ("unipc", "UniPCMultistepScheduler")])  # fmt: skip
def test_variations_by_other_samplers(sampler: str, scheduler: str, saved: Path) -> None:
    theirs = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(saved, safety_checker=None)
    theirs.scheduler = getattr(diffusers, scheduler).from_config(theirs.scheduler.config)
    wanted = tiny.drawn(theirs, PROMPT, seed=3, image=pillow(photo()), num_inference_steps=6, guidance_scale=3.0,
                        strength=0.5, negative_prompt="blurry")  # fmt: skip
    options = VaryOptions(steps=6, guidance=3.0, strength=0.5, negative="blurry", sampler=sampler)
    alike(last(Vary.load(saved).generate([photo(), Text(PROMPT)], options, [3]))[0].pixels, wanted)


def raw(model: PublicPainter, how: DrawingOptions, seed: int, strength: float) -> np.ndarray:
    """What the model itself draws, before anything is put back."""
    canvas, open_HW = torch.from_numpy(photo().pixels)[None], torch.from_numpy(hole().pixels[:, :, 0] > 0)
    steps = list(model.draw(canvas, open_HW, PROMPT, how, [seed], strength=strength))
    return model.decode(steps[-1].x, how)[0].numpy()


@pytest.mark.parametrize("strength", [1.0, 0.7])
def test_a_network_that_fills_gaps_equals_the_reference(strength: float, filler: Path) -> None:
    theirs = diffusers.StableDiffusionInpaintPipeline.from_pretrained(filler, safety_checker=None)
    wanted = tiny.drawn(theirs, PROMPT, seed=5, image=pillow(photo()), mask_image=pillow(hole()), height=32, width=48,
                        num_inference_steps=5, guidance_scale=4.0, strength=strength)  # fmt: skip
    alike(raw(PublicPainter.load(filler), DrawingOptions(steps=5, guidance=4.0), 5, strength), wanted)


def test_other_networks_keep_the_latents_that_no_gap_touches(saved: Path) -> None:
    model, how = PublicPainter.load(saved), DrawingOptions(steps=4, guidance=3.0)
    open_HW = torch.from_numpy(hole().pixels[:, :, 0] > 0)
    canvas = torch.from_numpy(photo().pixels)[None]
    *_, step = model.draw(canvas, open_HW, PROMPT, how, [2], strength=1.0)
    known = model.its.read(how).encode(canvas, TorchNoise([2]))
    touched = torch.nn.functional.max_pool2d(open_HW.float()[None, None], 2)[0, 0] > 0
    assert torch.allclose(step.x0[:, :, ~touched], known[:, :, ~touched], atol=1e-5)
    assert (step.x0 - known)[:, :, touched].abs().mean() > 0.1


# -- outside the mask -------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["saved", "filler"])
@pytest.mark.parametrize("size", [(33, 47), (5, 3), (1, 1)])
def test_outside_the_mask_every_bit_stays(folder: str, size: tuple[int, int], request: Any) -> None:
    its = hole(*size) if min(size) > 1 else Image(np.full((1, 1, 1), 255, np.uint8))
    options = InpaintOptions(steps=2, mask="m.png")
    task = Inpaint.load(request.getfixturevalue(folder))
    (after,) = last(task.generate([photo(*size), Text(PROMPT), its], options, [1]))
    kept = its.pixels[:, :, 0] == 0
    assert np.array_equal(after.pixels[kept], photo(*size).pixels[kept])
    assert (after.pixels[~kept] != photo(*size).pixels[~kept]).any()


def test_a_large_picture_is_filled_in_a_window(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, its = photo(100, 90), Image(np.zeros((100, 90, 1), np.uint8))
    its.pixels[70:80, 60:75] = 255
    options = InpaintOptions(steps=2, mask="m.png")
    task = Inpaint.load(saved)
    drawn: list[tuple[int, ...]] = []
    own = PublicPainter.draw
    monkeypatch.setattr(PublicPainter, "draw", lambda self, canvas, *a, **k: drawn.append(tuple(canvas.shape)) or own(
        self, canvas, *a, **k))  # fmt: skip
    (after,) = last(task.generate([before, its], options, [1]))
    assert drawn == [(1, 32, 32, 3)], "as large as what the model learnt"
    kept = its.pixels[:, :, 0] == 0
    assert np.array_equal(after.pixels[kept], before.pixels[kept])
    last(task.generate([before, its], InpaintOptions(steps=1, mask="m.png", longest=100), [1]))
    assert drawn[1] == (1, 100, 90, 3)


@pytest.mark.parametrize("folder", ["saved", "filler"])
def test_the_canvas_grows_around_the_picture(folder: str, request: Any) -> None:
    task = Outpaint.load(request.getfixturevalue(folder))
    (after,) = last(task.generate([photo(), Text(PROMPT)], OutpaintOptions(steps=2, extend="left=9,bottom=5"), [1]))
    assert after.pixels.shape == (37, 57, 3) and np.array_equal(after.pixels[:32, 9:], photo().pixels)


def test_the_old_content_shows_through_only_if_asked(saved: Path) -> None:
    other = Image(np.where(hole().pixels > 0, 255 - photo().pixels, photo().pixels))
    task = Inpaint.load(saved)

    def apart(start: Any) -> float:
        options = InpaintOptions(steps=4, mask="m.png", start=start, strength=0.5, feather=0)
        a, b = (last(task.generate([each, Text(PROMPT), hole()], options, [1]))[0] for each in (photo(), other))
        return float(np.abs(a.pixels.astype(int) - b.pixels).mean())

    assert apart("around") == 0 < apart("picture")


# -- sizes, events, refusals ------------------------------------------------------------------------------


def test_sizes(saved: Path) -> None:
    model = PublicPainter.load(saved)
    assert model.its.side == 32
    assert model.fit((32, 47)).canvas == (32, 48) and model.fit((100, 50)).scaled == (64, 32)
    assert model.fit((10, 20), 40).scaled == (20, 40)
    task = Vary.load(saved)
    for size in ((33, 47), (100, 50), (1, 1)):
        assert last(task.generate([photo(*size)], VaryOptions(steps=2), [1]))[0].pixels.shape == (*size, 3)


def events(task: Any, options: Any, *inputs: Any, seeds: tuple[int, ...] = (1, 2)) -> list[Event]:
    return list(task.generate(list(inputs), options, list(seeds)))


def test_events(saved: Path) -> None:
    text = Text("a photo of red apple on the table")
    options = InpaintOptions(steps=3, guidance=1, mask="m.png", negative="blurry", longest=8)
    found = events(Inpaint.load(saved), options, photo(), text, hole())
    assert [each.step for each in found if isinstance(each, Progress)] == list(range(7))
    previews = [each.medium for each in found if isinstance(each, Preview)]
    assert len(previews) == 4 and previews[0].pixels.shape == (32, 48, 3)  # type: ignore[attr-defined]
    said = [each.text for each in found if isinstance(each, Warn)]
    wanted = ("no effect", "longer than the 20", "learnt pictures of 32", "look soft")
    assert [part in each for part, each in zip(wanted, said, strict=True)] == [True] * 4
    assert isinstance(found[-1], Result) and found[-1].facts == {"squares": 1, "evaluations": 3}
    found = events(Vary.load(saved), VaryOptions(steps=5, strength=0.4), photo())
    assert [each.step for each in found if isinstance(each, Progress)] == list(range(5))
    assert isinstance(found[-1], Result) and found[-1].facts == {"evaluations": 4}


def test_a_picture_is_the_same_alone_and_among_others(saved: Path) -> None:
    task, options = Vary.load(saved), VaryOptions(steps=3, sampler="euler_a")
    among = last(task.generate([photo()], options, [7, 8]))
    (alone,) = last(task.generate([photo()], options, [8]))
    assert np.array_equal(among[1].pixels, alone.pixels) and not np.array_equal(among[0].pixels, among[1].pixels)


def stored(kind: str, folder: Path) -> Path:
    """A photo as a file of one kind; upright it is 32 high and 48 wide."""
    picture, path = pillow(photo()), folder / f"{kind}.{'png' if kind in ('grey', 'deep', 'clear') else 'jpg'}"
    exif = PIL.Image.Exif()
    if kind == "grey":
        picture = picture.convert("L")
    elif kind == "deep":
        picture = PIL.Image.fromarray(photo().pixels[:, :, 0].astype(np.uint16) * 257)
    elif kind == "clear":
        picture.putalpha(PIL.Image.fromarray(255 - hole().pixels[:, :, 0]))
    elif kind == "cmyk":
        picture = picture.convert("CMYK")
    else:
        exif[274] = 6
        picture = picture.transpose(PIL.Image.Transpose.ROTATE_90)
    if kind == "turned":
        picture.save(path, exif=exif)
    else:
        picture.save(path)
    return path


@pytest.mark.parametrize("kind", ["grey", "deep", "clear", "cmyk", "turned"])
def test_every_kind_of_file_comes_out_as_it_is_seen(kind: str, saved: Path, tmp_path: Path) -> None:
    before = read(stored(kind, tmp_path))
    inputs = [before] if kind == "clear" else [before, hole()]
    (after,) = last(Inpaint.load(saved).generate(inputs, InpaintOptions(steps=1, mask="" if kind == "clear" else "m"),
                                                 [1]))  # fmt: skip
    kept = hole().pixels[:, :, 0] == 0
    assert after.pixels.shape == (32, 48, 3) and np.array_equal(after.pixels[kept], before.pixels[kept][:, :3])
    near = np.abs(before.pixels[kept][:, :3].astype(int) - photo().pixels[kept])
    assert kind in ("grey", "deep") or near.mean() < 8, "upright, and in its colours"


def test_a_lora_for_another_base_is_refused(saved: Path, tmp_path: Path) -> None:
    where = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file({f"{where}.lora_down.weight": torch.zeros(2, 320), f"{where}.lora_up.weight": torch.zeros(320, 2)},
              tmp_path / "other.safetensors")  # fmt: skip
    with pytest.raises(ConjureError, match="320"):
        events(Vary.load(saved), VaryOptions(lora=(str(tmp_path / "other.safetensors"),)), photo())


def test_make_finds_the_edge_and_keeps_what_the_mask_keeps(saved: Path, filler: Path, tmp_path: Path) -> None:
    """`conjure make photo.png "a cat" --mask m.png --model ./sd -o out.png`, through the PNG and its record."""
    before, its = photo(33, 47).save(tmp_path / "photo.png"), hole(33, 47).save(tmp_path / "m.png")
    kept = hole(33, 47).pixels[:, :, 0] == 0
    for folder in (saved, filler):
        out = tmp_path / f"{folder.parent.name}.png"
        made = make(str(before), "cat", model=str(folder), output=out, seed=5, steps=2, mask=str(its))
        assert made.record.task == "inpaint" and made.record.model == str(folder)
        assert [each.get("option") for each in made.record.inputs] == [None, None, "mask"]
        assert np.array_equal(read(out).pixels[kept], photo(33, 47).pixels[kept])
        assert np.array_equal(remake(out).pixels, read(out).pixels)
    wide = make(str(before), model=str(filler), seed=5, steps=1, extend="left=9")
    assert wide.record.task == "outpaint" and wide.pixels.shape == (33, 56, 3)
    again = make(str(before), "cat", model=str(saved), seed=5, steps=4, strength=0.5)
    assert again.record.task == "vary" and again.pixels.shape == (33, 47, 3)
    planned = plan(str(before), "cat", model=str(saved), to="image", steps=4, strength=0.5)
    assert planned.edges[0].public and forecast(planned)["evaluations"] == 4
    with pytest.raises(ConjureError, match="cannot vary: it can inpaint, outpaint"):
        plan(str(before), "cat", model=str(filler), strength=0.5)
    assert plan(str(before), "cat", to="image", mask=str(its)).models == ("starter/pictograms",)


def test_what_cannot_be_is_said(saved: Path, filler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConjureError, match="fills gaps"):
        events(Vary.load(filler), VaryOptions(steps=2), photo())
    with pytest.raises(ConjureError, match="--repeats"):
        events(Inpaint.load(saved), InpaintOptions(mask="m.png", repeats=2), photo(), hole())
    with pytest.raises(ConjureError, match="the mask is 48 x 33 pixels"):
        events(Inpaint.load(saved), InpaintOptions(mask="m.png"), photo(), hole(33))
    with pytest.raises(ConjureError, match="eulr"):
        VaryOptions(sampler="eulr")
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 18}.__getitem__)
    with pytest.raises(ConjureError, match="GiB of memory") as caught:
        events(Vary.load(saved), VaryOptions(longest=8000), photo())
    assert "--longest" in caught.value.hint
    tiny.stable_diffusion(tmp_path / "source", in_channels=8).save_pretrained(tmp_path / "saved")
    with pytest.raises(ConjureError, match="changes a picture as it is told"):
        Vary.load(tmp_path / "saved")


def test_the_forecast_counts_what_is_drawn(saved: Path, filler: Path) -> None:
    half, whole = (Vary.forecast(saved, VaryOptions(steps=10, strength=s), 1, [photo()]) for s in (0.5, 1.0))
    assert half["evaluations"] == 10 and whole["evaluations"] == 20 and whole["seconds"] > 1.5 * half["seconds"]
    larger = Vary.forecast(saved, VaryOptions(steps=10, strength=1.0, longest=96), 1, [photo()])
    assert larger["memory_bytes"] > 3 * whole["memory_bytes"]
    options = InpaintOptions(steps=4, guidance=1, mask="m.png")
    told = Inpaint.forecast(filler, options, 2, [photo(), hole()])
    assert told["evaluations"] == 4 and told["seconds"] > 0
    wide = Outpaint.forecast(filler, OutpaintOptions(steps=4, guidance=1, extend="left=16"), 2, [photo()])
    assert wide["evaluations"] == 4 and wide["seconds"] > told["seconds"]


