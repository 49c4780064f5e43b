"""Pictures of public models, beside those of the reference pipelines: same prompt, seed, sampler and steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.media.image import read
from conjure.media.text import Text
from conjure.tasks import table
from conjure.tasks.abilities import abilities, cannot, is_language_model, is_public
from conjure.tasks.make import forecast, make, plan
from conjure.tasks.public_model import weighted
from conjure.tasks.public_pictures import PublicPictures, PublicPicturesOptions
from tests.models.public import tiny_pipelines as tiny

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of the reference

PROMPT = "a photo of red apple"
MAKERS: dict[str, Any] = {
    "sd": tiny.stable_diffusion,
    "sd2, v": lambda folder: tiny.stable_diffusion(folder, linear=True, prediction="v_prediction"),
    "sdxl": tiny.stable_diffusion_xl,
    "sd3": tiny.stable_diffusion_3,
    "flux": tiny.flux,
    "flux, not guided": lambda folder: tiny.flux(folder, guided=False),
}  # fmt: skip


def events(path: Path, seeds: list[int], prompt: str = PROMPT, **options: Any) -> list[Event]:
    task = PublicPictures.load(path)
    return list(task.generate([Text(prompt)], PublicPicturesOptions(**options), seeds))


def pictures(path: Path, seeds: list[int], prompt: str = PROMPT, **options: Any) -> list[np.ndarray]:
    last = events(path, seeds, prompt, **options)[-1]
    assert isinstance(last, Result)
    return [medium.pixels for medium in last.media]  # type: ignore[attr-defined]


def alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape and theirs.std() > 10, "a flat picture shows nothing"
    most = int(np.abs(ours.astype(int) - theirs.astype(int)).max())
    assert most <= 1, f"{most} of 255"


@pytest.mark.parametrize("name", MAKERS)
def test_pictures_equal_the_reference(name: str, tmp_path: Path) -> None:
    theirs = MAKERS[name](tmp_path / "source")
    theirs.save_pretrained(tmp_path / "saved")
    wanted = tiny.drawn(theirs, PROMPT, seed=5, num_inference_steps=6, guidance_scale=5.0, height=32, width=32)
    alike(pictures(tmp_path / "saved", [5], steps=6, guidance=5.0, size=32)[0], wanted)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    tiny.stable_diffusion(folder / "source").save_pretrained(folder / "saved")
    return folder / "saved"


@pytest.fixture
def theirs(saved: Path) -> Any:
    return diffusers.StableDiffusionPipeline.from_pretrained(saved, safety_checker=None)


@pytest.mark.parametrize(("sampler", "scheduler", "more"), [
    ("ddim", "DDIMScheduler", {}),
    ("euler_a", "EulerAncestralDiscreteScheduler", {}),
    ("DPM++ 2M Karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
])  # fmt: skip
def test_samplers_by_their_usual_names(
    sampler: str, scheduler: str, more: dict[str, Any], saved: Path, theirs: Any
) -> None:
    """The ancestral one draws on from the generator of the picture's seed."""
    theirs.scheduler = getattr(diffusers, scheduler).from_config(theirs.scheduler.config, **more)
    options: dict[str, Any] = {"negative_prompt": "blurry", "guidance_scale": 4.0, "guidance_rescale": 0.7}
    wanted = tiny.drawn(theirs, PROMPT, seed=7, num_inference_steps=5, height=32, width=48, **options)
    asked: dict[str, Any] = {"guidance": 4.0, "rescale": 0.7, "negative": "blurry", "width": 48, "height": 32}
    made = pictures(saved, [7], steps=5, sampler=sampler, **asked)
    alike(made[0], wanted)


def test_without_guidance_nothing_is_compared_with(saved: Path, theirs: Any) -> None:
    wanted = tiny.drawn(theirs, PROMPT, seed=1, num_inference_steps=3, guidance_scale=1.0)
    found = events(saved, [1], steps=3, guidance=1.0, negative="blurry")
    last = found[-1]
    assert isinstance(last, Result) and last.facts["evaluations"] == 3
    alike(last.media[0].pixels, wanted)  # type: ignore[attr-defined]
    assert any(isinstance(each, Warn) and "no effect" in each.text for each in found)


def test_a_picture_is_the_same_alone_and_among_others(saved: Path) -> None:
    alone = pictures(saved, [8], steps=2, sampler="euler_a")
    among = pictures(saved, [7, 8], steps=2, sampler="euler_a")
    assert np.array_equal(alone[0], among[1]) and not np.array_equal(*among)


def test_progress_previews_and_what_is_not_read(saved: Path) -> None:
    text = "a photo of red apple on the table"
    found = events(saved, [1, 2], text, steps=3)
    progress = [each for each in found if isinstance(each, Progress)]
    assert [each.step for each in progress] == [0, 1, 2, 3, 4, 5, 6] and {each.total for each in progress} == {6}
    previews = [each.medium for each in found if isinstance(each, Preview)]
    assert len(previews) == 4 and previews[0].pixels.shape == (32, 32, 3)  # type: ignore[attr-defined]
    (warning,) = [each.text for each in found if isinstance(each, Warn)]
    assert "longer than the 20 tokens" in warning and warning.rstrip("'").endswith("able")


