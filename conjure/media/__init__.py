"""Level 1: bytes <-> typed values, one file per kind of medium. Nothing heavy loads before a medium comes.

medium = read(path)                 Text, Image, Audio or Music
write(medium, path, record)         whole or not at all
record = read_provenance(path)      how a file was made, or None
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conjure.core import files
from conjure.core.errors import ConjureError, suggest
from conjure.media.kinds import SUFFIXES, kind_of, sniff, writable

if TYPE_CHECKING:
    from conjure.core.provenance import Record
    from conjure.media.audio import Audio
    from conjure.media.image import Image
    from conjure.media.music import Music
    from conjure.media.text import Text

    AnyMedium = Text | Image | Audio | Music

__all__ = ["Audio", "Image", "Music", "Text", "encode", "lossless", "read", "read_provenance", "write"]

_FILES = {kind: f"conjure.media.{kind}" for kind in dict.fromkeys(SUFFIXES.values())}
"""Kind -> the file that reads and writes it: `read`, `decode`, `encode`, `read_record`, and the class of that name."""
_HEAD = 16


def __getattr__(name: str) -> Any:
    if name.lower() in _FILES and name.istitle():
        return getattr(_file(name.lower()), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read(source: str | Path | bytes, kind: str | None = None) -> AnyMedium:
    """The medium in a file, or in some bytes.

    The kind is `kind` where given, else that of the suffix, else that of the content. Reading is bounded;
    what cannot be read raises `ConjureError`.
    """
    if kind is not None and kind not in _FILES:
        raise ConjureError(f"unknown kind of medium '{kind}'", hint=suggest(kind, _FILES))
    if isinstance(source, bytes):
        return _decode(source, kind or sniff(source))
    path = Path(source)
    return _file(kind or _kind_of_file(path)).read(path)


def write(medium: AnyMedium, path: str | Path, record: Record | None = None, overwrite: bool = True) -> Path:
    """Writes a medium in the format of the suffix, whole or not at all, with its provenance where given."""
    path = Path(path)
    kind_of(path)  # says what is wrong with the name
    data = encode(medium, path.suffix, record)
    if not overwrite and path.exists():
        raise ConjureError(f"{path}: exists already", hint="choose another name, or allow overwriting")
    files.write_atomic(path, data)
    if medium.kind in ("text", "audio"):
        _write_beside(path, medium.kind, record)
    return path


def encode(medium: AnyMedium, suffix: str, record: Record | None = None) -> bytes:
    """The bytes of a file of that suffix (".png"), the same for the same input; with the record inside where
    the format has room (of text .md alone; a long one not in .opus)."""
    suffix = suffix.lower()
    if suffix not in writable(medium.kind):
        kind = kind_of(f"file{suffix}")
        came = f"the {kind} format {suffix}" if kind != medium.kind else f"{suffix}, which is only read"
        choice = " ".join(writable(medium.kind))
        raise ConjureError(f"expected a format that holds {medium.kind}, got {came}", hint=f"use {choice}")
    return _file(medium.kind).encode(medium, suffix, record)


def lossless(medium: AnyMedium) -> tuple[bytes, str]:
    """The bytes of a file, and its suffix, from which a medium of the same digest is read."""
    if medium.kind == "audio":
        return _file("audio").lossless(medium)
    suffix = writable(medium.kind)[0]
    return encode(medium, suffix), suffix


def read_provenance(path: str | Path) -> Record | None:
    """How a file was made, None where it does not say; a damaged record raises `ConjureError`."""
    path = Path(path)
    return _file(_kind_of_file(path)).read_record(path)


def _file(kind: str) -> Any:
    return importlib.import_module(_FILES[kind])


def _write_beside(path: Path, kind: str, record: Record | None) -> None:
    """The record beside a file without room for it; one of an old file must not describe the new one."""
    beside = _file("text").sidecar(path)
    beside.unlink(missing_ok=True)
    suffix = path.suffix.lower()
    inside = suffix == ".md" if kind == "text" else not _file("audio").has_no_room(suffix, record)
    if record is not None and not inside:
        files.write_atomic(beside, f"{record.to_json()}\n".encode("ascii"))


def _decode(data: bytes, kind: str) -> AnyMedium:
    if kind == "text":
        text = _file("text")
        return text.without_record(text.decode(data, "input"))
    return _file(kind).decode(data, "input")


def _kind_of_file(path: Path) -> str:
    """By suffix; a file of unknown suffix may still show by its first bytes what it is."""
    if path.suffix.lower() not in SUFFIXES and path.is_file():
        try:
            with open(path, "rb") as file:
                head = file.read(_HEAD)
        except OSError as error:
            raise ConjureError(f"{path}: could not be read: {error.strerror or error}") from None
        if (kind := sniff(head)) != "text":
            return kind
    return kind_of(path)
