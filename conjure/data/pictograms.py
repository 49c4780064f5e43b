"""Pictograms with their names: the glyphs of Noto Color Emoji as pictures with transparency.

Full size: the 136x128 bitmaps inside the font (data set `noto_emoji`), whose ink lies in the middle 128
columns, so 128x128 is lossless. Sequences (flags, families, skin tones) are found through the font's own
ligatures. Names, groups and order come from Unicode's emoji-test.txt, keywords from CLDR's English
annotations. Where only the 64-pixel copies on white can be had (data set `emoji`), they are enlarged and
the white around them is cut away.

120 emoji (`origins/pictograms_apart.txt`) are never loaded: no model trained here ever sees them.

Shapes: N pictograms, H and W pixels, C = red, green, blue, alpha (straight; colour is 0 where alpha is 0).
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image as PillowImage

from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.core.paths import cache_dir
from conjure.data.archives import deb_members
from conjure.data.fetch import available, get

SIDE = 128  # pixels of a full-size pictogram
_FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
_NAMES = "/usr/share/unicode/emoji/emoji-test.txt"
_KEYWORDS = tuple(
    f"/usr/share/unicode/cldr/common/{part}/en.xml" for part in ("annotations", "annotationsDerived")
)
_CACHE_FORMAT = 1  # raise it when what is built changes
_SOFT_CANVAS = 144  # full-size pixels across what a 64-pixel copy shows


@dataclass(frozen=True)
class Pictogram:
    """What is known of one picture, apart from the picture."""

    name: str  # Unicode's short name: "red apple"
    keywords: tuple[str, ...]  # CLDR: "apple", "fruit", "red"
    group: str
    subgroup: str
    emoji: str
    codepoint: str  # hexadecimal, joined by hyphens: "1f34e"
    skin_tone: bool  # a variant with a skin tone
    duplicate_of: str | None  # the code point of the first pictogram that looks the same


def load(
    size: int = SIDE, skin_tones: bool = False, flags: bool = True
) -> tuple[list[Pictogram], np.ndarray]:
    """The pictograms in Unicode's order and their pictures, uint8 `[N, size, size, 4]`.

    3,535 with `skin_tones`, 1,750 without, 254 fewer without `flags` (the group "Flags"). The first call
    builds them from the font in about fifteen seconds and keeps them in the cache.
    Raises `ConjureError` where neither data set can be had, or fontTools is missing.
    """
    entries, pictures_NHWC = _cached("plain")
    if skin_tones:
        toned, toned_NHWC = _cached("toned")
        places = np.argsort([place for place, _ in entries + toned])
        pictures_NHWC = np.concatenate((pictures_NHWC, toned_NHWC))[places]
        entries = sorted(entries + toned, key=lambda entry: entry[0])
    pictograms = [pictogram for _, pictogram in entries]
    if not flags:
        kept = [i for i, pictogram in enumerate(pictograms) if pictogram.group != "Flags"]
        pictograms, pictures_NHWC = [pictograms[i] for i in kept], pictures_NHWC[kept]
    return pictograms, resized(pictures_NHWC, size)


def resized(pictures_NHWC: np.ndarray, size: int) -> np.ndarray:
    """`[N, H, W, 4]` to `[N, size, size, 4]` (Lanczos, on premultiplied colour: no edge turns dark)."""
    if pictures_NHWC.shape[1] == size:
        return pictures_NHWC
    out_NHWC = np.empty((len(pictures_NHWC), size, size, 4), np.uint8)
    for out_HWC, picture_HWC in zip(out_NHWC, pictures_NHWC, strict=True):
        out_HWC[:] = _tidy(
            PillowImage.fromarray(picture_HWC).resize((size, size), PillowImage.Resampling.LANCZOS)
        )
    return out_NHWC


def parse_names(emoji_test: str) -> list[Pictogram]:
    """Every fully-qualified entry of emoji-test.txt, without keywords. Format: UTS #51."""
    group = subgroup = ""
    found = []
    for line in emoji_test.splitlines():
        if line.startswith("# group:"):
            group = line.removeprefix("# group:").strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.removeprefix("# subgroup:").strip()
        elif line.partition(";")[2].strip().startswith("fully-qualified"):
            points = line.partition(";")[0].split()
            emoji, _version, name = line.partition("# ")[2].split(" ", 2)
            toned = any(0x1F3FB <= int(point, 16) <= 0x1F3FF for point in points)
            code = "-".join(points).lower()
            found.append(Pictogram(name.strip(), (), group, subgroup, emoji, code, toned, None))
    return found


