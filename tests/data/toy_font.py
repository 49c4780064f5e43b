"""A font of flat colour squares: bitmaps (CBDT, CBLC) and ligatures (GSUB), as in Noto Color Emoji."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import newTable
from fontTools.ttLib.tables.BitmapGlyphMetrics import SmallGlyphMetrics
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17
from fontTools.ttLib.tables.E_B_L_C_ import BitmapSizeTable, SbitLineMetrics, Strike, eblc_index_sub_table_1
from PIL import Image as PillowImage

_LINE_METRICS = (
    "ascender", "descender", "widthMax", "caretSlopeNumerator",
    "caretSlopeDenominator", "caretOffset", "minOriginSB", "minAdvanceSB",
    "maxBeforeBL", "minAfterBL", "pad1", "pad2",
)  # fmt: skip
INK = slice(14, 122)  # columns of a 136 x 128 glyph that are painted; the rows are 10 to 118


def glyph_png(colour: tuple[int, int, int]) -> bytes:
    """A palette PNG of 136 x 128: a square of one colour with a half-transparent column on its left."""
    pixels_HWC = np.zeros((128, 136, 4), np.uint8)
    pixels_HWC[10:118, INK] = (*colour, 255)
    pixels_HWC[10:118, INK.start - 1] = (*colour, 128)
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels_HWC).quantize(16, PillowImage.Quantize.FASTOCTREE).save(buffer, "PNG")
    return buffer.getvalue()


def build(sequences: Mapping[str, tuple[int, int, int]]) -> bytes:
    """A font with one coloured glyph per sequence of characters."""
    parts = sorted({ord(character) for sequence in sequences for character in sequence})
    singles = {point: f"u{point:x}" for point in parts}
    names = {s: singles[ord(s)] if len(s) == 1 else "_".join(singles[ord(c)] for c in s) for s in sequences}
    order = [".notdef", *singles.values(), *(name for s, name in names.items() if len(s) > 1)]
    builder = FontBuilder(1024, isTTF=True)
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap(singles)
    builder.setupHorizontalMetrics(dict.fromkeys(order, (1024, 0)))
    builder.setupHorizontalHeader()
    builder.setupPost()
    font = builder.font
    rules = [
        f"sub {' '.join(singles[ord(c)] for c in s)} by {name};" for s, name in names.items() if len(s) > 1
    ]
    addOpenTypeFeaturesFromString(font, "feature ccmp { " + " ".join(rules) + " } ccmp;")
    _add_bitmaps(font, {names[s]: colour for s, colour in sequences.items()})
    out = io.BytesIO()
    font.save(out)
    return out.getvalue()


def _add_bitmaps(font, colours: Mapping[str, tuple[int, int, int]]) -> None:
    glyphs = sorted(colours, key=font.getGlyphID)
    bitmaps = {}
    for name in glyphs:
        bitmap = bitmaps[name] = cbdt_bitmap_format_17(b"", font)
        bitmap.metrics, bitmap.imageData = SmallGlyphMetrics(), glyph_png(colours[name])
        for key, value in {
            "height": 128,
            "width": 136,
            "BearingX": 0,
            "BearingY": 101,
            "Advance": 136,
        }.items():
            setattr(bitmap.metrics, key, value)
    font["CBDT"], font["CBLC"] = newTable("CBDT"), newTable("CBLC")
    font["CBDT"].version = font["CBLC"].version = 3.0
    font["CBDT"].strikeData = [bitmaps]
    table = eblc_index_sub_table_1(b"", font)
    table.names, table.indexFormat, table.imageFormat = glyphs, 1, 17
    table.firstGlyphIndex, table.lastGlyphIndex = font.getGlyphID(glyphs[0]), font.getGlyphID(glyphs[-1])
    strike = Strike()
    strike.indexSubTables = [table]
    size = strike.bitmapSizeTable = BitmapSizeTable()
    size.startGlyphIndex, size.endGlyphIndex = table.firstGlyphIndex, table.lastGlyphIndex
    size.colorRef, size.ppemX, size.ppemY, size.bitDepth, size.flags = 0, 109, 109, 32, 1
    for line in ("hori", "vert"):
        metrics = SbitLineMetrics()
        for key in _LINE_METRICS:
            setattr(metrics, key, 0)
        setattr(size, line, metrics)
    font["CBLC"].strikes = [strike]
