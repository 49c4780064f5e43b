"""Text as a medium: UTF-8 files, and Markdown that carries its provenance in the YAML front matter."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from conjure.core.errors import ConjureError
from conjure.core.provenance import Record, digest
from conjure.media.bounds import TEXT_BYTES, bound, over, read_bytes

_FRONT = re.compile(
    r"\A---[ \t]*\r?\n(?P<body>.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)
_OURS = re.compile(r"^conjure: (\{.*\})[ \t]*\r?\n", re.MULTILINE)
# Characters that JSON takes as they are and YAML does not.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Text:
    """Any text that UTF-8 can hold."""

    text: str
    record: Record | None = field(default=None, compare=False, repr=False)
    """How the text was made, where `make` made it; `save` puts it into the file."""

    def __post_init__(self) -> None:
        assert isinstance(self.text, str), f"text, not {type(self.text).__name__}"
        try:
            self.text.encode("utf-8")
        except UnicodeEncodeError:  # surrogates, which stand for stray bytes on the command line
            raise ConjureError(
                "expected UTF-8 text, got stray bytes", hint="is it in another encoding?"
            ) from None

    @property
    def kind(self) -> str:
        return "text"

    def digest(self) -> str:
        """`sha256:<hex>` of the UTF-8 bytes."""
        return digest(self.text.encode("utf-8"))

    def save(self, path: str | Path) -> Path:
        """Writes the text, with its record if it has one."""
        from conjure import media

        return media.write(self, path, self.record)

    def __str__(self) -> str:
        return self.text


def read(path: Path) -> Text:
    """The text of a file, line ends as they are; a Markdown file comes without what `encode` put into it."""
    text = decode(_read(path), str(path))
    return without_record(text) if path.suffix.lower() == ".md" else text


def decode(data: bytes, where: str) -> Text:
    """The text that UTF-8 bytes hold (a byte order mark is dropped); bounded by `CONJURE_MAX_TEXT_BYTES`."""
    if len(data) > bound(TEXT_BYTES):
        raise over(where, f"{len(data):,}", TEXT_BYTES, "bytes of text")
    try:
        return Text(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConjureError(
            f"{where}: expected UTF-8 text, byte {error.start:,} is 0x{data[error.start]:02x}",
            hint="convert it: iconv -f LATIN1 -t UTF-8",
        ) from None


def encode(text: Text, suffix: str, record: Record | None = None) -> bytes:
    """UTF-8 bytes; in Markdown with the record as the line `conjure: {...}` of the front matter, which is
    made or, where there is one, added to. Other text has no room: `media.write` puts a sidecar beside it."""
    content = text.text if record is None or suffix != ".md" else _with_front_matter(text.text, record)
    return content.encode("utf-8")


def read_record(path: Path) -> Record | None:
    """The provenance of a text file: in its front matter, else in its sidecar, else None."""
    if path.suffix.lower() == ".md":
        _, found = _split(decode(_read(path), str(path)).text)
        if found is not None:
            return Record.from_json(found)
    if not path.exists():
        raise ConjureError(f"{path}: no such file")
    beside = sidecar(path)
    if not beside.exists():
        return None
    too_much = ConjureError(f"{beside}: too large for a provenance record")
    return Record.from_json(read_bytes(beside, 4 << 20, too_much))


def sidecar(path: Path) -> Path:
    """Where the provenance of a file without room for it lies."""
    return path.with_name(f"{path.name}.provenance.json")


def without_record(text: Text) -> Text:
    """A Markdown text exactly as it was before `encode`; where the line is none of ours, it stays."""
    rest, found = _split(text.text)
    try:
        if found is not None:
            Record.from_json(found)
            return Text(rest)
    except ConjureError:  # someone else's line
        pass
    return text


def _split(text: str) -> tuple[str, str | None]:
    """The text without the `conjure` line of its front matter, and the JSON of that line."""
    front = _FRONT.match(text)
    line = _OURS.search(front["body"]) if front else None
    if not front or not line:
        return text, None
    if line.end() - line.start() == len(front["body"]):  # the front matter holds nothing else
        return text[front.end() :], line[1]
    start = front.start("body")
    return text[: start + line.start()] + text[start + line.end() :], line[1]


def _read(path: Path) -> bytes:
    return read_bytes(path, bound(TEXT_BYTES), over(str(path), "more", TEXT_BYTES, "bytes of text"))


def _with_front_matter(text: str, record: Record) -> str:
    plain = json.dumps(json.loads(record.to_json()), ensure_ascii=False, sort_keys=True)
    line = "conjure: " + _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", plain)
    front = _FRONT.match(text)
    if front is None or not _takes_a_key(front["body"]):
        return f"---\n{line}\n---\n{text}"
    end = front.end("body")
    return f"{text[:end]}{line}\n{text[end:]}"


def _takes_a_key(body: str) -> bool:
    """Whether lines between two `---` are front matter to which a `conjure` key can be added, and not
    prose."""
    from conjure.core.yaml12 import parse

    try:
        data = parse(body, "front matter")
    except ConjureError:  # prose, or YAML beyond plain values: it is left alone
        return False
    return isinstance(data, dict) and bool(data) and "conjure" not in data and not body.startswith(("{", " "))