def parse_keywords(*annotations: bytes) -> dict[str, tuple[str, ...]]:
    """emoji without variation selectors -> keywords, from CLDR annotation files (LDML part 2)."""
    found: dict[str, tuple[str, ...]] = {}
    for text in annotations:
        for node in ElementTree.fromstring(text).iter("annotation"):
            if node.get("type") != "tts" and node.text:
                found[bare(node.get("cp", ""))] = tuple(word.strip() for word in node.text.split("|"))
    return found


def bare(emoji: str) -> str:
    """The emoji without variation selectors, which neither the font's ligatures nor CLDR's keys contain."""
    return emoji.replace("\N{VARIATION SELECTOR-16}", "")


def glyph_bitmaps(font: bytes, emojis: list[str]) -> dict[str, bytes]:
    """emoji -> PNG of its glyph, from the colour bitmaps (CBDT, CBLC) and ligatures (GSUB type 4) of a font.

    Emoji for which the font has no single glyph are left out.
    """
    try:
        from fontTools.ttLib import TTFont
    except ImportError:
        raise ConjureError(
            "building the pictograms from the font needs fontTools, which is not installed",
            hint="pip install fonttools   (or: pip install 'conjure[data]')",
        ) from None
    with TTFont(io.BytesIO(font), lazy=True) as opened:
        glyphs = opened.getBestCmap() or {}
        ligatures: dict[tuple[str, ...], str] = {
            (first, *ligature.Component): ligature.LigGlyph
            for lookup in opened["GSUB"].table.LookupList.Lookup
            if lookup.LookupType == 4
            for table in lookup.SubTable
            for first, group in table.ligatures.items()
            for ligature in group
        }
        strike = opened["CBDT"].strikeData[0]
        found = {}
        for emoji in emojis:
            names = tuple(glyphs.get(ord(character), "") for character in bare(emoji))
            name = names[0] if len(names) == 1 else ligatures.get(names, "")
            if name in strike:
                found[emoji] = bytes(strike[name].imageData)
    return found


def _cached(part: str) -> tuple[list[tuple[int, Pictogram]], np.ndarray]:
    """(place in Unicode's order, pictogram) and pictures of one part, "plain" or "toned"."""
    file = _cache_file("sharp", part)
    if not file.exists():
        source, folder = _source()
        file = _cache_file(source, part)
        if not file.exists():
            built = _build_sharp(folder) if source == "sharp" else _build_soft(folder)
            for name, (entries, pictures_NHWC) in _split(*built).items():
                _store(_cache_file(source, name), entries, pictures_NHWC)
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            rows = json.loads(stored["entries"].tobytes())
            pictures_NHWC = stored["pictures"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConjureError(
            f"{file}: could not be read: {error}", hint="remove the file; it is built again"
        ) from None
    entries = [(place, Pictogram(**{**row, "keywords": tuple(row["keywords"])})) for place, row in rows]
    return entries, pictures_NHWC


def _source() -> tuple[str, Path]:
    """The full-size set, fetched if need be; the 64-pixel copies only where it cannot be had."""
    try:
        return "sharp", get("noto_emoji")
    except ConjureError:
        if copies := available("emoji"):
            return "soft", copies
        raise


def _cache_file(source: str, part: str) -> Path:
    return cache_dir() / "pictograms" / f"{source}-{_CACHE_FORMAT}-{part}.npz"


def _store(file: Path, entries: list[tuple[int, Pictogram]], pictures_NHWC: np.ndarray) -> None:
    rows = json.dumps([(place, asdict(pictogram)) for place, pictogram in entries])
    buffer = io.BytesIO()
    # not compressed: unpacking 110 MB takes longer than reading it
    np.savez(buffer, entries=np.frombuffer(rows.encode(), np.uint8), pictures=pictures_NHWC)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, buffer.getvalue())


def _split(
    pictograms: list[Pictogram], pictures_NHWC: np.ndarray
) -> dict[str, tuple[list[tuple[int, Pictogram]], np.ndarray]]:
    parts = {}
    for part, toned in (("plain", False), ("toned", True)):
        places = [i for i, pictogram in enumerate(pictograms) if pictogram.skin_tone == toned]
        parts[part] = [(i, pictograms[i]) for i in places], pictures_NHWC[places]
    return parts


