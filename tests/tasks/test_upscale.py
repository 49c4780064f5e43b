from __future__ import annotations

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.core.events import Progress, Result, Warn
from conjure.core.seeds import rng
from conjure.media.image import Image
from conjure.metrics.psnr import psnr
from conjure.tasks.options import check
from conjure.tasks.table import Edge
from conjure.tasks.upscale import Upscale, UpscaleOptions, enlarged
from tests.data.shapes import shapes

EDGE = Edge(("image",), "image", "upscale", "conjure.tasks.upscale:Upscale", "", "")


def made(picture: Image, **options: object) -> Image:
    last = list(Upscale().generate([picture], UpscaleOptions(**options), [3]))[-1]  # type: ignore[arg-type]
    assert isinstance(last, Result) and isinstance(last.media[0], Image)
    return last.media[0]


@pytest.mark.parametrize("scale", [2, 4])
def test_it_beats_lanczos_on_scenes(scale: int) -> None:
    gains = []
    for index in range(8):
        truth = shapes().paint(shapes().scene(0, index))
        small = Image(np.rint(truth.reshape(64 // scale, scale, 64 // scale, scale, 3).mean((1, 3))).astype(np.uint8))
        ours = psnr(made(small, scale=scale).pixels, truth)
        lanczos = psnr(made(small, scale=scale, method="lanczos").pixels, truth)
        gains.append(ours - lanczos)
    assert min(gains) > -0.1 and np.mean(gains) > 0.2, gains


def test_shrunk_again_it_is_the_picture_it_came_from() -> None:
    small = shapes().paint(shapes().scene(0, 3)).astype(np.float32)
    *_, large = enlarged(small, 2, 10)
    assert np.abs(large.reshape(64, 2, 64, 2, 3).mean((1, 3)) - small).mean() < 0.3


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_every_shape(shape: tuple[int, int, int]) -> None:
    picture = Image(rng(0).integers(0, 256, shape).astype(np.uint8))
    assert made(picture, scale=4).pixels.shape == (shape[0] * 4, shape[1] * 4, shape[2])


def test_an_even_colour_stays() -> None:
    pixels = np.full((5, 5, 4), (200, 100, 50, 128), np.uint8)
    assert (made(Image(pixels)).pixels == (200, 100, 50, 128)).all()


def test_colours_nobody_sees_stay_out() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (0, 200, 0, 255)
    pixels[:, 4:] = (255, 0, 0, 0)
    out = made(Image(pixels)).pixels
    assert out[out[:, :, 3] > 8][:, 0].max() <= 1


def test_events_seeds_and_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image(np.zeros((4, 4, 3), np.uint8), frames=2)
    warn, *steps, last = Upscale().generate([picture], UpscaleOptions(), [1, 2])
    assert isinstance(warn, Warn) and "2 frames" in warn.text
    assert steps == [Progress(n, 11, "round") for n in range(1, 12)]
    assert isinstance(last, Result) and len(last.media) == 2
    monkeypatch.setenv("CONJURE_MAX_PIXELS", "63")
    with pytest.raises(ConjureError, match="the larger picture: expected at most 63 pixels, got 8 x 8 = 64"):
        made(picture)


def test_flags() -> None:
    assert check(EDGE, UpscaleOptions, {"scale": "4"}).scale == 4
    with pytest.raises(ConjureError, match="--scale: expected one of 2, 4, got 3"):
        check(EDGE, UpscaleOptions, {"scale": "3"})
