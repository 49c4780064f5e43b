"""Digits from a variational autoencoder: trained, measured, saved, and asked for by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.events import Result, Warn
from conjure.data.pictures_small import SmallPictures
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.models.vae import VAEConfig
from conjure.tasks.vae import SampleVAE, VAEData, VAEOptions
from tests.data.handwriting import write_mnist

MODEL = VAEConfig(latent=4, hidden=(16,))


@pytest.fixture(scope="module", autouse=True)
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("data")
    write_mnist(folder / "mnist", 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONJURE_DATA", str(folder))
        yield


def made(**changes: object) -> SampleVAE:
    return SampleVAE.create(VAEConfig(**{"latent": 4, "hidden": (16,), **changes}), VAEData(), seed=3)  # type: ignore


def drawn(task: SampleVAE, prompt: str, seeds: list[int], **options: object) -> list[Image]:
    result = list(task.generate([Text(prompt)], VAEOptions(**options), seeds))[-1]  # type: ignore[arg-type]
    assert isinstance(result, Result)
    assert all(isinstance(medium, Image) for medium in result.media)
    return result.media  # type: ignore[return-value]


def test_examples_are_pure_functions_of_their_index() -> None:
    task = made(samples=3)
    together, alone = task.batch([4, 49]), task.batch([49])
    assert together["x"].shape == (2, 28, 28, 1) and together["noise"].shape == (2, 3, 4)
    assert all(torch.equal(together[key][1:], alone[key]) for key in together)
    assert set(together["x"].unique().tolist()) == {0.0, 1.0}
    pixels_BHWC, labels_B = SmallPictures("mnist", seed=3).batch([4, 49])
    assert together["labels"].tolist() == labels_B.tolist()
    assert ((together["x"].numpy() > 0) == (pixels_BHWC > 0)).all(), "the stand-in is black and white already"
    assert task.flops(together) == 3 * task.network.flops(2, 3) and task.tokens(together) == 2
    assert "2 pictures" in task.describe(together)


@pytest.mark.parametrize("changes", [{}, {"beta": 2.0}, {"classes": 10}, {"samples": 4}])
def test_each_member_learns(changes: dict[str, object]) -> None:
    task = made(**changes)
    optimizer, batch, losses = torch.optim.Adam(task.network.parameters(), lr=1e-2), task.batch(range(20)), []
    for _ in range(15):
        total, count = task.loss(batch)
        losses.append(total.item() / int(count))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    assert task.loss(batch)[0].item() == task.loss(batch)[0].item(), "all that is drawn is in the batch"


def test_figures_are_the_same_every_time_and_in_order() -> None:
    task = made()
    found = task.evaluate_published()
    elbo, bound = found["negative_elbo"], found["negative_bound_50"]
    assert elbo["n"] == bound["n"] == 40 and elbo["low"] < elbo["value"] < elbo["high"]
    assert bound["value"] < elbo["value"], "the importance-weighted bound is the tighter one"
    assert found == task.evaluate_published()
    assert task.evaluate()["negative_elbo"] == pytest.approx(elbo["value"], abs=1e-3)
    parts = task.evaluate(7)
    assert parts["negative_elbo"] == pytest.approx(parts["distortion"] + parts["rate"], abs=1e-3)
    assert "given each picture's class" in made(classes=10).evaluate_published()["negative_elbo"]["protocol"]


def test_saved_and_loaded_it_draws_the_same(tmp_path: Path) -> None:
    task = made(classes=10)
    task.save(tmp_path)
    again = SampleVAE.load(tmp_path)
    together, alone = drawn(again, "a seven", [5, 6]), drawn(task, "7", [6])
    assert together[0].pixels.shape == (28, 28, 1)
    assert together[1].digest() == alone[0].digest() != together[0].digest()
    assert drawn(task, "six", [6])[0].digest() != alone[0].digest()
    assert len({each.digest() for each in drawn(task, "any", list(range(5)), temperature=0)}) > 1, "classes vary"
    black_or_white = drawn(task, "any", [1], binary=True, size=0)[0].pixels
    assert set(black_or_white.flatten().tolist()) <= {0, 255}
    assert drawn(task, "any", [1], size=56)[0].height == 56
    assert task.preview(1)["samples"].pixels.shape[:2] == (8 * 28, 10 * 28)


def test_a_model_without_classes_says_so() -> None:
    task = made()
    assert isinstance(next(iter(task.generate([Text("seven")], VAEOptions(), [1]))), Warn)
    assert not isinstance(next(iter(task.generate([Text("any")], VAEOptions(), [1]))), Warn)
    with pytest.raises(ConjureError, match="expected one of zero, one"):
        list(task.generate([Text("a horse")], VAEOptions(), [1]))


def test_shapes_that_do_not_fit_the_data() -> None:
    with pytest.raises(ConjureError, match="the network is for"):
        made(side=32)
    with pytest.raises(ConjureError, match="the network is for"):
        made(classes=9)
