"""Pictures as files in the folder from which the page may show them, pixel for pixel."""

from __future__ import annotations

from pathlib import Path

from gradio.utils import get_upload_folder

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.media.image import Image


def shown_file(picture: Image) -> str:
    """The path of a picture as PNG; the same picture has one file."""
    folder = Path(get_upload_folder()) / "made" / picture.digest().removeprefix("sha256:")
    path = folder / "picture.png"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, media.encode(picture, ".png", picture.record))
    return str(path)


def uploaded(path: str) -> Image:
    """The picture in a file that a reader sent; `ConjureError` where it is none."""
    picture = media.read(Path(path).read_bytes())
    if not isinstance(picture, Image):
        raise ConjureError(f"expected a picture, got {picture.kind}")
    return picture
