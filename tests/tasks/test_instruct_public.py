"""Pictures changed as a text says by a public model, beside those of the reference pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.events import Progress, Result, Warn
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.tasks.instruct_public import InstructPublic, InstructPublicOptions
from conjure.tasks.make import forecast, make, plan
from tests.models.public import tiny_pipelines as tiny
from tests.tasks.test_public_painter import PROMPT, alike, last, photo, pillow

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of the reference


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instructed")
    seeing(tiny.stable_diffusion(folder / "source", in_channels=8)).save_pretrained(folder / "saved")
    return folder / "saved"


def seeing(pipeline: Any) -> Any:
    """So strongly that a picture which is passed over shows."""
    with torch.no_grad():
        pipeline.unet.conv_in.weight[:, 4:] *= 8
    return pipeline


@pytest.mark.parametrize(("guidance", "likeness"), [(4.0, 1.5), (6.0, 1.0), (1.0, 1.5)])
def test_changed_pictures_equal_the_reference(guidance: float, likeness: float, saved: Path) -> None:
    theirs = diffusers.StableDiffusionInstructPix2PixPipeline.from_pretrained(saved, safety_checker=None)
    wanted = tiny.drawn(theirs, PROMPT, seed=5, image=pillow(photo()), num_inference_steps=5, guidance_scale=guidance,
                        image_guidance_scale=likeness, negative_prompt="blurry")  # fmt: skip
    options = InstructPublicOptions(steps=5, guidance=guidance, likeness=likeness, negative="blurry")
    alike(last(InstructPublic.load(saved).generate([photo(), Text(PROMPT)], options, [5]))[0].pixels, wanted)


def test_the_larger_model_equals_its_reference(tmp_path: Path) -> None:
    made = seeing(tiny.stable_diffusion_xl(tmp_path / "source", in_channels=8))
    made.save_pretrained(tmp_path / "saved")
    theirs = diffusers.StableDiffusionXLInstructPix2PixPipeline(**{
        name: part for name, part in made.components.items() if name not in ("image_encoder", "feature_extractor")
    }, add_watermarker=False)  # fmt: skip
    wanted = tiny.drawn(theirs, PROMPT, seed=5, image=pillow(photo()), num_inference_steps=4, guidance_scale=4.0,
                        image_guidance_scale=1.5, height=32, width=48)  # fmt: skip
    options = InstructPublicOptions(steps=4, guidance=4.0, likeness=1.5)
    alike(last(InstructPublic.load(tmp_path / "saved").generate([photo(), Text(PROMPT)], options, [5]))[0].pixels,
          wanted)  # fmt: skip


def test_the_picture_and_the_text_matter(saved: Path) -> None:
    task, options = InstructPublic.load(saved), InstructPublicOptions(steps=3, guidance=3.0)

    def made(size: tuple[int, int], text: str, seed: int = 1, **more: Any) -> Any:
        its = InstructPublicOptions(steps=3, guidance=3.0, **more)
        return last(task.generate([photo(*size), Text(text)], its, [seed]))[0].pixels.astype(int)

    among = last(task.generate([photo(33, 47), Text("cat")], options, [1, 2]))
    alone = made((33, 47), "cat", 2)
    assert alone.shape == (33, 47, 3) and (among[1].pixels == alone).all()
    for least, other in ((2, made((33, 47), "dog", 2)), (8, made((33, 47), "cat", 2, likeness=3.0)),
                         (8, made((33, 47), "cat", 2, rescale=0.7)), (30, made((33, 47), "cat", 1))):  # fmt: skip
        assert abs(other - alone).max() > least
    inverted = last(task.generate([Image(255 - photo(33, 47).pixels), Text("cat")], options, [2]))[0].pixels
    assert abs(inverted.astype(int) - alone).max() > 8


def test_events(saved: Path) -> None:
    options = InstructPublicOptions(steps=2, guidance=3.0, longest=8)
    found = list(InstructPublic.load(saved).generate([photo(), Text(PROMPT)], options, [1, 2]))
    assert [each.step for each in found if isinstance(each, Progress)] == [0, 1, 2, 3, 4]
    assert ["may show more" in each.text or "look soft" in each.text for each in found if isinstance(each, Warn)] == [
        True, True]  # fmt: skip
    result = found[-1]
    assert isinstance(result, Result) and result.facts == {"evaluations": 6, "steps": 2, "guidance": 3.0,
                                                           "likeness": 1.5}  # fmt: skip
    told = InstructPublic.forecast(saved, options, 2, [photo(), Text(PROMPT)])
    assert told["evaluations"] == 6 and told["seconds"] > 0


def test_make_finds_the_edge(saved: Path, tmp_path: Path) -> None:
    before = photo().save(tmp_path / "photo.png")
    made = make(str(before), "cat", model=str(saved), seed=5, steps=2, likeness=1.2)
    assert made.record.task == "edit" and made.pixels.shape == photo().pixels.shape
    planned = plan(str(before), "cat", model=str(saved), to="image", steps=4)
    assert planned.edges[0].public and forecast(planned)["evaluations"] == 12


def test_what_cannot_be_is_said(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="nothing says what to change"):
        list(InstructPublic.load(saved).generate([photo()], InstructPublicOptions(), [1]))
    with pytest.raises(ConjureError, match="expected one picture to change, got 2"):
        list(InstructPublic.load(saved).generate([photo(), photo()], InstructPublicOptions(), [1]))
    tiny.stable_diffusion(tmp_path / "source").save_pretrained(tmp_path / "saved")
    with pytest.raises(ConjureError, match="not taught to change pictures"):
        InstructPublic.load(tmp_path / "saved")
    tiny.stable_diffusion(tmp_path / "five", in_channels=5).save_pretrained(tmp_path / "odd")
    with pytest.raises(ConjureError, match="reads 5 channels, its autoencoder has 4"):
        InstructPublic.load(tmp_path / "odd")
