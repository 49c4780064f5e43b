from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.data import pictures_small
from conjure.data.catalogue import find
from conjure.data.pictures_small import CIFAR_NAMES, SHAPES, SmallPictures, binarised, label, normal, uniform
from tests.data.handwriting import glyph, write_mnist
from tests.data.photographs import photograph, write_binary, write_jpeg


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_mnist(tmp_path / "mnist", 30)
    write_binary(tmp_path / "cifar10", 4)
    write_jpeg(tmp_path / "cifar10_jpeg", 5)
    monkeypatch.setattr(pictures_small, "_HELD_OUT", 2)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    return tmp_path


def test_digits_with_a_channel_in_an_order_for_every_epoch(sets: Path) -> None:
    source = SmallPictures("mnist", seed=1)
    pixels_BHWC, labels_B = source.batch(range(60))
    assert pixels_BHWC.shape == (60, 28, 28, 1) and pixels_BHWC.dtype == np.uint8 and labels_B.dtype == np.int64
    assert all((pixels[..., 0] == glyph(int(digit))).all() for pixels, digit in zip(pixels_BHWC, labels_B, strict=True))
    assert sorted(labels_B[:30]) == sorted(labels_B[30:]) == sorted(list(range(10)) * 3)
    assert labels_B[:30].tolist() != labels_B[30:].tolist()
    alone = source.batch([37])
    assert (alone[0][0] == pixels_BHWC[37]).all() and alone[1][0] == labels_B[37]
    assert SmallPictures("mnist", seed=2).batch(range(30))[1].tolist() != labels_B[:30].tolist()


def test_both_forms_of_the_photographs(sets: Path) -> None:
    train, test = SmallPictures("cifar10"), SmallPictures("cifar10", "test")
    assert (len(train), len(test)) == (20, 4) and train.names[6] == "frog"
    assert test.labels_N.tolist() == [0, 1, 2, 3]
    assert all((test.pixels_NHWC[k] == photograph(k, k)).all() for k in range(4))
    copy, held = SmallPictures("cifar10_jpeg"), SmallPictures("cifar10_jpeg", "test")
    assert (len(copy), len(held)) == (30, 20) and copy.labels_N[:4].tolist() == [0, 0, 0, 1]
    error = held.pixels_NHWC[2].astype(int) - photograph(1, 3)  # the second class, the first that is held out
    assert held.labels_N[2] == 1 and np.abs(error).mean() < 10
    assert all(SmallPictures(name, "test").pixels_NHWC.shape[1:] == SHAPES[name] for name in SHAPES)  # type: ignore


def test_what_is_no_cifar(sets: Path) -> None:
    archive = sets / "cifar10" / "cifar-10-binary.tgz"
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(ConjureError, match="could not be read"):
        SmallPictures("cifar10")
    (sets / "cifar10_jpeg" / "train.zip").unlink()
    with pytest.raises(ConjureError, match="expected pictures of 32 x 32"):
        SmallPictures("cifar10_jpeg")


def test_where_the_photographs_come_from() -> None:
    (origin,) = find("cifar10").origins
    assert origin.url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert origin.file == "cifar-10-binary.tgz" and not find("cifar10").ship
    assert find("cifar10_jpeg").instead == "cifar10"


def test_draws_depend_on_seed_name_and_index_alone() -> None:
    together, alone = uniform(3, "a", [5, 255, 256, 9], 7), uniform(3, "a", [256], 7)
    assert together.shape == (4, 7) and together.dtype == np.float32 and (together[2] == alone[0]).all()
    assert together.min() >= 0 and together.max() < 1
    others = (uniform(4, "a", [5], 7), uniform(3, "b", [5], 7), uniform(3, "a", [6], 7), normal(3, "a", [5], 7))
    assert all((other[0] != together[0]).any() for other in others)
    many_BD = normal(0, "a", range(1000), 20)
    assert abs(many_BD.mean()) < 0.03 and abs(many_BD.std() - 1) < 0.03
    assert np.abs(np.corrcoef(many_BD[:256].T)[0, 1:]).max() < 0.3


def test_binarised_pixels_are_white_as_often_as_they_are_bright() -> None:
    pixels_BHWC = np.broadcast_to(np.array([0, 51, 128, 255], np.uint8).reshape(1, 2, 2, 1), (4000, 2, 2, 1))
    drawn = binarised(pixels_BHWC, 0, range(4000))
    assert set(np.unique(drawn)) == {0.0, 1.0} and drawn.dtype == np.float32
    share = drawn.mean(0).flatten()
    assert share[0] == 0 and share[3] == 1 and np.allclose(share[1:3], [0.2, 128 / 255], atol=0.025)
    assert (binarised(pixels_BHWC[:1], 0, [7]) == drawn[7]).all()
    assert (binarised(pixels_BHWC, 1, range(4000)) != drawn).any()


@pytest.mark.parametrize(
    ("prompt", "found"),
    [("a frog", 6), ("Frogs!", 6), ("a picture of a ship", 8), ("7", 7), ("any", None), ("", None), ("an image", None)],
)
def test_prompts_name_a_class(prompt: str, found: int | None) -> None:
    assert label(prompt, CIFAR_NAMES) == found


@pytest.mark.parametrize("prompt", ["a frig", "a frog and a cat", "cat dog", "frog on a log"])
def test_prompts_that_do_not(prompt: str) -> None:
    with pytest.raises(ConjureError, match=r'expected one of airplane, .* or "any"') as caught:
        label(prompt, CIFAR_NAMES)
    if prompt == "a frig":
        assert "frog" in caught.value.hint
