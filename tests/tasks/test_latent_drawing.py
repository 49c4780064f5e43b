"""Latent diffusion by tiny networks over pictograms made here: trained, saved, loaded, drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conjure.core.config import to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Preview, Progress, Result, Warn
from conjure.core.seeds import normal
from conjure.data.few_scenes import FewScenes
from conjure.data.scenes import SceneSource
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.models.autoencoder_kl import AutoencoderKLConfig
from conjure.models.folder import save_weights, write_config
from conjure.models.kl_codec import KLCodec, KLCodecConfig
from conjure.models.latent_painter import LatentPainterConfig
from conjure.models.mmdit import MMDiTConfig
from conjure.models.picture_text import PictureTextConfig
from conjure.models.unet import UNetConfig
from conjure.tasks import scene_drawing
from conjure.tasks.kl_autoencoder import KLReconstruct
from conjure.tasks.latent_drawing import LatentDrawing, LatentDrawingOptions
from conjure.train.audit import audit
from conjure.train.settings import Training
from tests.data.shapes import SIDE, shapes
from tests.tasks.few_shapes import DATA, instead

QUICK = LatentDrawingOptions(steps=2)
CODEC = KLCodecConfig(
    autoencoder=AutoencoderKLConfig(channels=48, latent=3, widths=(8, 8), residuals=1, groups=4, attends=False), patch=4
)
NETWORKS = {
    "unet": UNetConfig(channels=12, channels_out=12, widths=(16,), residuals=1, depth=(1,), heads=(2,), context=16,
                       groups=4),
    "mmdit": MMDiTConfig(channels=3, out_channels=3, patch=2, dim=16, layers=2, heads=2, context=16, pooled=16, size=8,
                         places=4),
}  # fmt: skip


@pytest.fixture(autouse=True)
def scenes(monkeypatch: pytest.MonkeyPatch) -> FewScenes:
    return instead(monkeypatch)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an autoencoder whose latents are 3 x 8 x 8."""
    folder = tmp_path_factory.mktemp("codec")
    torch.manual_seed(0)
    made = KLCodec(CODEC)
    write_config(folder, kind="kl_autoencoder", task="kl_autoencoder", network=made,
                 sections={"codec": to_dict(CODEC), "data": {"size": SIDE}})
    save_weights(folder, "codec", made)
    return folder


def config(scenes: FewScenes, codec: Path, kind: str = "mmdit") -> LatentPainterConfig:
    text = PictureTextConfig(vocab=len(scenes.words.vocabulary), length=12, dim=16, layers=1, heads=2)
    network = {kind: NETWORKS[kind]}
    return LatentPainterConfig(text=text, channels=3, side=8, patch=2 if kind == "unet" else 1, codec=str(codec),
                               **network)  # type: ignore[arg-type]


def create(model: LatentPainterConfig, folder: Path | None = None) -> LatentDrawing:
    """With random weights (a new one would draw the same whatever it is told), loaded from a folder if one is given."""
    task = LatentDrawing.create(model, DATA)
    with torch.no_grad():
        for k, parameter in enumerate(task.network.parameters()):
            parameter.add_(0.3 * normal([k], parameter.shape)[0])
    if folder is None:
        return task
    task.save(folder)
    return LatentDrawing.load(folder)


def drawn(task: LatentDrawing, prompt: str, seeds: list[int], options: LatentDrawingOptions = QUICK) -> np.ndarray:
    (result,) = (e for e in task.generate([Text(prompt)], options, seeds) if isinstance(e, Result))
    return np.stack([each.pixels for each in result.media]).astype(int)  # type: ignore[attr-defined]


def test_the_loop_finds_no_fault(scenes: FewScenes, codec: Path) -> None:
    task = LatentDrawing.create(config(scenes, codec), DATA)
    found = audit(task, Training(steps=10, batch=4, optimizer="muon", lr=2e-3))  # type: ignore[arg-type]
    assert [str(each) for each in found if each.passed is False] == []
    batch = task.batch([4, 9])
    assert all(torch.equal(batch[key][1:], each) for key, each in task.batch([9]).items())
    assert task.tokens(batch) == 2 * 16 and task.flops(batch) == 6 * task.network.flops(1)
    assert "2 pictures as (3, 8, 8)" in task.describe(batch)


@pytest.mark.parametrize("kind", ["unet", "mmdit"])
def test_the_loss_falls_on_one_batch(scenes: FewScenes, codec: Path, kind: str) -> None:
    task = LatentDrawing.create(config(scenes, codec, kind), DATA)
    optimizer, batch, losses = torch.optim.Adam(task.network.parameters(), lr=3e-3), task.batch(range(8)), []
    for _ in range(15):
        total, count = task.loss(batch)
        losses.append(total.item() / int(count))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    assert task.evaluate(5) == task.evaluate(5) != task.evaluate(4)


@pytest.mark.parametrize("kind", ["unet", "mmdit"])
def test_a_saved_model_draws_the_same_alone_and_among_others(
    scenes: FewScenes, codec: Path, kind: str, tmp_path: Path
) -> None:
    task = create(config(scenes, codec, kind), tmp_path)
    three, one = drawn(task, "a rocket", [1, 2, 3]), drawn(task, "a rocket", [2])
    assert three.shape == (3, SIDE, SIDE, 3)
    assert np.abs(three[1] - one[0]).max() <= 1 and not np.array_equal(three[0], three[1])
    assert np.abs(one[0] - drawn(task, "a kite", [2])[0]).max() > 1, "the text is read"
    assert np.abs(one - drawn(create(config(scenes, codec, kind)), "a rocket", [2])).max() <= 1
    assert drawn(task, "a kite", [2], replace(QUICK, size=100)).shape[1:3] == (100, 100)
    x = torch.zeros(1, 3, SIDE, SIDE)
    assert torch.equal(task.codec.encode(x), KLReconstruct.load(tmp_path).network.encode(x)), "the codec is with it"
    assert KLReconstruct.load(codec).network.config.patch == 4


