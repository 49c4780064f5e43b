"""Level 1: bytes <-> typed values, one file per kind of medium. Nothing heavy loads before a picture comes.

medium = read(path)                 Text or Image
write(medium, path, record)         whole or not at all
record = read_provenance(path)      how a file was made, or None
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from conjure.core import files
from conjure.core.errors import ConjureError, suggest
from conjure.media.kinds import SUFFIXES, kind_of, sniff, writable

if TYPE_CHECKING:
    from conjure.core.provenance import Record
    from conjure.media.image import Image
    from conjure.media.text import Text

    AnyMedium = Text | Image

__all__ = ["Image", "Text", "encode", "read", "read_provenance", "write"]


def __getattr__(name: str) -> Any:
    if name == "Text":
        from conjure.media.text import Text

        return Text
    if name == "Image":
        from conjure.media.image import Image

        return Image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read(source: str | Path | bytes, kind: str | None = None) -> AnyMedium:
    """The medium in a file, or in some bytes.

    The kind is `kind` where given, else that of the suffix, else that of the content. Reading is bounded;
    what cannot be read raises `ConjureError`.
    """
    if kind is not None and kind not in SUFFIXES.values():
        raise ConjureError(
            f"unknown kind of medium '{kind}'", hint=suggest(kind, dict.fromkeys(SUFFIXES.values()))
        )
    if isinstance(source, bytes):
        return _decode(source, kind or sniff(source))
    path = Path(source)
    if (kind or _kind_of_file(path)) == "image":
        from conjure.media import image

        return image.read(path)
    from conjure.media import text

    return text.read(path)


def write(medium: AnyMedium, path: str | Path, record: Record | None = None, overwrite: bool = True) -> Path:
    """Writes a medium in the format of the suffix, whole or not at all, with its provenance where given."""
    path = Path(path)
    kind_of(path)  # says what is wrong with the name
    data = encode(medium, path.suffix, record)
    if not overwrite and path.exists():
        raise ConjureError(f"{path}: exists already", hint="choose another name, or allow overwriting")
    if medium.kind == "text":
        _write_text(path, data, record)
    else:
        files.write_atomic(path, data)
    return path


def encode(medium: AnyMedium, suffix: str, record: Record | None = None) -> bytes:
    """The bytes of a file of that suffix (".png"), the same for the same input; with the record inside where
    the format has room (all but .txt)."""
    suffix = suffix.lower()
    if suffix not in writable(medium.kind):
        kind = kind_of(f"file{suffix}")
        came = f"the {kind} format {suffix}" if kind != medium.kind else f"{suffix}, which is only read"
        choice = " ".join(writable(medium.kind))
        raise ConjureError(f"expected a format that holds {medium.kind}, got {came}", hint=f"use {choice}")
    if medium.kind == "image":
        from conjure.media import image

        return image.encode(medium, suffix, record)  # type: ignore[arg-type]
    from conjure.media import text

    return text.encode(medium, suffix, record)  # type: ignore[arg-type]


def read_provenance(path: str | Path) -> Record | None:
    """How a file was made, None where it does not say; a damaged record raises `ConjureError`."""
    path = Path(path)
    if _kind_of_file(path) == "image":
        from conjure.media import image

        return image.read_record(path)
    from conjure.media import text

    return text.read_record(path)


def _write_text(path: Path, data: bytes, record: Record | None) -> None:
    from conjure.media import text

    beside = text.sidecar(path)
    files.write_atomic(path, data)
    beside.unlink(missing_ok=True)  # a record of the old text must not describe the new one
    if record is not None and path.suffix.lower() != ".md":
        files.write_atomic(beside, f"{record.to_json()}\n".encode("ascii"))


def _decode(data: bytes, kind: str) -> AnyMedium:
    if kind == "image":
        from conjure.media import image

        return image.decode(data, "input")
    from conjure.media import text

    return text.without_record(text.decode(data, "input"))


def _kind_of_file(path: Path) -> str:
    """By suffix; a file of unknown suffix may still show by its first bytes that it is a picture."""
    if path.suffix.lower() not in SUFFIXES and path.is_file():
        try:
            with open(path, "rb") as file:
                head = file.read(16)
        except OSError as error:
            raise ConjureError(f"{path}: could not be read: {error.strerror or error}") from None
        if sniff(head) == "image":
            return "image"
    return kind_of(path)
