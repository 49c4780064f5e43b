from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from conjure.data.captions import COLOUR_NUMBERS, DigitCaptions, SceneCaptions
from conjure.data.digits import NAMES
from conjure.data.phrases import spoken
from conjure.data.scene_graph import BACKGROUNDS
from tests.data.shapes import SIDE, shapes, vocabulary


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten training and ten test digits: picture k is filled with k, or 100 + k."""
    (tmp_path / "mnist").mkdir()
    for prefix, offset in (("train", 0), ("t10k", 100)):
        labels_N = np.arange(10, dtype=np.uint8)
        pictures_NHW = (labels_N[:, None, None] + offset).repeat(28, 1).repeat(28, 2).astype(np.uint8)
        for kind, values in (("images-idx3", pictures_NHW), ("labels-idx1", labels_N)):
            head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (tmp_path / "mnist" / f"{prefix}-{kind}-ubyte").write_bytes(head + values.tobytes())
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))


def test_an_example_is_a_scene_its_caption_and_its_places() -> None:
    captions = SceneCaptions(shapes())
    for index in range(40):
        scene, example = shapes().scene(3, index, "test"), captions.example(3, index, "test")
        assert np.array_equal(example.pixels, shapes().paint(scene)) and example.caption == shapes().caption(scene)
        assert example.places == tuple((t.concept, t.x, t.y, t.scale, COLOUR_NUMBERS[t.colour]) for t in scene.things)
        again = SceneCaptions(shapes()).example(3, index, "test")
        assert again.caption == example.caption and np.array_equal(again.pixels, example.pixels)


def test_a_page_shows_its_thing_over_the_whole_canvas_on_white() -> None:
    captions = SceneCaptions(shapes())
    assert len(captions.pages) == len(shapes().pictograms)
    page, picture = captions.pages[0], shapes().pictures[0]
    assert page.shape == (SIDE, SIDE, 3)
    expected = np.where(picture[..., 3:] > 0, picture[..., :3], BACKGROUNDS["white"])
    assert np.abs(page.astype(int) - expected).max() <= 1


def test_names_lead_to_their_pages() -> None:
    names = {}
    for name in SceneCaptions(shapes()).names:
        names.setdefault(name.phrase, name)
    for page, pictogram in enumerate(shapes().pictograms):
        assert (names[spoken(pictogram.name)].page, names[spoken(pictogram.name)].plural) == (page, False)
        for synonym in shapes().synonyms[page]:
            assert names[synonym].page == page
    assert (names["berries"].page, names["berries"].plural) == (names["berry"].page, True)
    assert names["old women"].plural and names["timers"].page == names["hourglass"].page


def test_previews_and_grammar_can_be_read() -> None:
    captions = SceneCaptions(shapes())
    assert "left" in captions.grammar and captions.grammar == sorted(captions.grammar)
    assert len(captions.prompts) % 2 == 0
    assert vocabulary().unknown("six tiny green berries, on a grey background") == {}


def test_digits_with_their_names(mnist: None) -> None:
    digits = DigitCaptions()
    seen = [digits.example(0, index) for index in range(10)]
    assert sorted(e.caption for e in seen) == sorted(NAMES) == sorted(digits.grammar)
    for example in seen:
        assert example.pixels.shape == (28, 28, 1) and example.places == ()
        assert (example.pixels == NAMES.index(example.caption)).all()
    assert (digits.example(0, 3, "test").pixels >= 100).all()
    assert not digits.pages and not digits.names


def test_the_order_of_digits_is_a_function_of_the_seed(mnist: None) -> None:
    one, other = ([DigitCaptions().example(seed, i).caption for i in range(20)] for seed in (0, 1))
    assert one != other
    digits = DigitCaptions()
    assert [digits.example(1, i).caption for i in range(20)] == other
    assert [digits.example(0, i).caption for i in range(20)] == one
