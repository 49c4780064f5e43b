"""The feature networks: trained on stand-ins, saved, loaded, and asked what a picture shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conjure.core.config import load_yaml
from conjure.core.errors import ConjureError
from conjure.core.events import Progress, Result
from conjure.core.paths import recipes_dir
from conjure.data.phrases import spoken
from conjure.data.pictures_small import NAMES
from conjure.data.scenes import SceneSource
from conjure.media.image import Image
from conjure.models.features import FeatureConfig, load_extractor
from conjure.models.folder import read_config
from conjure.tasks import features as module
from conjure.tasks.features import FeatureData, Features, RecogniseOptions
from conjure.train.recipe import load_recipe
from tests.data import handwriting
from tests.data.shapes import SIDE, shapes

MODEL = FeatureConfig(channels=1, size=28, widths=(8, 16), features=12, classes=10)


def square(digit: int) -> np.ndarray:
    """uint8 [28, 28]: a white square whose side tells the digit, so that few steps are enough to learn it."""
    pixels, side = np.zeros((28, 28), np.uint8), 2 * digit + 5
    top = (28 - side) // 2
    pixels[top : top + side, top : top + side] = 255
    return pixels


@pytest.fixture(autouse=True)
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handwriting, "glyph", square)
    handwriting.write_mnist(tmp_path / "mnist", 60)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))


@pytest.fixture
def task() -> Features:
    return Features.create(MODEL, FeatureData(), seed=3)


def fitted(task: Features, steps: int = 60) -> Features:
    """In evaluation mode, after some steps on the stand-in's digits."""
    optimizer = torch.optim.Adam(task.network.parameters(), lr=2e-2)
    for step in range(steps):
        total, count = task.loss(task.batch(range(20 * step, 20 * step + 20)))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    task.network.eval()
    return task


def test_examples_are_pure_functions_of_their_index(task: Features) -> None:
    together, alone = task.batch([4, 70]), task.batch([70])
    assert together["pixels"].shape == (2, 28, 28, 1) and together["pixels"].dtype == torch.uint8
    assert all(torch.equal(together[key][1:], alone[key]) for key in together)
    assert task.tokens(together) == 2 and task.flops(together) == 3 * task.network.flops(2)
    assert "2 pictures of 28 x 28 pixels" in task.describe(together)
    other = Features.create(MODEL, FeatureData(), seed=4)
    assert not torch.equal(other.batch(range(20))["pixels"], task.batch(range(20))["pixels"])


def test_training_pictures_are_moved_and_test_pictures_are_not(task: Features) -> None:
    batch = task.batch(range(60))
    shifts = set()
    for pixels, label in zip(batch["pixels"].numpy()[..., 0], batch["targets"].tolist(), strict=True):
        wide = np.pad(square(label), 2)
        found = [(y, x) for y in range(5) for x in range(5) if np.array_equal(wide[y : y + 28, x : x + 28], pixels)]
        assert found, "every training picture is its square, moved by at most two pixels"
        shifts.update(found)
    assert len(shifts) > 10
    assert task.source is not None
    pixels_BHWC, labels_B = task.source.some("test", range(10))
    assert np.array_equal(pixels_BHWC[7, ..., 0], square(int(labels_B[7])))


def test_photographs_are_mirrored_half_of_the_time(task: Features) -> None:
    photographs = Features(task.network, task.names, data=FeatureData(source="cifar10"), seed=1)
    ramp = np.repeat(np.arange(32, dtype=np.uint8)[None, :, None] * 8, 32, 0).repeat(3, 2)
    rising = [int(np.median(np.diff(photographs._moved(ramp, k)[16, :, 0].astype(int)))) > 0 for k in range(60)]
    assert 15 < sum(rising) < 45
    assert photographs.sets == ("cifar10",) and task.sets == ("mnist",)


