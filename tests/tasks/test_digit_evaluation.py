from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from conjure.core.events import Event, Progress
from conjure.core.seeds import rng
from conjure.data.digits import NAMES
from conjure.media.image import Image
from conjure.tasks.digit_evaluation import recognised
from tests.data.handwriting import glyph, write_mnist


@pytest.fixture(autouse=True)
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "mnist", 40)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))


def image(digit: int, seed: int) -> Image:
    noisy = glyph(digit).astype(float) + rng(seed).normal(0, 20, (28, 28))
    return Image(noisy.clip(0, 255).astype(np.uint8)[..., None])


def test_digits_as_asked_are_recognised() -> None:
    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        return [image(NAMES.index(prompt), seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    told: list[Event] = []
    found = recognised(draw, each=4, tell=told.append)
    assert (found["value"], found["n"]) == (1.0, 40) and found["low"] < 1 == found["high"]  # type: ignore[operator]
    assert "100.0% of 1,000 real test digits" in str(found["protocol"])
    assert told == [Progress(4 * k, 40, "picture", "recognised") for k in range(1, 11)]


def test_always_the_same_digit_is_right_once_in_ten() -> None:
    assert recognised(lambda prompts, seeds: [image(3, s) for s in seeds], each=3)["value"] == pytest.approx(0.1)


def test_every_picture_has_a_seed_of_its_own() -> None:
    seen: list[int] = []

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        seen.extend(seeds)
        return [image(0, 0) for _ in prompts]

    recognised(draw, each=3)
    assert len(set(seen)) == 30
