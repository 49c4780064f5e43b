"""Pictures as a medium: uint8 pixels in memory, PNG, JPEG or WebP on disk.

Shapes: H height, W width, C channels (1 grey, 3 RGB, 4 RGBA).
"""

from __future__ import annotations

import io
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.provenance import Record, digest
from conjure.media import stamp
from conjure.media.bounds import PIXELS, bound, over, read_bytes
from conjure.media.kinds import sniff

if TYPE_CHECKING:
    from PIL import Image as Pillow

READ_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
WRITE_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True, "method": 4}),
}

# What Pillow's readers are seen to raise on damaged files; nothing else is taken for the file's fault.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)
_pillow = threading.Lock()


@dataclass(frozen=True, eq=False)
class Image:
    """`pixels` is uint8 `[H, W, C]` with C = 1, 3 or 4, at least 1 x 1."""

    pixels: np.ndarray
    record: Record | None = None
    """How the picture was made, where `make` made it; `save` puts it into the file."""
    frames: int = 1
    """How many the file had; `pixels` are the first."""

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3, 4) or 0 in shape:
            raise ConjureError(f"expected pixels uint8 [H, W, 1 or 3 or 4], got {dtype} {list(shape)}")

    @property
    def kind(self) -> str:
        return "image"

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    def rgb(self) -> np.ndarray:
        """uint8 `[H, W, 3]`: grey repeated, transparency composited on white."""
        if self.pixels.shape[2] == 4:
            return _on_white(self.pixels)
        return np.repeat(self.pixels, 3, axis=2) if self.pixels.shape[2] == 1 else self.pixels

    def alpha(self) -> np.ndarray | None:
        """uint8 `[H, W]`, 255 is opaque; None where every pixel is."""
        return self.pixels[:, :, 3] if self.pixels.shape[2] == 4 else None

    def digest(self) -> str:
        """`sha256:<hex>` of the shape and the pixels."""
        return digest(repr(self.pixels.shape).encode("ascii") + np.ascontiguousarray(self.pixels).tobytes())

    def save(self, path: str | Path) -> Path:
        """Writes the picture, with its record if it has one."""
        from conjure import media

        return media.write(self, path, self.record)


def read(path: Path) -> Image:
    """The picture in a file; see `decode`."""
    return decode(_read(path), str(path))


def decode(data: bytes, where: str) -> Image:
    """The picture in some bytes as RGB `[H, W, 3]`, turned upright by its EXIF orientation.

    RGBA `[H, W, 4]` where a pixel is transparent; `rgb()` puts that on white. The first frame of an animation; 16
    bits rounded to 8. The number of pixels is checked against `CONJURE_MAX_PIXELS` before anything is decoded.
    What is damaged or no picture: `ConjureError`.
    """
    with _opened(data, where) as picture:
        try:
            picture.load()
            pixels, frames = _pixels(picture), int(getattr(picture, "n_frames", 1))
        except MemoryError:
            size = f"{picture.width:,} x {picture.height:,}"
            raise ConjureError(
                f"{where}: {size} pixels do not fit into memory", hint="shrink the picture"
            ) from None
        except _DAMAGED as error:
            raise _damaged(where, error) from None
        return Image(np.ascontiguousarray(_upright(pixels, picture)), frames=frames)


def encode(image: Image, suffix: str, record: Record | None = None) -> bytes:
    """The bytes of a PNG, JPEG or WebP file, the same for the same input; JPEG has no transparency, so it
    gets white. WebP is written without loss."""
    from PIL import Image as Pillow

    picture_format, options = WRITE_FORMATS[suffix]
    pixels = image.rgb() if picture_format == "JPEG" and image.pixels.shape[2] == 4 else image.pixels
    if picture_format != "PNG" and max(image.width, image.height) > (limit := _largest_side(picture_format)):
        raise ConjureError(
            f"{suffix} holds at most {limit:,} pixels a side, got {image.width:,} x {image.height:,}",
            hint="write a .png",
        )
    picture = Pillow.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    out = io.BytesIO()
    stamped = stamp.save_options(record, picture_format, (image.width, image.height))
    picture.save(out, format=picture_format, **options, **stamped)
    return out.getvalue()


def read_record(path: Path) -> Record | None:
    """The provenance in a picture file, None where there is none, `ConjureError` where it is damaged."""
    with _opened(_read(path), str(path)) as picture:
        try:
            if picture.format == "PNG" and "conjure" not in picture.info:
                picture.load()  # a program may have moved the text behind the pixels
            return stamp.read_record(picture)
        except _DAMAGED as error:
            raise _damaged(str(path), error) from None