def test_it_learns_is_saved_and_comes_back(task: Features, tmp_path: Path) -> None:
    before = task.evaluate()
    assert fitted(task).evaluate()["accuracy"] > 0.5 > before["accuracy"]
    assert set(before) == {"loss", "accuracy"} and next(iter(before)) == "loss"
    task.save(tmp_path / "it", dtype="float16")
    saved = read_config(tmp_path / "it")
    assert (saved["kind"], saved["task"], saved["classes"]) == ("picture_features", "features", list(NAMES["mnist"]))
    again = Features.load(tmp_path / "it")
    *events, result = again.generate([Image(square(4)[..., None])], RecogniseOptions(), [1, 2])
    assert events == [Progress(1, 1, "picture")] and isinstance(result, Result)
    x = torch.from_numpy(square(4)).float()[None, None] / 127.5 - 1
    shares_K = again.network(x).softmax(1)[0]
    name = NAMES["mnist"][int(shares_K.argmax())]
    assert [str(medium) for medium in result.media] == [name, name]
    labels = result.facts["results"][0]["labels"]
    assert next(iter(labels)) == name and len(labels) == 5
    assert labels[name] == pytest.approx(shares_K.max().item(), abs=1e-3)
    figure = again.evaluate_published()["accuracy"]
    assert figure["n"] == 60 and figure["low"] < figure["value"] <= figure["high"] and "Wilson" in figure["protocol"]
    assert load_extractor(tmp_path / "it").count == 12


def test_the_network_that_is_given_is_the_one_that_is_called(task: Features) -> None:
    sure = torch.nn.Module()
    sure.forward = lambda x: torch.nn.functional.one_hot(torch.tensor([1]), 10) * 100.0  # type: ignore[method-assign]
    one = next(k for k in range(60) if task.batch([k])["targets"].item() == 1)
    assert task.loss(task.batch([one]), sure)[0].item() == pytest.approx(0, abs=1e-6)


def test_mistakes_are_shown(task: Features) -> None:
    shown = task.preview(0)["mistakes"]
    assert (shown.width, shown.height) == (8 * 28, 3 * 28)
    right = torch.nn.Module()
    sides = torch.arange(10) * 2 + 5
    right.forward = lambda x: -(((x > 0).sum((1, 2, 3))[:, None] - sides**2) ** 2).float()  # type: ignore[method-assign]
    task.network = right  # type: ignore[assignment]
    assert task.preview(0) == {} and task.evaluate()["accuracy"] == 1


def test_scenes_show_one_thing_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SceneSource, "load", classmethod(lambda cls, size=SIDE: shapes()))
    monkeypatch.setattr(module, "SCENES_TESTED", 6)
    names = [spoken(p.name) for p in shapes().pictograms]
    config = FeatureConfig(channels=3, size=SIDE, patch=2, widths=(8, 16), features=8, classes=len(names))
    task = Features.create(config, FeatureData(source="scenes", size=SIDE))
    batch = task.batch(range(8))
    assert batch["pixels"].shape == (8, SIDE, SIDE, 3) and int(batch["targets"].max()) < len(names)
    assert torch.equal(batch["pixels"][2:3], task.batch([2])["pixels"])
    assert task.evaluate()["loss"] > 0 and task.sets == ("noto_emoji",)
    assert task.source is not None
    assert not np.array_equal(task.source.some("test", [0])[0], task.source.some("train", [0])[0])


def test_a_recipe_that_does_not_fit_its_data() -> None:
    with pytest.raises(ConjureError, match=r"model\.classes is 9, the data have 10") as caught:
        Features.create(FeatureConfig(channels=1, size=28, widths=(8,), classes=9), FeatureData())
    assert caught.value.hint == "model.classes=10"


@pytest.mark.parametrize("name", sorted(path.stem for path in recipes_dir().glob("features-*.yaml")))
def test_the_recipes_are_whole(name: str) -> None:
    model, _ = load_recipe(name).resolve(Features)
    count = sum(p.numel() for p in module.new_network(model).parameters())
    assert 200_000 < count < 750_000, "small enough to come with the package: 1.5 MB at two bytes each"
    values: dict[str, Any] = load_yaml(recipes_dir() / f"{name}.yaml")
    assert values["train"]["save_dtype"] == "float16"
