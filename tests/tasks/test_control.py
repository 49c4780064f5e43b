"""Pictures along a guide by public models and ControlNets, beside those of the reference pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.events import Preview, Progress, Result
from conjure.media.edges import edges
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.tasks.control import Control, ControlOptions, drawn_as
from conjure.tasks.make import forecast, make, plan
from tests.models.public import tiny_pipelines as tiny
from tests.tasks.test_public_painter import PROMPT, alike, last, photo, pillow

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of the reference


def steering(base: Any, folder: Path, seed: int = 1, **changes: Any) -> Any:
    """A ControlNet for the U-Net of a pipeline; a latent of the tiny ones has 2 x 2 pixels."""
    model = diffusers.ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(4, 6))
    if changes:
        model = diffusers.ControlNetModel(**{**model.config, **changes})
    tiny.shaken(model, seed)
    with torch.no_grad():  # so strong that a guide which is passed over shows
        for parameter in (*model.controlnet_cond_embedding.parameters(), *model.controlnet_down_blocks.parameters()):
            parameter.mul_(3)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, list[Any]]:
    """A pipeline, the folder of it and of two ControlNets, `one` and `two`."""
    folder = tmp_path_factory.mktemp("steered")
    base = tiny.stable_diffusion(folder / "source")
    base.save_pretrained(folder / "saved")
    return base, folder, [steering(base, folder / name, seed) for seed, name in enumerate(("one", "two"))]


def controlled(folder: Path, *inputs: Any, seeds: tuple[int, ...] = (5,), **options: Any) -> list[Image]:
    given = {"steps": 4, "guidance": 4.0, "guide": ("as-is",), **options}
    return last(Control.load(folder).generate(inputs, ControlOptions(**given), seeds))


def parts(base: Any) -> dict[str, Any]:
    return {name: part for name, part in base.components.items() if name != "image_encoder"}


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_guided_picture_equals_the_reference(guidance: float, made: tuple[Any, Path, list[Any]]) -> None:
    base, folder, (one, _) = made
    theirs = diffusers.StableDiffusionControlNetPipeline(**parts(base), controlnet=one, requires_safety_checker=False)
    wanted = tiny.drawn(theirs, PROMPT, seed=5, image=pillow(photo()), num_inference_steps=4, guidance_scale=guidance,
                        controlnet_conditioning_scale=0.8)  # fmt: skip
    ours = controlled(folder / "saved", photo(), Text(PROMPT), control=(f"{folder}/one:0.8",), guidance=guidance)
    alike(ours[0].pixels, wanted)


def test_several_guides_equal_the_reference(made: tuple[Any, Path, list[Any]]) -> None:
    base, folder, both = made
    theirs = diffusers.StableDiffusionControlNetPipeline(
        **parts(base), controlnet=diffusers.MultiControlNetModel(both), requires_safety_checker=False)  # fmt: skip
    lines = Image(drawn_as("edges", photo().pixels, ControlOptions(low=20, high=40)))
    assert lines.pixels.any()
    wanted = tiny.drawn(theirs, PROMPT, seed=5, image=[pillow(photo()), pillow(lines)], num_inference_steps=4,
                        guidance_scale=4.0, controlnet_conditioning_scale=[1.0, 0.5])  # fmt: skip
    ours = controlled(folder / "saved", photo(), Text(PROMPT), control=(f"{folder}/one", f"{folder}/two:0.5"),
                      guide=("as-is", "edges"), low=20, high=40)  # fmt: skip
    alike(ours[0].pixels, wanted)


def test_the_larger_model_equals_its_reference(tmp_path: Path) -> None:
    base = tiny.stable_diffusion_xl(tmp_path / "source")
    base.save_pretrained(tmp_path / "saved")
    theirs = diffusers.StableDiffusionXLControlNetPipeline(
        **parts(base), controlnet=steering(base, tmp_path / "one"), add_watermarker=False)  # fmt: skip
    wanted = tiny.drawn(theirs, PROMPT, seed=5, image=pillow(photo()), num_inference_steps=3, guidance_scale=4.0,
                        controlnet_conditioning_scale=0.7)  # fmt: skip
    ours = controlled(tmp_path / "saved", photo(), Text(PROMPT), control=(f"{tmp_path}/one:0.7",), steps=3)
    alike(ours[0].pixels, wanted)


def test_the_guide_and_its_weight_matter(made: tuple[Any, Path, list[Any]]) -> None:
    _, folder, _ = made
    one = f"{folder}/one"
    among = controlled(folder / "saved", photo(33, 47), seeds=(4, 5), control=(one,))
    (alone,) = controlled(folder / "saved", photo(33, 47), control=(one,))
    assert alone.pixels.shape == (33, 47, 3) and np.array_equal(among[1].pixels, alone.pixels)
    for other in (controlled(folder / "saved", Image(255 - photo(33, 47).pixels), control=(one,)),
                  controlled(folder / "saved", photo(33, 47), control=(f"{one}:0.3",)),
                  controlled(folder / "saved", photo(33, 47), control=(one,), guide=("depth",))):  # fmt: skip
        assert np.abs(other[0].pixels.astype(int) - alone.pixels).max() > 10


def test_events(made: tuple[Any, Path, list[Any]]) -> None:
    _, folder, _ = made
    options = ControlOptions(control=(f"{folder}/one",), steps=2, guidance=3.0)
    found = list(Control.load(folder / "saved").generate([photo(), Text(PROMPT)], options, [1, 2]))
    assert [each.step for each in found if isinstance(each, Progress)] == [0, 1, 2, 3, 4]
    first = next(each for each in found if isinstance(each, Preview))
    assert np.array_equal(first.medium.pixels[:, :, 0] > 0, edges(photo().pixels))  # type: ignore[attr-defined]
    result = found[-1]
    assert isinstance(result, Result) and result.facts == {"evaluations": 4, "steps": 2, "guidance": 3.0}
    once, twice = (Control.forecast(folder / "saved", ControlOptions(control=(f"{folder}/one",) * n), 1, [photo()])
                   for n in (1, 2))  # fmt: skip
    assert twice["seconds"] > 1.1 * once["seconds"] and twice["memory_bytes"] > once["memory_bytes"]


def test_make_finds_the_edge(made: tuple[Any, Path, list[Any]], tmp_path: Path) -> None:
    _, folder, _ = made
    before = photo().save(tmp_path / "photo.png")
    one, saved = f"{folder}/one", str(folder / "saved")
    drawn = make(str(before), "cat", model=saved, seed=5, steps=2, control=(one, f"{one}:0.5"), guide=("depth",))
    assert drawn.record.task == "control" and drawn.record.options["control"] == [one, f"{one}:0.5"]
    planned = plan(str(before), model=saved, to="image", steps=4, guidance=1, control=(one,))
    assert planned.edges[0].public and forecast(planned)["evaluations"] == 4


def test_depth_is_stretched() -> None:
    pixels = np.stack([np.full((2, 2), each, np.uint8) for each in (100, 100, 100)], -1)
    pixels[0] = 50
    shown = drawn_as("depth", pixels, ControlOptions())
    assert shown.shape == (2, 2, 3) and (shown[0] == 0).all() and (shown[1] == 255).all()
    assert not drawn_as("depth", pixels[:1], ControlOptions()).any(), "even everywhere"


def test_what_does_not_belong_is_refused(made: tuple[Any, Path, list[Any]], tmp_path: Path) -> None:
    base, folder, _ = made
    with pytest.raises(ConjureError, match="nothing steers"):
        controlled(folder / "saved", photo())
    with pytest.raises(ConjureError, match="--guide: expected one, or one for each of 1"):
        controlled(folder / "saved", photo(), control=(f"{folder}/one",), guide=("edges", "depth"))
    with pytest.raises(ConjureError, match="expected a ControlNet, this is UNet2DConditionModel"):
        controlled(folder / "saved", photo(), control=(f"{folder}/saved/unet",))
    with pytest.raises(ConjureError, match="none"):
        controlled(folder / "saved", photo(), control=(f"{tmp_path}/none",))
    changes: dict[str, tuple[dict[str, Any], str]] = {
        "text": ({"cross_attention_dim": 48}, "width of the text: 48 there, 64 here"),
        "hint": ({"conditioning_channels": 4}, "channels of the guide: 4 there, 3 here"),
        "latents": ({"in_channels": 9}, "channels of latents: 9 there, 4 here"),
        "levels": ({"block_out_channels": (32, 96)}, "channels of the levels"),
        "shrink": ({"conditioning_embedding_out_channels": (4, 6, 8, 10)}, "pixels to a latent: 8 there, 2 here"),
    }
    for name, (change, said) in changes.items():
        steering(base, tmp_path / name, **change)
        with pytest.raises(ConjureError, match=said):
            controlled(folder / "saved", photo(), control=(f"{tmp_path}/{name}",))
    tiny.stable_diffusion(tmp_path / "source", in_channels=9).save_pretrained(tmp_path / "fills")
    with pytest.raises(ConjureError, match="changes pictures"):
        Control.load(tmp_path / "fills")
    tiny.stable_diffusion_3(tmp_path / "third").save_pretrained(tmp_path / "sd3")
    with pytest.raises(ConjureError, match="ControlNets steer U-Nets"):
        controlled(tmp_path / "sd3", photo(), control=(f"{folder}/one",))