@pytest.mark.parametrize(("options", "said"), [
    ({"width": 33}, "multiples of 2 pixels"), ({"sampler": "eulr"}, "eulr"), ({"size": 8000}, "GiB of memory"),
    ({"device": "tpu"}, "no device"), ({"lora": ("none.safetensors",)}, "no such LoRA"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_early(
    options: dict[str, Any], said: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 18}.__getitem__)
    with pytest.raises(ConjureError, match=said) as caught:
        events(saved, [1], **options)
    assert "width" not in options or caught.value.hint == "nearest to 33: 32 or 34"


def test_an_empty_prompt_is_no_prompt(saved: Path) -> None:
    with pytest.raises(ConjureError, match="empty text"):
        events(saved, [1], " ")


@pytest.mark.parametrize("name", MAKERS)
def test_the_forecast_counts_every_pass(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path / "source").save_pretrained(tmp_path / "saved")
    options = PublicPicturesOptions(steps=4, guidance=3.0, size=32)
    one, two = (PublicPictures.forecast(tmp_path / "saved", options, count) for count in (1, 2))
    assert one["evaluations"] == (4 if name.startswith("flux") else 8)
    assert two["seconds"] == pytest.approx(2 * one["seconds"]) and one["memory_bytes"] > 0
    wide = PublicPictures.forecast(tmp_path / "saved", PublicPicturesOptions(steps=4, guidance=3.0, size=64), 1)
    assert wide["seconds"] > 1.5 * one["seconds"] and wide["memory_bytes"] > one["memory_bytes"]


def test_tiles_show_no_seams(saved: Path) -> None:
    whole, tiled = (pictures(saved, [3], steps=2, size=64, tile=tile)[0] for tile in (0, 8))
    assert int(np.abs(whole.astype(int) - tiled.astype(int)).max()) <= 1


def test_strengths_stand_behind_the_file(tmp_path: Path) -> None:
    assert weighted("a/b.safetensors") == (Path("a/b.safetensors"), 1.0)
    assert weighted("a/b.safetensors:0.5") == (Path("a/b.safetensors"), 0.5)
    assert weighted("C:b.safetensors") == (Path("C:b.safetensors"), 1.0)
    (tmp_path / "odd:2").touch()
    assert weighted(f"{tmp_path}/odd:2") == (tmp_path / "odd:2", 1.0)


def test_classes_are_drawn_by_name(tmp_path: Path) -> None:
    network = tiny.shaken(diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2, sample_size=16,
        patch_size=2, num_embeds_ada_norm=1000), 3)  # fmt: skip
    for block in network.transformer_blocks:  # each has a copy of the same
        block.norm1.emb.load_state_dict(network.transformer_blocks[0].norm1.emb.state_dict())
    scheduler = diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False)
    reference = diffusers.DiTPipeline(network, tiny.autoencoder(), scheduler)
    reference.save_pretrained(tmp_path / "saved")
    index = tmp_path / "saved" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": {"4": "cat 4, feline", "5": "dog"}}))
    reference.set_progress_bar_config(disable=True)
    wanted = reference([4], guidance_scale=3.0, num_inference_steps=4, output_type="np",
                       generator=torch.Generator().manual_seed(2)).images[0]  # fmt: skip
    for name in ("4", "Feline"):
        made = pictures(tmp_path / "saved", [2], name, steps=4, guidance=3.0)
        alike(made[0], (wanted * 255).round().astype(np.uint8))


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The edge as the table has it."""
    target = "conjure.tasks.public_pictures:PublicPictures"
    monkeypatch.setattr(table, "TABLE", (table.Edge(("text",), "image", "draw", target, "", "draws", public=True),))


@pytest.mark.usefixtures("edge")
def test_make_draws_what_the_reference_draws(saved: Path, theirs: Any, tmp_path: Path) -> None:
    """`conjure make "..." --model ./folder --seed 5 --steps 6 --guidance 5 --sampler ddim`, through the PNG."""
    wanted = tiny.drawn(theirs, PROMPT, seed=5, num_inference_steps=6, guidance_scale=5.0)
    made = make(PROMPT, model=str(saved), output=tmp_path / "a.png", seed=5, steps=6, guidance=5, sampler="ddim")
    alike(read(tmp_path / "a.png").pixels, wanted)
    assert made.record.task == "draw" and made.record.model == str(saved) and made.record.seeds == (5,)
    planned = plan(PROMPT, model=str(saved), to="image", seed=5, steps=6)
    assert planned.options.steps == 6 and planned.edges[0].public
    told = forecast(planned)
    assert told["parameters"] > 1_000_000 and told["evaluations"] == 12


@pytest.mark.usefixtures("edge")
def test_models_that_cannot_draw_are_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "inpaints")
    file = tmp_path / "inpaints" / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"in_channels": 9}))
    with pytest.raises(ConjureError, match="cannot draw: it can inpaint, outpaint"):
        plan(PROMPT, model=str(tmp_path / "inpaints"), to="image")
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(ConjureError, match="a LoRA, which changes another model"):
        plan(PROMPT, model=str(tmp_path / "lora.safetensors"), to="image")
    with pytest.raises(ConjureError, match="cannot chat: it can draw, vary"):
        raise cannot("it", saved, "chat")
    assert is_public(saved) and not is_language_model(saved)
    assert abilities(saved) == ("draw", "vary", "inpaint", "outpaint", "control")