def grid(images: Sequence[Image], columns: int | None = None) -> Image:
    """The pictures side by side, row by row, RGB; `columns` defaults to the most nearly square. Every cell is
    as large as the largest picture, what is left over is white."""
    if not images:
        raise ConjureError("expected at least one picture for a grid, got none")
    columns = columns or math.ceil(math.sqrt(len(images)))
    if columns < 1:
        raise ConjureError(f"expected at least one column, got {columns}")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    height, width = max(i.height for i in images), max(i.width for i in images)
    sheet = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for k, image in enumerate(images):
        top, left = k // columns * height, k % columns * width
        sheet[top : top + image.height, left : left + image.width] = image.rgb()
    return Image(sheet)


# -- reading -------------------------------------------------------------------------------------------------


def resized(image: Image, side: int) -> Image:
    """The picture with its longer side at `side` pixels (Lanczos)."""
    from PIL import Image as Pillow

    scale = side / max(image.height, image.width)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return Image(np.asarray(Pillow.fromarray(image.rgb()).resize(size, Pillow.Resampling.LANCZOS)))


def _read(path: Path) -> bytes:
    # No picture within the pixel bound needs more: four channels of 16 bits, and room for metadata.
    return read_bytes(
        path, 8 * bound(PIXELS) + (64 << 20), over(str(path), "a larger file", PIXELS, "pixels")
    )


@contextmanager
def _opened(data: bytes, where: str) -> Iterator[Pillow.Image]:
    """The picture with its header read and its size checked, nothing decoded.

    Pillow's own bound on pixels and its warnings about damaged metadata belong to the whole process; both are
    put aside here, for one thread at a time, because our bound is checked and damage becomes an error.
    """
    from PIL import Image as Pillow

    if not data:
        raise ConjureError(f"{where}: expected a picture, the file is empty")
    with _pillow, warnings.catch_warnings(action="ignore"):
        theirs, Pillow.MAX_IMAGE_PIXELS = Pillow.MAX_IMAGE_PIXELS, None
        try:
            with _header(data, where) as picture:
                width, height = picture.size
                if width * height > bound(PIXELS):
                    raise over(where, f"{width:,} x {height:,} = {width * height:,}", PIXELS, "pixels")
                yield picture
        finally:
            Pillow.MAX_IMAGE_PIXELS = theirs


def _header(data: bytes, where: str) -> Pillow.Image:
    from PIL import Image as Pillow

    try:
        return Pillow.open(io.BytesIO(data), formats=READ_FORMATS)
    except _DAMAGED as error:
        raise _no_picture(data, where, error) from None


def _pixels(picture: Pillow.Image) -> np.ndarray:
    """uint8 `[H, W, 3]` of a loaded picture in any mode, `[H, W, 4]` where some of it is transparent."""
    if picture.mode.startswith("I"):  # 16 bits, in some modes held in 32
        wide = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
        grey = ((wide * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode == "F":  # floating-point TIFF: 0 is black, 1 is white
        grey = np.rint(np.clip(np.nan_to_num(np.asarray(picture)), 0, 1) * 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        rgba = np.asarray(picture.convert("RGBA"))
        return rgba if rgba[:, :, 3].min() < 255 else rgba[:, :, :3]
    return np.asarray(picture.convert("RGB"))


def _on_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 `[H, W, 4]` -> `[H, W, 3]`, rounded to nearest."""
    colour, alpha = rgba[:, :, :3].astype(np.uint16), rgba[:, :, 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _upright(pixels: np.ndarray, picture: Pillow.Image) -> np.ndarray:
    """`pixels` `[H, W, C]` turned as the EXIF orientation (tag 274, values 1 to 8) says."""
    try:
        orientation = picture.getexif().get(274, 1)
    except _DAMAGED:  # damaged metadata does not spoil the picture
        return pixels
    turns = {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, 1),
    }
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    return turn(pixels) if turn else pixels


def _largest_side(picture_format: str) -> int:
    return {"JPEG": 65500, "WEBP": 16383}[picture_format]


def _no_picture(data: bytes, where: str, error: BaseException) -> ConjureError:
    if sniff(data) == "image":
        return _damaged(where, error)
    try:
        data[:1000].decode("utf-8")
        content = "the content is text"
    except UnicodeDecodeError:
        content = "the content is something else"
    readable = "PNG, JPEG, WebP, GIF, BMP or TIFF"
    return ConjureError(
        f"{where}: expected a picture ({readable}), {content}", hint="does the suffix fit the file?"
    )


def _damaged(where: str, error: BaseException) -> ConjureError:
    return ConjureError(
        f"{where}: the picture is cut off or damaged: {error or type(error).__name__}",
        hint="fetch or copy it again",
    )
