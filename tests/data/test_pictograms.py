from __future__ import annotations

import gzip
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from conjure.core.errors import ConjureError
from conjure.data import pictograms
from conjure.data.pictograms import Pictogram, load, resized, without_white
from tests.data.debian import write_deb
from tests.data.toy_font import INK, build

EMOJI_TEST = """\
# group: Food & Drink
# subgroup: food-fruit
1F34E                 ; fully-qualified     # 🍎 E0.6 red apple
1F34F                 ; fully-qualified     # 🍏 E0.6 green apple
2600 FE0F             ; fully-qualified     # ☀️ E0.6 sun
2665                  ; unqualified         # ♥ E0.6 heart suit
# group: People & Body
# subgroup: hand-fingers-open
1F44B                 ; fully-qualified     # 👋 E0.6 waving hand
1F44B 1F3FB           ; fully-qualified     # 👋🏻 E1.0 waving hand: light skin tone
1F9AF                 ; fully-qualified     # 🦯 E12.0 white cane
# group: Flags
# subgroup: country-flag
1F1E7 1F1FB           ; fully-qualified     # 🇧🇻 E2.0 flag: Bouvet Island
1F1F3 1F1F4           ; fully-qualified     # 🇳🇴 E0.6 flag: Norway
"""
CLDR = """<ldml><annotations>
<annotation cp="🍎">apple | fruit | red</annotation><annotation cp="🍎" type="tts">red apple</annotation>
<annotation cp="☀">bright | sun</annotation></annotations></ldml>"""
DERIVED = """<ldml><annotations><annotation cp="🇳🇴">flag</annotation>
<annotation cp="👋🏻">hand | light skin tone</annotation></annotations></ldml>"""
GREEN, RED, BLUE, PALE = (10, 200, 10), (220, 20, 30), (20, 30, 220), (250, 220, 190)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONJURE_OFFLINE", "1")
    return tmp_path / "cache" / "pictograms"


@pytest.fixture
def noto(tmp_path: Path) -> Path:
    """Three Debian packages as the origin has them, with eight pictograms; the font lacks the white cane."""
    folder = tmp_path / "data" / "noto_emoji"
    folder.mkdir(parents=True)
    apart = "\N{SMILING FACE WITH OPEN MOUTH AND TIGHTLY-CLOSED EYES}"
    font = build({
        "🍎": RED, "🍏": GREEN, "☀": RED, apart: GREEN, "👋": PALE, "👋🏻": BLUE, "🇧🇻": BLUE, "🇳🇴": BLUE,
    })  # fmt: skip
    names = EMOJI_TEST + f"1F606 ; fully-qualified # {apart} E0.6 grinning squinting face\n"
    write_deb(folder / "fonts-noto-color-emoji_1_all.deb", {f".{pictograms._FONT}": font})
    write_deb(folder / "unicode-data_1_all.deb", {f".{pictograms._NAMES}": names.encode()})
    annotations = {f".{name}": text.encode() for name, text in zip(pictograms._KEYWORDS, (CLDR, DERIVED))}
    write_deb(folder / "unicode-cldr-core_1_all.deb", annotations)
    return folder


def test_names_keywords_and_order(noto: Path) -> None:
    found, pictures_NHWC = load(skin_tones=True)
    assert [entry.name for entry in found] == [
        "red apple", "green apple", "sun", "waving hand", "waving hand: light skin tone",
        "flag: Bouvet Island", "flag: Norway",
    ]  # fmt: skip
    assert found[0] == Pictogram(
        "red apple", ("apple", "fruit", "red"), "Food & Drink", "food-fruit", "🍎", "1f34e", False, None
    )
    assert found[1].keywords == ("green apple",)  # no annotation: its name
    assert found[2].codepoint == "2600-fe0f" and found[2].keywords == ("bright", "sun")
    assert found[4].skin_tone and found[4].keywords == ("hand", "light skin tone")
    assert found[6].emoji == "🇳🇴" and found[6].group == "Flags" and found[6].keywords == ("flag",)
    assert pictures_NHWC.shape == (7, 128, 128, 4) and pictures_NHWC.dtype == np.uint8


def test_twins_point_to_the_first_that_looks_the_same(noto: Path) -> None:
    found, _ = load(skin_tones=True)
    assert {entry.name: entry.duplicate_of for entry in found if entry.duplicate_of} == {
        "sun": "1f34e", "flag: Bouvet Island": "1f44b-1f3fb", "flag: Norway": "1f44b-1f3fb",
    }  # fmt: skip


def test_pictures_are_the_fonts_own_pixels(noto: Path) -> None:
    found, pictures_NHWC = load(skin_tones=True)
    apple_HWC, ink = pictures_NHWC[0], slice(INK.start - 4, INK.stop - 4)
    assert np.abs(apple_HWC[10:118, ink].astype(int) - (*RED, 255)).max() <= 1  # the palette rounds
    assert np.abs(apple_HWC[10:118, ink.start - 1].astype(int) - (*RED, 128)).max() <= 1
    apple_HWC[10:118, ink.start - 1 : ink.stop] = 0
    assert not apple_HWC.any()  # nothing else; colour is 0 where alpha is 0
    # sequences come through the ligatures: the hand with a tone is not the hand
    centres_NC = pictures_NHWC[:, 64, 64, :3].astype(int)
    for i, colour in enumerate((RED, GREEN, RED, PALE, BLUE, BLUE, BLUE)):
        assert i == 0 or np.abs(centres_NC[i] - colour).max() <= 1, found[i].name


