from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from conjure import media
from conjure.core.errors import ConjureError
from conjure.media.image import Image, decode, grid


def noise(height: int = 20, width: int = 30, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(picture: PIL.Image.Image, picture_format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, picture_format, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size by its header, with ten bytes of pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


# -- the value --------------------------------------------------------------------------------------------


def test_sizes_and_digest() -> None:
    image = Image(noise(2, 3))
    assert (image.kind, image.height, image.width) == ("image", 2, 3)
    assert image.digest() == Image(noise(2, 3)).digest()
    assert image.digest() != Image(noise(2, 3, seed=1)).digest()
    assert Image(np.zeros((2, 3, 3), np.uint8)).digest() != Image(np.zeros((3, 2, 3), np.uint8)).digest()
    assert Image(noise(4, 4)[:, ::-1]).digest() == Image(noise(4, 4)[:, ::-1].copy()).digest()


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2), (2, 3, 5), (0, 3, 3), (2, 0, 3), (1, 2, 3, 3)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConjureError, match="expected pixels"):
        Image(np.zeros(shape, np.uint8))


def test_wrong_types_are_refused() -> None:
    with pytest.raises(ConjureError, match="float32"):
        Image(np.zeros((2, 2, 3), np.float32))


def test_grid() -> None:
    images = [Image(noise(2, 3, seed=k)) for k in range(5)]
    sheet = grid(images)
    assert sheet.pixels.shape == (4, 9, 3)
    assert np.array_equal(sheet.pixels[2:, 3:6], images[4].pixels)
    assert np.all(sheet.pixels[2:, 6:] == 255)
    assert grid(images, columns=1).pixels.shape == (10, 3, 3)
    assert grid(images[:1], columns=4).pixels.shape == (2, 3, 3)
    mixed = grid([Image(noise(2, 2, 1)), Image(noise(4, 3))])
    assert mixed.pixels.shape == (4, 6, 3)
    for wrong in (lambda: grid([]), lambda: grid(images, columns=-1)):
        with pytest.raises(ConjureError, match="at least one"):
            wrong()


# -- writing and reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_lossless_formats_keep_every_pixel(suffix: str) -> None:
    assert np.array_equal(decode(media.encode(Image(noise()), suffix), "x").pixels, noise())


def test_jpeg_is_close() -> None:
    across = np.linspace(0, 255, 64)[None, :, None] * np.ones((64, 1, 3))
    smooth = across.astype(np.uint8)
    again = decode(media.encode(Image(smooth), ".jpg"), "x").pixels
    assert np.abs(again.astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bytes_are_the_same_every_time(suffix: str, channels: int) -> None:
    image = Image(noise(channels=channels))
    assert media.encode(image, suffix) == media.encode(Image(image.pixels.copy()), suffix.upper())


def test_grey_and_transparent_pictures_are_written() -> None:
    grey = noise(channels=1)
    assert np.array_equal(decode(media.encode(Image(grey), ".png"), "x").pixels, np.repeat(grey, 3, axis=2))
    clear = noise(channels=4)
    assert np.array_equal(decode(media.encode(Image(clear), ".png"), "x").pixels, clear)
    for suffix in (".png", ".webp"):
        with PIL.Image.open(io.BytesIO(media.encode(Image(clear), suffix))) as picture:
            assert picture.mode == "RGBA"
    blank = np.zeros((8, 8, 4), np.uint8)
    assert decode(media.encode(Image(blank), ".jpg"), "x").pixels.min() >= 254


def test_formats_say_what_they_cannot_hold() -> None:
    wide = Image(np.zeros((1, 16_384, 3), np.uint8))
    with pytest.raises(ConjureError, match="at most 16,383") as caught:
        media.encode(wide, ".webp")
    assert ".png" in caught.value.hint
    assert decode(media.encode(wide, ".png"), "x").width == 16_384


# -- every kind of picture becomes RGB --------------------------------------------------------------------


def test_transparency_is_kept_and_composited_on_white() -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128], [10, 20, 30, 1]]], np.uint8)
    expected = [[[255, 0, 0], [255, 255, 255], [127, 127, 127], [254, 254, 254]]]
    image = decode(saved(PIL.Image.fromarray(rgba)), "x")
    assert np.array_equal(image.pixels, rgba)
    assert image.alpha().tolist() == [[255, 0, 128, 1]]  # type: ignore[union-attr]
    assert image.rgb().tolist() == expected


def test_an_alpha_that_hides_nothing_is_left_out() -> None:
    opaque = np.dstack([noise(), np.full((20, 30), 255, np.uint8)])
    image = decode(saved(PIL.Image.fromarray(opaque)), "x")
    assert image.alpha() is None and np.array_equal(image.pixels, noise())
    assert image.digest() == Image(noise()).digest()


def test_palettes() -> None:
    picture = PIL.Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putdata([0, 1])
    assert decode(saved(picture), "x").pixels.tolist() == [[[255, 0, 0], [0, 255, 0]]]
    assert decode(saved(picture, transparency=0), "x").rgb().tolist() == [[[255, 255, 255], [0, 255, 0]]]
    assert decode(saved(picture, transparency=b"\x80\xff"), "x").rgb()[0, 0].tolist() == [255, 127, 127]
    assert decode(saved(picture, transparency=0), "x").pixels[0, 0, 3] == 0


def test_grey_with_alpha_and_bilevel() -> None:
    grey = PIL.Image.new("LA", (1, 1), (0, 51))
    assert decode(saved(grey), "x").rgb().tolist() == [[[204, 204, 204]]]
    assert decode(saved(PIL.Image.new("1", (1, 1), 1)), "x").pixels.tolist() == [[[255, 255, 255]]]
    assert decode(saved(PIL.Image.new("L", (1, 1), 0), transparency=0), "x").rgb().tolist() == [[[255] * 3]]


