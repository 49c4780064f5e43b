from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Result, Warn
from conjure.media.text import Text
from conjure.models.gan import GANConfig
from conjure.tasks.gan import GANData, GANOptions, SampleGAN
from conjure.train.audit import audit
from conjure.train.settings import Training
from tests.data.handwriting import write_mnist

MODEL = GANConfig(latent=8, widths=(8, 6))


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SampleGAN:
    write_mnist(tmp_path / "mnist", 200)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    return SampleGAN.create(MODEL, GANData(block=4, turns=2))


def test_the_generator_learns_from_every_second_block(task: SampleGAN) -> None:
    assert task.batch(range(12))["turn"].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    whole, alone = task.batch(range(6)), task.batch([5])
    assert all(torch.equal(whole[name][5], alone[name][0]) for name in whole)
    assert float(whole["x"].min()) == -1 and float(whole["x"].max()) == 1


def test_the_loop_finds_no_fault(task: SampleGAN) -> None:
    config = Training(steps=10, batch=4, optimizer="adamw", lr=2e-3, betas=(0.0, 0.9), clip=0.0)
    found = audit(SampleGAN.create(replace(MODEL, game="hinge"), GANData(block=4)), config)
    assert [str(each) for each in found if each.passed is False] == []


def test_a_saved_model_draws_the_same_alone_and_among_others(task: SampleGAN, tmp_path: Path) -> None:
    task.network.eval()
    torch.nn.init.normal_(task.network.generator.first.weight)  # new weights draw one grey, whatever the noise
    task.save(tmp_path / "m")
    loaded = SampleGAN.load(tmp_path / "m")

    def drawn(prompt: str, seeds: list[int]) -> tuple[list[np.ndarray], list[str]]:
        events = list(loaded.generate([Text(prompt)], GANOptions(), seeds))
        (result,) = (each for each in events if isinstance(each, Result))
        return [each.pixels for each in result.media], [each.text for each in events if isinstance(each, Warn)]

    (three, warned), (one, _) = drawn("a seven", [1, 2, 3]), drawn("any", [2])
    assert np.array_equal(three[1], one[0]) and not np.array_equal(three[0], three[1])
    assert three[0].shape == (28, 28, 1) and "it draws any, not only seven" in warned[0]
    made = conjure.make("seven", model=str(tmp_path / "m"), output=tmp_path / "seven.png", seed=2)
    assert np.array_equal(made.pixels, one[0])


def test_evaluation_and_what_does_not_fit(task: SampleGAN) -> None:
    task.network.eval()
    found = task.evaluate(50)
    assert found["coarse_distance"] > 0 and 0 <= found["variety"] < 0.5, "a new generator draws one grey"
    with pytest.raises(ConjureError, match="the network is for"):
        SampleGAN.create(replace(MODEL, classes=3), GANData())
