"""Provenance in pictures, read back with Pillow alone, as any other program would."""

from __future__ import annotations

import dataclasses
import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL.PngImagePlugin import PngInfo

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.provenance import TRAINED_MEDIA, Record
from conjure.media.stamp import parameters, xmp

PICTURE = media.Image(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
RECORD = Record(
    version="0.1.0",
    task="text_to_image",
    model="starter/pictograms",
    weights="sha256:" + "0123456789abcdef" * 4,
    inputs=({"kind": "text", "text": 'a red äpple 🍎 <b> & "co"', "digest": "sha256:00"},),
    options={"steps": 12, "sampler": "dpmpp_2m", "guidance": 3.5, "negative": "blurry", "size": 128},
    seeds=(7, 8),
    index=1,
)
SUFFIXES = [".png", ".jpg", ".webp"]
RDF, IPTC = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}", "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"


def opened(suffix: str, record: Record = RECORD) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(media.encode(PICTURE, suffix, record)))


def packet(suffix: str, record: Record = RECORD) -> str:
    info = opened(suffix, record).info
    return info["XML:com.adobe.xmp"] if suffix == ".png" else info["xmp"].decode("utf-8")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    path = media.write(PICTURE, tmp_path / f"a{suffix}", RECORD)
    assert media.read_provenance(path) == RECORD
    media.write(PICTURE, path)
    assert media.read_provenance(path) is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bytes_are_the_same_every_time_and_pixels_the_same_as_without(suffix: str) -> None:
    stamped = media.encode(PICTURE, suffix, RECORD)
    assert stamped == media.encode(PICTURE, suffix, dataclasses.replace(RECORD))
    assert stamped != media.encode(PICTURE, suffix, dataclasses.replace(RECORD, index=0))
    plain = media.read(media.encode(PICTURE, suffix))
    assert np.array_equal(media.read(stamped).pixels, plain.pixels)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_xmp_says_digital_source_type_and_description(suffix: str) -> None:
    tree = ElementTree.fromstring(packet(suffix).split("?>", 1)[1].rsplit("<?", 1)[0])
    about = tree.find(f"{RDF}RDF/{RDF}Description")
    assert about is not None
    assert about.findtext(f"{IPTC}DigitalSourceType") == TRAINED_MEDIA
    assert about.findtext("{http://ns.adobe.com/xap/1.0/}CreatorTool") == "conjure 0.1.0 (starter/pictograms)"
    description = about.find("{http://purl.org/dc/elements/1.1/}description")
    assert description is not None
    assert description.findtext(f"{RDF}Alt/{RDF}li") == RECORD.prompt


def test_xmp_is_xml_whatever_the_prompt() -> None:
    for prompt in ("]]><x>&amp;", "\x00\x01\x0b\x1f\ufffe", "a\tb\nc", "x" * 100_000, ""):
        record = dataclasses.replace(RECORD, inputs=({"kind": "text", "text": prompt, "digest": "d"},))
        inner = xmp(record).split("?>", 1)[1].rsplit("<?", 1)[0]
        assert TRAINED_MEDIA in "".join(ElementTree.fromstring(inner).itertext())


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_exif(suffix: str) -> None:
    exif = opened(suffix).getexif()
    comment = exif.get_ifd(0x8769)[0x9286]
    assert comment == b'ASCII\0\0\0{"conjure": ' + RECORD.to_json().encode("ascii") + b"}"
    assert exif[0x0131] == "conjure 0.1.0"
    assert exif[0x010E].startswith("a red ")


def test_png_parameters_are_in_the_well_known_format() -> None:
    assert opened(".png").info["parameters"] == (
        'a red äpple 🍎 <b> & "co"\n'
        "Negative prompt: blurry\n"
        "Steps: 12, Sampler: dpmpp_2m, CFG scale: 3.5, Seed: 8, Size: 5x4, Model: starter/pictograms, "
        "Model hash: 0123456789, Version: conjure 0.1.0"
    )


def test_parameters_leave_out_what_is_not_there() -> None:
    record = Record("1", "t", "a, b", "", ({"kind": "text", "text": "hi", "digest": "d"},))
    assert parameters(record, (3, 2)) == 'hi\nSize: 3x2, Model: "a, b", Version: conjure 1'


def test_long_prompts_fit_a_png_and_a_jpeg_says_so() -> None:
    record = dataclasses.replace(RECORD, inputs=({"kind": "text", "text": "x" * 70_000, "digest": "d"},))
    assert (
        PIL.Image.open(io.BytesIO(media.encode(PICTURE, ".png", record))).info["conjure"] == record.to_json()
    )
    for suffix in (".jpg", ".webp"):
        with pytest.raises(ConjureError, match="have room for 60,000") as caught:
            media.encode(PICTURE, suffix, record)
        assert ".png" in caught.value.hint


# -- what others wrote ------------------------------------------------------------------------------------


def png(tmp_path: Path, chunks: PngInfo) -> Path:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(PICTURE.pixels).save(path, pnginfo=chunks)
    return path


@pytest.mark.parametrize(
    "value", ["", "{", "5", "{}", '{"task": []}', "[" * 50_000, '{"task": "\\ud800"}', "x" * 1_100_000]
)
def test_hostile_records_in_png(tmp_path: Path, value: str) -> None:
    for add in ("add_text", "add_itxt"):
        chunks = PngInfo()
        getattr(chunks, add)("conjure", value)
        path = png(tmp_path, chunks)
        with pytest.raises(ConjureError) as caught:
            media.read_provenance(path)
        assert len(str(caught.value)) < 1000
        assert np.array_equal(media.read(path).pixels, PICTURE.pixels)


def test_a_compressed_text_bomb_in_png(tmp_path: Path) -> None:
    chunks = PngInfo()
    chunks.add_text("conjure", "x" * 5_000_000, zip=True)
    with pytest.raises(ConjureError):
        media.read_provenance(png(tmp_path, chunks))


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        (b"", None),
        (b"ASCII\0\0\0taken on holiday", None),
        (b"UNICODE\0h\0i\0", None),
        (b'ASCII\0\0\0{"other": 1}', None),
        (b"\xff\xfe\xfd", None),
        (b'ASCII\0\0\0{"conjure": ', ConjureError),
        (b'ASCII\0\0\0{"conjure": {}}', ConjureError),
        (b'ASCII\0\0\0{"conjure": 5}', ConjureError),
        (b'ASCII\0\0\0{"conjure": ' + b"[" * 40_000, ConjureError),
        (b'ASCII\0\0\0{"conjure": {"task": "\xff"}}', ConjureError),
    ],
)
def test_foreign_comments_and_hostile_records_in_jpeg(
    tmp_path: Path, comment: bytes, expected: object
) -> None:
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(PICTURE.pixels).save(path, exif=exif)
    if expected is None:
        assert media.read_provenance(path) is None
    else:
        with pytest.raises(ConjureError):
            media.read_provenance(path)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_exif_is_no_traceback(tmp_path: Path, exif: bytes) -> None:
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(PICTURE.pixels).save(path, exif=exif)
    try:
        assert media.read_provenance(path) is None
    except ConjureError as error:
        assert "damaged" in error.message


def test_records_that_another_program_moved_behind_the_pixels(tmp_path: Path) -> None:
    data = media.encode(PICTURE, ".png", RECORD)
    start = data.index(b"iTXtconjure") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    moved = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    (tmp_path / "a.png").write_bytes(moved)
    assert media.read_provenance(tmp_path / "a.png") == RECORD
