from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Warn
from conjure.core.provenance import ENHANCED_MEDIA
from conjure.media import read, read_provenance
from conjure.media.image import Image


def scene(alpha: bool = False) -> Image:
    pixels = np.full((40, 40, 3), 250, np.uint8)
    pixels[10:30, 10:30] = (200, 30, 40)
    if alpha:
        pixels = np.concatenate([pixels, np.full((40, 40, 1), 255, np.uint8)], -1)
        pixels[10:20, :, 3] = 0
    return Image(pixels)


def test_a_square_is_cut_out_and_can_be_made_again(tmp_path: Path) -> None:
    scene().save(tmp_path / "in.png")
    conjure.make(tmp_path / "in.png", task="cutout", output=tmp_path / "out.png")
    made = read(tmp_path / "out.png")
    assert isinstance(made, Image) and made.pixels.shape == (40, 40, 4)
    inside = np.zeros((40, 40), bool)
    inside[10:30, 10:30] = True
    assert ((made.pixels[..., 3] == 255) == inside).all() and (made.pixels[inside][:, :3] == (200, 30, 40)).all()
    record = read_provenance(tmp_path / "out.png")
    assert record is not None and record.source_type == ENHANCED_MEDIA and (record.model, record.weights) == ("", "")
    assert np.array_equal(conjure.remake(tmp_path / "out.png").pixels, made.pixels)


def test_what_was_transparent_stays_so() -> None:
    made = conjure.make(scene(alpha=True), task="cutout")
    assert (made.pixels[10:20, :, 3] == 0).all() and (made.pixels[20:30, 10:30, 3] == 255).all()


def test_what_cannot_be_cut() -> None:
    with pytest.raises(ConjureError, match="background throughout"):
        conjure.make(Image(np.full((8, 8, 3), 9, np.uint8)), task="cutout")
    with pytest.raises(ConjureError, match="no model takes part"):
        conjure.make(scene(), task="cutout", model="starter/pictograms")
    said: list[Event] = []
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    conjure.make(Image(noise), task="cutout", on_event=said.append)
    assert any(isinstance(each, Warn) and "gaps" in each.text for each in said)
