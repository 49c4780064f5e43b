from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.data.pictures_small import SmallPictures
from conjure.tasks.picture_figures import picture_figures, spread
from tests.data.handwriting import write_mnist


def test_test_pictures_are_their_own_equals_and_noise_is_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "mnist", 120)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    source = SmallPictures("mnist", "test")
    some = spread(source, 60)
    assert np.array_equal(some, source.pixels_NHWC[::2]) and len(spread(source, 1000)) == 120
    own = picture_figures(some, "mnist")
    assert own["frechet_distance"]["value"] == pytest.approx(0, abs=1e-6)
    assert own["precision"]["value"] == own["recall"]["value"] == 1
    assert "features-mnist" in own["kernel_distance"]["protocol"] and own["recall"]["n"] == 60
    noise = np.random.default_rng(0).integers(0, 256, some.shape).astype(np.uint8)
    far = picture_figures(noise, "mnist")
    assert far["frechet_distance"]["value"] > 10 and far["precision"]["value"] < 0.1


def test_features_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConjureError, match="runs/features-cifar") as caught:
        picture_figures(np.zeros((20, 32, 32, 3), np.uint8), "cifar10")
    assert caught.value.hint == "conjure train features-cifar"