def _build_sharp(folder: Path) -> tuple[list[Pictogram], np.ndarray]:
    """All pictograms from the three Debian packages in `folder`."""
    text = deb_members(_package(folder, "unicode-data"), [_NAMES])[_NAMES].decode("utf-8")
    keywords = parse_keywords(*deb_members(_package(folder, "unicode-cldr-core"), _KEYWORDS).values())
    font = deb_members(_package(folder, "fonts-noto-color-emoji"), [_FONT])[_FONT]
    apart = _apart()
    entries = [entry for entry in parse_names(text) if entry.codepoint not in apart]
    bitmaps = glyph_bitmaps(font, [entry.emoji for entry in entries])
    entries = [entry for entry in entries if entry.emoji in bitmaps]
    pictures_NHWC = np.stack([_square(bitmaps[entry.emoji]) for entry in entries])
    first: dict[bytes, str] = {}
    pictograms = []
    for entry, picture_HWC in zip(entries, pictures_NHWC, strict=True):
        same = first.setdefault(picture_HWC.tobytes(), entry.codepoint)
        known = keywords.get(bare(entry.emoji), (entry.name,))  # the newest emoji have no annotations yet
        twin = None if same == entry.codepoint else same
        pictograms.append(Pictogram(**{**asdict(entry), "keywords": known, "duplicate_of": twin}))
    return pictograms, pictures_NHWC


def _build_soft(folder: Path) -> tuple[list[Pictogram], np.ndarray]:
    """All pictograms from 64-pixel copies on white (images_64.zip) with captions.jsonl.gz."""
    with gzip.open(folder / "captions.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    with zipfile.ZipFile(folder / "images_64.zip") as packed:
        opened = [PillowImage.open(io.BytesIO(packed.read(row["file"]))).convert("RGB") for row in rows]
    small_NHWC = without_white(np.stack([np.asarray(picture) for picture in opened]))
    pictures_NHWC = resized(small_NHWC, _SOFT_CANVAS)
    edge = (_SOFT_CANVAS - SIDE) // 2
    pictograms = [
        Pictogram(
            row["caption"], tuple(row["keywords"]), row["group"], row["subgroup"], row["emoji"],
            row["file"].removesuffix(".png"), row["skin_tone"], row["duplicate_of"],
        )
        for row in rows
    ]  # fmt: skip
    return pictograms, np.ascontiguousarray(pictures_NHWC[:, edge:-edge, edge:-edge])


def without_white(pictures_NHWC: np.ndarray, threshold: int = 250) -> np.ndarray:
    """RGB on white to RGBA: white that is connected to the border becomes transparent, white inside stays."""
    white_NHW: np.ndarray = np.all(pictures_NHWC >= threshold, axis=-1)
    outside_NHW = np.zeros_like(white_NHW)
    outside_NHW[:, [0, -1]], outside_NHW[:, :, [0, -1]] = white_NHW[:, [0, -1]], white_NHW[:, :, [0, -1]]
    count = -1
    while count != (count := int(outside_NHW.sum())):  # flood fill, one pixel a round, all pictures at once
        grown_NHW = outside_NHW.copy()
        grown_NHW[:, 1:] |= outside_NHW[:, :-1]
        grown_NHW[:, :-1] |= outside_NHW[:, 1:]
        grown_NHW[:, :, 1:] |= outside_NHW[:, :, :-1]
        grown_NHW[:, :, :-1] |= outside_NHW[:, :, 1:]
        outside_NHW = grown_NHW & white_NHW
    kept_NHW1 = ~np.expand_dims(outside_NHW, -1)
    return np.concatenate((pictures_NHWC * kept_NHW1, kept_NHW1 * np.uint8(255)), -1)


def _square(png: bytes) -> np.ndarray:
    """A glyph as `[128, 128, 4]`: the middle columns, where all the ink is."""
    picture = PillowImage.open(io.BytesIO(png)).convert("RGBA")
    left, top = (picture.width - SIDE) // 2, (picture.height - SIDE) // 2
    return _tidy(picture.crop((left, top, left + SIDE, top + SIDE)))


def _tidy(picture: PillowImage.Image) -> np.ndarray:
    pixels_HWC = np.array(picture)
    pixels_HWC[pixels_HWC[..., 3] == 0] = 0
    return pixels_HWC


def _apart() -> frozenset[str]:
    text = (Path(__file__).parent / "origins" / "pictograms_apart.txt").read_text(encoding="ascii")
    return frozenset(code for line in text.splitlines() if not line.startswith("#") for code in line.split())


def _package(folder: Path, name: str) -> Path:
    found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        raise ConjureError(f"{folder}: expected the Debian package {name}_*.deb, found none")
    return found[-1]