def test_guidance_goes_from_the_negative_through_the_prompt(scenes: FewScenes, codec: Path) -> None:
    task = create(config(scenes, codec))
    one_step = replace(QUICK, steps=1)
    x = normal([7], (3, 8, 8))
    with torch.no_grad():
        told, without = (task.network.paint(x, torch.ones(1), *task._read([each])) for each in ("a kite", "a rocket"))
        wanted = task._pictures(without + 3 * (told - without), 0) if task.config.flow.predict == "sample" else \
            task._pictures(x - (without + 3 * (told - without)), 0)
    made = drawn(task, "a kite", [7], replace(one_step, guidance=3.0, negative="a rocket"))
    assert np.abs(made[0] - wanted[0].pixels).max() <= 1
    alone = drawn(task, "a kite", [7], replace(one_step, guidance=1.0))
    assert np.abs(made - alone).max() > 1
    assert np.abs(drawn(task, "a kite", [7], replace(one_step, guidance=3.0)) - made).max() > 1


def test_steps_are_told_and_what_cannot_be_read(scenes: FewScenes, codec: Path) -> None:
    task = create(config(scenes, codec))
    options = replace(QUICK, guidance=2.0, negative="a kiet")
    events = list(task.generate([Text("a rockt " + "above " * 12)], options, [1]))
    assert [e.step for e in events if isinstance(e, Progress)] == [1, 2]
    assert [e.medium.pixels.shape[0] for e in events if isinstance(e, Preview)] == [SIDE]  # type: ignore[attr-defined]
    assert isinstance(events[-1], Result) and events[-1].facts == {"evaluations": 4}
    said = [e.text for e in events if isinstance(e, Warn)]
    assert "nearest known: rocket" in said[0] and "too long" in said[1] and "nearest known: kite" in said[2]
    plain = replace(QUICK, guidance=1.0, negative="a kite")
    events = list(task.generate([Text("a rocket")], plain, [1]))
    assert isinstance(events[-1], Result) and events[-1].facts == {"evaluations": 2}
    assert ["no effect" in e.text for e in events if isinstance(e, Warn)] == [True]
    with pytest.raises(ConjureError, match="empty text"):
        list(task.generate([Text(" ")], QUICK, [1]))


def test_a_forecast_counts_what_is_drawn(scenes: FewScenes, codec: Path, tmp_path: Path) -> None:
    create(config(scenes, codec), tmp_path)
    one, two = (LatentDrawing.forecast(tmp_path, replace(QUICK, guidance=scale), 2) for scale in (1.0, 2.0))
    assert (one["evaluations"], two["evaluations"]) == (2, 4) and one["seconds"] < two["seconds"]
    assert one["memory_bytes"] == 2 * LatentDrawing.forecast(tmp_path, QUICK, 1)["memory_bytes"]


def test_figures_and_copies_are_made_of_its_pictures(
    scenes: FewScenes, codec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("KNOWN", 2), ("COMPOSED", 3), ("COPIES", 4), ("SHOWN", 5), ("BATCH", 2)):
        monkeypatch.setattr(scene_drawing, name, value)
    task = create(config(scenes, codec))
    monkeypatch.setattr(task, "_plainly", lambda prompts, seeds: [painted(each) for each in prompts])
    found = task.evaluate_published()
    assert (found["known_things"]["n"], found["composition"]["n"]) == (6, 3)
    assert set(task.evaluate_published(["composition"])) == {"composition"}
    assert task.memorisation_sets().made_NHWC.shape == (4, SIDE, SIDE, 3)
    monkeypatch.undo()
    instead(monkeypatch)
    assert task.preview(1)["pictures"].pixels.shape == (2 * SIDE, 4 * SIDE, 3)


def painted(_: str) -> Image:
    return Image(np.full((SIDE, SIDE, 3), 255, np.uint8))


def test_what_does_not_fit_is_refused(scenes: FewScenes, codec: Path, tmp_path: Path) -> None:
    model = config(scenes, codec)
    with pytest.raises(ConjureError, match="captions have") as caught:
        LatentDrawing.create(replace(model, text=replace(model.text, vocab=3)), DATA)
    assert caught.value.hint == f"model.text.vocab={len(scenes.words.vocabulary)}"
    with pytest.raises(ConjureError, match="expected the folder of an autoencoder"):
        LatentDrawing.create(replace(model, codec=""), DATA)
    other = replace(CODEC, autoencoder=replace(CODEC.autoencoder, latent=5))
    made = KLCodec(other)
    write_config(tmp_path, kind="kl_autoencoder", task="kl_autoencoder", network=made,
                 sections={"codec": to_dict(other), "data": {"size": SIDE}})
    save_weights(tmp_path, "codec", made)
    with pytest.raises(ConjureError, match=r"as \(5, 8, 8\), the model draws 3 channels"):
        LatentDrawing.create(replace(model, codec=str(tmp_path)), DATA)


def test_the_autoencoder_that_a_model_carries_is_measured_on_scenes(
    scenes: FewScenes, codec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SceneSource, "load", classmethod(lambda cls, size=SIDE: shapes()))
    create(config(scenes, codec), tmp_path)
    assert KLReconstruct.load(tmp_path).evaluate(3) == KLReconstruct.load(codec).evaluate(3)
