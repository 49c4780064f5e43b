"""Books and other texts as a stream of tokens, split by document into a training and a validation part."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conjure.codecs.tokenizer import FILE, Tokenizer
from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.core.paths import cache_dir
from conjure.data import fetch
from conjure.data.archives import files

VALIDATION_SHARE = 16
"""One document in so many is for validation."""

_HEADER = re.compile(r"\A\s*# Title:.*?^-{3,}\s*$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+[ \t]*", re.MULTILINE)
_EMPHASIS = re.compile(r"(?<!\w)_([^_\n]+)_(?!\w)")
_BLANKS = re.compile(r"[ \t\u00a0]+")
_GAPS = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Document:
    """One text; `name` is the same on every machine."""

    name: str
    text: str


def documents(names: Sequence[str]) -> list[Document]:
    """The texts (.md and .txt) of these data sets; a book that is in two of them is taken once."""
    found: dict[str, Document] = {}
    for name in names:
        for file, data in _texts(fetch.path(name)):
            text = data.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
            found.setdefault(file, Document(file, book(text) if file.endswith(".md") else text))
    if not found:
        raise ConjureError(f"the data sets {', '.join(names) or '(none)'} hold no text", hint="conjure list data")
    return list(found.values())


def _texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    for pattern in ("*.md", "*.txt"):
        for name, data in files(folder, pattern):
            if Path(name).name.upper() not in ("README.MD", "SOURCE_README.TXT", "LICENSE.TXT"):
                yield name, data


def book(text: str) -> str:
    """A Markdown book as plain prose: no header, no marks of headings and emphasis, single spaces."""
    text = _HEADING.sub("", _HEADER.sub("", text))
    text = _BLANKS.sub(" ", _EMPHASIS.sub(r"\1", text)).replace(" \n", "\n").replace("\n ", "\n")
    return _GAPS.sub("\n\n", text).strip() + "\n"


def held_out(name: str) -> bool:
    """Whether a document is for validation: a stable hash of its name, one in `VALIDATION_SHARE`."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % VALIDATION_SHARE == 0


def split(texts: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """(training, validation) by document; a single text is split at nine tenths of its length instead."""
    if len(texts) == 1:
        name, text = texts[0].name, texts[0].text
        at = len(text) * 9 // 10
        return [Document(name, text[:at])], [Document(name, text[at:])]
    training = [d for d in texts if not held_out(d.name)]
    validation = [d for d in texts if held_out(d.name)]
    if not training or not validation:
        raise ConjureError(f"{len(texts)} texts are too few to hold some out", hint="use more texts, or a single one")
    return training, validation


def trained_tokenizer(
    texts: Sequence[Document], size: int, trainer: Callable[[Iterator[str], int], Tokenizer]
) -> Tokenizer:
    """A tokenizer of `size` tokens trained on these texts; kept in the cache under their digest."""
    place = cache_dir() / "tokenizers" / f"{trainer.__name__.strip('_')}-{size}-{_digest(texts)}"
    if not (place / FILE).is_file():
        made = trainer((document.text for document in texts), size)
        place.mkdir(parents=True, exist_ok=True)
        made.save(place)
    return Tokenizer.load(place)


def _digest(texts: Sequence[Document]) -> str:
    key = hashlib.sha256()
    for document in texts:
        key.update(hashlib.sha256(document.text.encode()).digest())
    return key.hexdigest()[:32]


@dataclass(frozen=True)
class Stream:
    """Token ids of documents one after the other, `<|end|>` before the first, between them and behind the last.

    Document d is `ids[borders[d] : borders[d + 1]]`, both its ends being `<|end|>` where documents meet: so the end
    of one is not the beginning of the next, and each has its own.
    """

    ids: np.ndarray
    borders: tuple[int, ...]
    bytes: tuple[int, ...]
    """UTF-8 bytes of each document's text."""


def tokenize(texts: Sequence[Document], tokenizer: Tokenizer) -> Stream:
    """The stream of these documents, uint16 or int32; kept in the cache under the digest of texts and tokenizer."""
    place = cache_dir() / "tokens" / f"{tokenizer.digest()[7:39]}-{_digest(texts)}.npy"
    dtype = np.uint16 if tokenizer.size <= 1 << 16 else np.int32
    sizes = tuple(len(document.text.encode()) for document in texts)
    flat = _cached(place, lambda: _encode(texts, tokenizer))
    count = int(flat[0])
    lengths = flat[1 : 1 + count]
    borders = (0, *np.cumsum(lengths).tolist())
    return Stream(flat[1 + count :].astype(dtype), borders, sizes)


def _encode(texts: Sequence[Document], tokenizer: Tokenizer) -> np.ndarray:
    """[number of documents, their lengths, their ids] in one int32 array."""
    end = [] if tokenizer.end is None else [tokenizer.end]
    rows = [np.array(end + _by_paragraph(d.text, tokenizer) + end, dtype=np.int32) for d in texts]
    return np.concatenate([np.array([len(rows), *map(len, rows)], dtype=np.int32), *rows])


def _by_paragraph(text: str, tokenizer: Tokenizer) -> list[int]:
    """A book at once would be encoded on one core and take much memory: cut it between paragraphs, where no token of
    the words' pattern reaches across, and encode those side by side."""
    parts = re.split(r"(?<=\n\n)(?=\S)", text)
    return [token for ids in tokenizer.encode_batch(parts) for token in ids]


def _cached(place: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    if place.is_file():
        return np.load(place, allow_pickle=False)
    import io

    made, buffer = make(), io.BytesIO()
    np.save(buffer, made, allow_pickle=False)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, buffer.getvalue())
    return made
