from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.media import read
from conjure.media.image import Image
from conjure.models.gan import GANConfig
from conjure.tasks.gan import GANData, SampleGAN
from conjure.tasks.memorisation import FILE, HEADING, Sets, checked, write
from conjure.tasks.training import check_copies
from tests.data.handwriting import write_mnist


def noise(count: int, seed: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_copies_are_found_and_stand_beside_what_they_copy() -> None:
    train = noise(60, 0)
    found, sheet = checked(Sets(made_NHWC=train[20:40], train_MHWC=train, held_out_HHWC=noise(50, 1)))
    assert found.nearer.value == 1.0 and found.copies.value == 1.0
    assert found.nearest.index_N.tolist() == list(range(20, 40))
    cell = sheet.pixels[: sheet.height // 4, : sheet.width // 4]
    picture = train[20].repeat(12, 0).repeat(12, 1)
    assert np.array_equal(cell[6:102, 6:102], picture) and np.array_equal(cell[6:102, 104:200], picture)


def test_new_pictures_are_as_near_as_held_out_ones() -> None:
    found, _ = checked(Sets(made_NHWC=noise(300, 2), train_MHWC=noise(100, 0), held_out_HHWC=noise(300, 1)))
    assert found.nearer.low < 0.5 < found.nearer.high


def test_large_pictures_are_compared_small() -> None:
    train = noise(20, 0, side=64)
    shifted = train.copy()
    shifted[:, ::2] = train[:, 1::2]  # rows change places within what becomes one pixel
    shifted[:, 1::2] = train[:, ::2]
    found, _ = checked(Sets(made_NHWC=shifted, train_MHWC=train, held_out_HHWC=noise(20, 1, side=64)))
    assert found.nearest.distance_N.max() < 1e-6


def test_pictures_of_several_sizes_are_refused() -> None:
    with pytest.raises(ConjureError, match="one size"):
        checked(Sets(made_NHWC=noise(12, 0), train_MHWC=noise(12, 1, side=9), held_out_HHWC=noise(12, 2)))


def test_the_card_says_it_once(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# model\n\n## Limits\n\nIt knows nothing.\n")
    train = noise(30, 0)
    write(tmp_path, Sets(made_NHWC=train[:20], train_MHWC=train, held_out_HHWC=noise(30, 1)))
    card.write_text(card.read_text() + "\n## After\n\nKept.\n")
    write(tmp_path, Sets(made_NHWC=noise(20, 3), train_MHWC=train, held_out_HHWC=noise(30, 1)))
    said = card.read_text()
    assert said.count(HEADING) == 1 and "100.0%" not in said
    assert said.startswith("# model") and "It knows nothing." in said and said.endswith("## After\n\nKept.\n")
    sheet = read(tmp_path / FILE)
    assert isinstance(sheet, Image) and sheet.width == 4 * 206


def test_a_trained_folder_is_checked_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "mnist", 60)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    monkeypatch.setattr("conjure.tasks.gan.LOOKED", 24)
    task = SampleGAN.create(GANConfig(latent=8, widths=(8, 6)), GANData(block=4))
    torch.nn.init.normal_(task.network.generator.first.weight)
    task.save(tmp_path / "m")
    figures = check_copies(tmp_path / "m")
    assert figures["nearer_than_held_out"]["n"] == 24 and HEADING in (tmp_path / "m" / "README.md").read_text()
    with pytest.raises(ConjureError, match="nothing that could be a copy"):
        check_copies("starter/features-mnist")
