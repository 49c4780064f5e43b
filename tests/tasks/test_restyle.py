from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conjure.core.errors import ConjureError
from conjure.core.events import Preview, Progress, Result
from conjure.core.seeds import normal, rng
from conjure.media.image import Image
from conjure.tasks.restyle import LEVELS, Restyle, RestyleOptions, correlations, random_filters
from tests.media.test_mask import disc

CONTENT = Image(np.where(disc()[..., None] > 0, np.uint8(200), np.uint8(40)).repeat(3, 2))
STRIPES = Image(np.tile(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8).repeat(4, 0), (6, 48, 1)))
QUICK: dict[str, Any] = {"style": "s.png", "size": 64, "steps": 12}
METHODS = pytest.mark.parametrize("method", ["patches", "features"])


@pytest.fixture
def task() -> Restyle:
    return Restyle()


def made(
    task: Restyle, content: Image = CONTENT, seeds: tuple[int, ...] = (1,), *, style: Image = STRIPES, **options: Any
) -> list[np.ndarray]:
    *_, last = task.generate([content, style], RestyleOptions(**{**QUICK, **options}), seeds)
    assert isinstance(last, Result)
    return [medium.pixels for medium in last.media]  # type: ignore[attr-defined]


def style_error(pixels: np.ndarray) -> float:
    filters = random_filters(99)

    def of(image: np.ndarray) -> list[torch.Tensor]:
        x = torch.from_numpy(image[..., :3].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        return correlations(F.interpolate(x, (48, 48), mode="bilinear", antialias=True), filters)

    return sum(float(((a - b) ** 2).sum() / (b**2).sum()) for a, b in zip(of(pixels), of(STRIPES.pixels), strict=True))


@METHODS
def test_the_texture_comes_nearer_and_the_content_stays(task: Restyle, method: str) -> None:
    weak, strong = (made(task, strength=strength, method=method)[0] for strength in (0.1, 0.9))
    assert style_error(strong) < 0.65 * style_error(CONTENT.pixels), "by filters that took no part in it"
    assert style_error(strong) < style_error(weak)
    away = [np.abs(each.astype(int) - CONTENT.pixels).mean() for each in (weak, strong)]
    assert away[0] < away[1]


@METHODS
def test_each_seed_has_its_own_picture_alone_and_among_others(task: Restyle, method: str) -> None:
    grain = Image(rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8))
    among, (alone,) = (made(task, seeds=seeds, method=method, style=grain) for seeds in ((1, 2), (2,)))
    assert np.array_equal(among[1], alone) and not np.array_equal(among[0], alone)


@METHODS
def test_size_transparency_and_colours_of_the_content(task: Restyle, method: str) -> None:
    glass = Image(np.dstack([CONTENT.pixels, 255 - disc()])[:, :30])
    (out,) = made(task, glass, steps=3, method=method)
    assert out.shape == (40, 30, 4) and np.array_equal(out[:, :, 3], glass.pixels[:, :, 3])
    (grey,) = made(task, steps=6, colours=False, method=method)
    assert np.abs(grey.astype(int) - grey.mean(2, keepdims=True)).max() <= 2, "the content is grey"
    (one,) = made(task, Image(np.zeros((1, 1, 3), np.uint8)), steps=3, method=method)
    assert one.shape == (1, 1, 3)


def test_events(task: Restyle) -> None:
    *events, _ = task.generate([CONTENT, STRIPES], RestyleOptions(**{**QUICK, "steps": 4}), [1, 2])
    assert [e for e in events if isinstance(e, Progress)] == [Progress(n, 8, "step") for n in range(1, 9)]
    shown = [e.medium for e in events if isinstance(e, Preview)]
    assert len(shown) == 6 and isinstance(shown[0], Image) and shown[0].pixels.shape == (40, 40, 3)
    with pytest.raises(ConjureError, match="no style was given"):
        list(task.generate([CONTENT], RestyleOptions(), [1]))


def test_filters_see_no_even_areas_but_for_colours() -> None:
    first, again, other = random_filters(5), random_filters(5), random_filters(6)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)) and not torch.equal(first[0], other[0])
    for weight in first:
        assert torch.allclose(weight.flatten(1).norm(dim=1), torch.ones(len(weight)), atol=1e-5)
        assert weight[3:].sum((2, 3)).abs().max() < 1e-5 and torch.equal(weight[:3].sum((2, 3)), torch.eye(3))


def test_correlations_are_those_of_a_plain_loop() -> None:
    x, (weight, _) = normal([3], (3, 12, 10)).clamp(-1, 1), random_filters(1)
    found = correlations(x, [weight])
    assert len(found) == 1 < LEVELS, "a small picture has no more levels"
    padded = np.pad((x[0].numpy() + 1) / 2, ((0, 0), (1, 1), (1, 1)), mode="edge")
    features = np.zeros((len(weight), 12, 10))
    for y in range(12):
        for across in range(10):
            patch = padded[:, y : y + 3, across : across + 3]
            features[:, y, across] = np.maximum(0, (weight.numpy() * patch).sum((1, 2, 3)))
    flat = features.reshape(len(weight), -1)
    assert np.abs(flat @ flat.T / 120 - found[0].numpy()).max() < 1e-5