@pytest.mark.parametrize("picture_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_rounded_to_eight(picture_format: str) -> None:
    deep = np.array([[0, 128, 129, 32768, 65535]], np.uint16)
    pixels = decode(saved(PIL.Image.fromarray(deep), picture_format), "x").pixels
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert pixels.shape == (1, 5, 3)


def test_sixteen_bit_colour_png() -> None:
    rows = b"\0" + struct.pack(">6H", 65535, 0, 32768, 0, 65535, 257)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    pixels = decode(b"\x89PNG\r\n\x1a\n" + parts, "x").pixels
    assert np.abs(pixels.astype(int) - [[[255, 0, 128], [0, 255, 1]]]).max() <= 1


def test_floating_point_tiff() -> None:
    values = np.array([[0.0, 0.5, 1.0, 7.0, -1.0, np.nan]], np.float32)
    assert decode(saved(PIL.Image.fromarray(values), "TIFF"), "x").pixels[0, :, 0].tolist() == [
        0,
        128,
        255,
        255,
        0,
        0,
    ]


@pytest.mark.parametrize("picture_format", ["JPEG", "TIFF"])
def test_cmyk(picture_format: str) -> None:
    picture = PIL.Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = decode(saved(picture, picture_format), "x").pixels[8, 8]
    assert red[0] > 240
    assert red[1:].max() < 15


@pytest.mark.parametrize("picture_format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(picture_format: str) -> None:
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if picture_format == "WEBP" else {}
    data = saved(frames[0], picture_format, save_all=True, append_images=frames[1:], duration=100, **options)
    assert decode(data, "x").pixels[0, 0, :3].tolist() == [255, 0, 0]
    assert decode(data, "x").frames == 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("picture_format", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation(orientation: int, picture_format: str) -> None:
    upright = PIL.Image.fromarray(noise(3, 5))
    turns = PIL.Image.Transpose
    undo = {  # how the camera held the picture, by the EXIF standard, table 4
        1: None,
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_90,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = PIL.Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if picture_format == "WEBP" else {}
    assert np.array_equal(
        decode(saved(stored, picture_format, exif=exif, **options), "x").pixels, noise(3, 5)
    )


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\xff" * 50])
def test_damaged_metadata_does_not_spoil_the_picture(exif: bytes) -> None:
    data = saved(PIL.Image.fromarray(noise()), "PNG", exif=exif)
    assert np.array_equal(decode(data, "x").pixels, noise())


# -- bounds -----------------------------------------------------------------------------------------------


def test_an_enormous_picture_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    path.write_bytes(png_header(60_000, 60_000))
    for ask in (media.read, media.read_provenance):
        with pytest.raises(ConjureError, match="at most 100,000,000 pixels, got 60,000 x 60,000") as caught:
            ask(path)
        assert "CONJURE_MAX_PIXELS" in caught.value.hint


def test_the_bound_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(PIL.Image.fromarray(noise(10, 10)))
    monkeypatch.setenv("CONJURE_MAX_PIXELS", "99")
    with pytest.raises(ConjureError, match="at most 99 pixels, got 10 x 10 = 100"):
        decode(data, "x")
    monkeypatch.setenv("CONJURE_MAX_PIXELS", "100")
    assert decode(data, "x").width == 10


def test_only_our_bound_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    assert np.array_equal(decode(saved(PIL.Image.fromarray(noise())), "x").pixels, noise())
    assert PIL.Image.MAX_IMAGE_PIXELS == 10


def test_what_does_not_fit_into_memory_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_MAX_PIXELS", "4000000000")
    with pytest.raises(ConjureError, match="200,000,000 x 1 pixels do not fit"):
        decode(png_header(200_000_000, 1), "x")  # a row longer than Pillow takes


def test_the_bound_of_pillow_is_put_back() -> None:
    before = PIL.Image.MAX_IMAGE_PIXELS
    for data in (png_header(60_000, 60_000), b"hello"):
        with pytest.raises(ConjureError):
            decode(data, "x")
    assert before == PIL.Image.MAX_IMAGE_PIXELS


def test_files_larger_than_any_picture_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONJURE_MAX_PIXELS", "1000")
    path = tmp_path / "a.png"
    with open(path, "wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(ConjureError, match="at most 1,000 pixels"):
        media.read(path)


# -- bad files --------------------------------------------------------------------------------------------


def test_a_text_file_named_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello, I am a text")
    with pytest.raises(ConjureError, match=r"expected a picture .* the content is text"):
        media.read(tmp_path / "a.png")


def test_empty_missing_folder_and_other_content(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    with pytest.raises(ConjureError, match="the file is empty"):
        media.read(path)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\xff")  # a format that would start another program
    with pytest.raises(ConjureError, match="something else"):
        media.read(path)
    os.remove(path)
    with pytest.raises(ConjureError, match="no such file"):
        media.read(path)
    path.mkdir()
    with pytest.raises(ConjureError, match="this is a folder"):
        media.read(path)


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_pictures(picture_format: str) -> None:
    data = saved(PIL.Image.fromarray(noise(40, 40)), picture_format)
    for part in (12, len(data) // 4, len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(ConjureError):
            decode(data[:part], "x")


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_pictures_are_pictures_or_our_error(
    picture_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONJURE_MAX_PIXELS", "10000")
    exif = PIL.Image.Exif()
    exif[274] = 6
    options = {"exif": exif} if picture_format not in ("GIF", "BMP") else {}
    whole = saved(PIL.Image.fromarray(noise(9, 9)), picture_format, **options)
    draw = random.Random(picture_format)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(min(len(data), 200))] = draw.randrange(256)
        try:
            assert decode(bytes(data), "x").pixels.ndim == 3
        except ConjureError:
            continue
