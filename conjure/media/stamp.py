"""Provenance inside picture files, where other programs look for it.

    PNG    iTXt `conjure` (the record), iTXt `XML:com.adobe.xmp` (XMP), and `parameters`,
           the settings as Stable Diffusion web interfaces write them
    JPEG   XMP; EXIF ImageDescription (the prompt) and UserComment (the record)
    WebP   the same as JPEG

XMP says `Iptc4xmpExt:DigitalSourceType` = trainedAlgorithmicMedia, which exiftool, photo libraries and social
networks read: https://iptc.org/std/photometadata/documentation/userguide/
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import TYPE_CHECKING, Any

from conjure.core.errors import ConjureError
from conjure.core.provenance import Record

if TYPE_CHECKING:
    from PIL import Image as Pillow

_EXIF_IFD, _USER_COMMENT, _DESCRIPTION, _SOFTWARE = 0x8769, 0x9286, 0x010E, 0x0131
_ASCII = b"ASCII\0\0\0"
_OPEN, _CLOSE = '{"conjure":', "}"
_EXIF_ROOM = 60_000  # a JPEG segment holds 65,533 bytes
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
   <xmp:CreatorTool>{tool}</xmp:CreatorTool>
   <Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def save_options(record: Record | None, picture_format: str, size: tuple[int, int]) -> dict[str, Any]:
    """What `PIL.Image.save` must be given so that the record travels in the file; `size` is (width,
    height)."""
    if record is None:
        return {}
    if picture_format == "PNG":
        from PIL.PngImagePlugin import PngInfo

        chunks = PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", xmp(record))
        chunks.add_itxt("conjure", record.to_json())
        chunks.add_text("parameters", parameters(record, size))
        return {"pnginfo": chunks}
    return {"xmp": xmp(record).encode("utf-8"), "exif": _exif(record)}


def read_record(picture: Pillow.Image) -> Record | None:
    """The record in an opened picture, None where there is none; `ConjureError` where it is damaged."""
    chunk = picture.info.get("conjure")
    if isinstance(chunk, str):
        return Record.from_json(chunk)
    comment = picture.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if isinstance(comment, str):
        comment = comment.encode("utf-8", "replace")
    if not isinstance(comment, bytes):
        return None
    text = comment.removeprefix(_ASCII).rstrip(b"\0 ").decode("ascii", "replace")
    if not text.startswith(_OPEN):
        return None  # a comment, but not ours
    return Record.from_json(text[len(_OPEN) :].removesuffix(_CLOSE))


def description(record: Record) -> str:
    """One sentence for people: the prompt, or what was done by what."""
    said = record.prompt or f"{record.task} by {record.model}"
    return said if len(said) <= 2000 else f"{said[:1999]}…"


def xmp(record: Record) -> str:
    """The XMP packet."""
    values = {
        "description": description(record),
        "tool": f"conjure {record.version} ({record.model})",
        "source_type": record.source_type,
    }
    return _XMP.format(**{name: escape(_NO_XML.sub("\ufffd", value), quote=False) for name, value in values.items()})


def parameters(record: Record, size: tuple[int, int]) -> str:
    """The settings in the line format of Stable Diffusion web interfaces, which viewers and catalogues
    read."""
    options = record.options
    lines = [record.prompt.replace("\x00", "")]
    if negative := options.get("negative"):
        lines.append(f"Negative prompt: {str(negative).replace(chr(0), '')}")
    facts = {
        "Steps": options.get("steps"),
        "Sampler": options.get("sampler"),
        "CFG scale": options.get("guidance"),
        "Seed": record.seed,
        "Size": f"{size[0]}x{size[1]}",
        "Model": record.model,
        "Model hash": record.weights.removeprefix("sha256:")[:10] or None,
        "Version": f"conjure {record.version}",
    }
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in facts.items() if value is not None))
    return "\n".join(lines)


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n\x00]", text) else text


def _exif(record: Record) -> bytes:
    from PIL import Image as Pillow

    comment = _ASCII + f"{_OPEN} {record.to_json()}{_CLOSE}".encode("ascii")
    if len(comment) > _EXIF_ROOM:
        raise ConjureError(
            f"the provenance takes {len(comment):,} bytes, JPEG and WebP have room for {_EXIF_ROOM:,}",
            hint="write a .png, or write without provenance",
        )
    exif = Pillow.Exif()
    exif[_DESCRIPTION] = description(record).encode("utf-8", "replace").replace(b"\0", b" ")
    exif[_SOFTWARE] = f"conjure {record.version}".encode("ascii", "replace")
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = comment
    return exif.tobytes()
