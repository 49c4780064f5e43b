"""Which suffix means which kind of medium, and which arguments look like files."""

from __future__ import annotations

import re
from pathlib import PurePath

from conjure.core.errors import ConjureError, suggest

SUFFIXES: dict[str, str] = {
    ".txt": "text",
    ".md": "text",
    ".json": "text",
    ".py": "text",
    ".srt": "text",
    ".vtt": "text",
    ".rttm": "text",
    ".png": "image",
    ".jpg": "image",
    ".jpeg": "image",
    ".webp": "image",
    ".gif": "image",
    ".bmp": "image",
    ".tif": "image",
    ".tiff": "image",
    ".wav": "audio",
    ".flac": "audio",
    ".mp3": "audio",
    ".ogg": "audio",
    ".opus": "audio",
    ".oga": "audio",
    ".aif": "audio",
    ".aiff": "audio",
    ".m4a": "audio",
    ".aac": "audio",
    ".mp4": "audio",
    ".mov": "audio",
    ".mkv": "audio",
    ".webm": "audio",
    ".mid": "music",
    ".midi": "music",
}
"""Lower-case suffix -> kind of medium. Of a film, the sound is read."""

READ_ONLY = frozenset(
    {".gif", ".bmp", ".tif", ".tiff"}
    | {".oga", ".aif", ".aiff", ".m4a", ".aac", ".mp4", ".mov", ".mkv", ".webm"}
)
"""Suffixes that are read but not written: they have no room for provenance, or no need."""

_PICTURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_SOUNDS = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22", b"OggS\0")
_MATROSKA = b"\x1a\x45\xdf\xa3"
_FILM_BRANDS = ("M4A ", "M4B ", "M4V ", "isom", "iso2", "iso4", "iso5", "iso6", "mp41", "mp42", "avc1", "dash", "qt  ",
                "3gp4", "3gp5", "3gp6", "MSNV")  # fmt: skip
_PLAUSIBLE = re.compile(r"[^\s]*[^\s./\\]\.[A-Za-z][A-Za-z0-9]{1,4}")


def kind_of(path: str | PurePath) -> str:
    """The kind of medium that the suffix of `path` names; `ConjureError` listing the known ones if none."""
    suffix = PurePath(path).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    said = f"suffix '{suffix}'" if suffix else "a name without suffix"
    close = suggest(suffix, SUFFIXES) if suffix else ""
    hint = f"{close} " if close.startswith("did you mean") else ""
    raise ConjureError(f"{path}: expected a known kind of file, got {said}", hint=f"{hint}known: {_listed()}")


def looks_like_file(arg: str) -> bool:
    """Whether an argument is written like a file name: no blanks, and a suffix that is known or plausible."""
    return not re.search(r"\s", arg) and (
        PurePath(arg).suffix.lower() in SUFFIXES or _PLAUSIBLE.fullmatch(arg) is not None
    )


def sniff(data: bytes) -> str:
    """The kind that the first bytes (16 are enough) show: "image", "audio" or "music", else "text"."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if webp or data.startswith(_PICTURES):
        return "image"
    if data.startswith(b"MThd\0\0\0\x06"):
        return "music"
    return "audio" if _is_sound(data) or in_container(data) else "text"


def in_container(data: bytes) -> bool:
    """Whether the first bytes are those of a film or of AAC, whose sound libsndfile does not read."""
    film = data[4:8] == b"ftyp" and data[8:12].decode("latin-1") in _FILM_BRANDS
    return film or data.startswith(_MATROSKA) or _is_sync(data, 0xF6, 0xF0)


def writable(kind: str) -> list[str]:
    """The suffixes in which a kind of medium can be written."""
    return [suffix for suffix, its in SUFFIXES.items() if its == kind and suffix not in READ_ONLY]


def _is_sound(data: bytes) -> bool:
    boxes = (data[:4], data[8:12])
    if boxes in ((b"RIFF", b"WAVE"), (b"RF64", b"WAVE"), (b"FORM", b"AIFF"), (b"FORM", b"AIFC")):
        return True
    # A tag has a version below 16 and four bytes of size without their highest bit, which no text has.
    tagged = data[:3] == b"ID3" and len(data) >= 10 and data[3] < 16 and data[4] < 16 and max(data[6:10]) < 128
    return tagged or data.startswith(_SOUNDS) or _is_mp3(data)


def _is_mp3(data: bytes) -> bool:
    """Whether it begins with a frame of MPEG layer III: no reserved version, bit rate or sampling rate."""
    return _is_sync(data, 0xE6, 0xE2) and len(data) > 2 and (
        data[1] & 0x18 != 0x08 and data[2] & 0xF0 != 0xF0 and data[2] & 0x0C != 0x0C
    )  # fmt: skip


def _is_sync(data: bytes, mask: int, wanted: int) -> bool:
    return len(data) > 1 and data[0] == 0xFF and data[1] & mask == wanted


def _listed() -> str:
    kinds = dict.fromkeys(SUFFIXES.values())
    return "; ".join(f"{kind} {' '.join(s for s, its in SUFFIXES.items() if its == kind)}" for kind in kinds)