def test_variants_and_flags_are_left_out_on_request(noto: Path) -> None:
    everything, pictures_NHWC = load(skin_tones=True)
    for tones in (False, True):
        for flags in (False, True):
            found, kept_NHWC = load(skin_tones=tones, flags=flags)
            places = [
                i for i, entry in enumerate(everything)
                if (tones or not entry.skin_tone) and (flags or entry.group != "Flags")
            ]  # fmt: skip
            assert found == [everything[i] for i in places]
            assert (kept_NHWC == pictures_NHWC[places]).all()


def test_the_second_load_needs_only_the_cache(
    noto: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, pictures_NHWC = load()
    for package in noto.iterdir():
        package.unlink()
    monkeypatch.setitem(sys.modules, "fontTools.ttLib", None)
    again, same_NHWC = load()
    assert again == first and (same_NHWC == pictures_NHWC).all()
    file = next(cache.glob("*plain.npz"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConjureError, match="could not be read") as caught:
        load()
    assert "it is built again" in caught.value.hint


def test_what_is_missing_is_said(noto: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fontTools.ttLib", None)
    with pytest.raises(ConjureError, match="fontTools") as caught:
        load()
    assert "pip install fonttools" in caught.value.hint
    (noto / "unicode-data_1_all.deb").unlink()
    with pytest.raises(ConjureError, match=r"unicode-data_\*\.deb"):
        load()


def test_without_either_set_the_message_names_the_full_size_one() -> None:
    with pytest.raises(ConjureError, match="'noto_emoji' is not on this machine"):
        load()


def test_resizing_keeps_edges_clean() -> None:
    # an opaque white square on transparent black: straight-alpha resizing would darken its rim
    pictures_NHWC = np.zeros((1, 128, 128, 4), np.uint8)
    pictures_NHWC[:, 33:95, 33:95] = 255
    small_HWC = resized(pictures_NHWC, 48)[0]
    assert small_HWC.shape == (48, 48, 4)
    seen_HW = small_HWC[..., 3] > 8
    assert 8 < small_HWC[seen_HW][:, 3].min() < 200  # a soft rim ...
    assert small_HWC[seen_HW][:, :3].min() >= 224  # ... that is white all the same
    assert not small_HWC[small_HWC[..., 3] == 0].any()
    assert resized(pictures_NHWC, 128) is pictures_NHWC


def test_white_inside_stays_and_white_around_goes() -> None:
    picture_HWC = np.full((9, 9, 3), 255, np.uint8)
    picture_HWC[2:7, 2:7] = 30  # a ring ...
    picture_HWC[3:6, 3:6] = 255  # ... with a white eye
    cut_HWC = without_white(picture_HWC[None])[0]
    inside_HW = np.zeros((9, 9), bool)
    inside_HW[2:7, 2:7] = True
    assert (cut_HWC[..., 3] == 255 * inside_HW).all()
    assert (cut_HWC[inside_HW][:, :3] == picture_HWC[inside_HW]).all() and not cut_HWC[~inside_HW].any()
    # a way out that winds is followed to its end
    picture_HWC[3, 2] = picture_HWC[2, 2] = 255
    assert without_white(picture_HWC[None])[0, 4, 4, 3] == 0


def test_small_copies_stand_in_at_the_same_scale(tmp_path: Path, noto: Path) -> None:
    sharp, sharp_NHWC = load()
    for package in noto.iterdir():
        package.unlink()
    noto.rmdir()
    for built in (tmp_path / "cache" / "pictograms").iterdir():
        built.unlink()
    folder = tmp_path / "data" / "emoji"
    folder.mkdir()
    rows = []
    with zipfile.ZipFile(folder / "images_64.zip", "w") as out:
        for entry, picture_HWC in zip(sharp, sharp_NHWC):
            canvas = PillowImage.new("RGBA", (144, 144), "white")
            canvas.alpha_composite(PillowImage.fromarray(picture_HWC), (8, 8))
            buffer = io.BytesIO()
            canvas.convert("RGB").resize((64, 64), PillowImage.Resampling.BOX).save(buffer, "PNG")
            out.writestr(f"{entry.codepoint}.png", buffer.getvalue())
            row = {"file": f"{entry.codepoint}.png", "caption": entry.name, "keywords": entry.keywords}
            same = ("group", "subgroup", "emoji", "skin_tone", "duplicate_of")
            rows.append(row | {key: getattr(entry, key) for key in same})
    (folder / "captions.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    soft, soft_NHWC = load()
    assert soft == sharp
    assert np.abs(soft_NHWC.astype(int) - sharp_NHWC)[:, 24:104, 24:104].max() <= 2  # well inside
    for soft_HWC, sharp_HWC in zip(soft_NHWC, sharp_NHWC):
        boxes = [PillowImage.fromarray(picture[..., 3] // 128).getbbox() for picture in (soft_HWC, sharp_HWC)]
        assert np.abs(np.subtract(*boxes)).max() <= 2
