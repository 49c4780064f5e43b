"""How the teacher says single words: the dictionary from which `codecs/pronunciation.py` learns."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from conjure.core.events import Progress
from conjure.core.files import write_atomic
from conjure.core.paths import cache_dir
from conjure.data.books import documents
from conjure.data.fetch import available
from conjure.data.teacher import PAUSE, phones_of, sentences

WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
TOGETHER = 24
"""Words of one call of the program, with pauses between."""
MORE = ("books_general",)
"""Sets whose words are learnt too, where they are on this machine."""


def words(often: int = 4) -> tuple[str, ...]:
    """The words of the training sentences, and those that stand at least `often` times in the sets `MORE`; sorted."""
    found = set(_words(sentences("train")))
    there = [name for name in MORE if available(name)]
    if there:
        counts = Counter(_words(document.text for document in documents(there)))
        found |= {word for word, count in counts.items() if count >= often}
    return tuple(sorted(found))


def word_sounds(
    wanted: Sequence[str], *, folder: Path | None = None, tell: Callable[[Progress], None] | None = None
) -> dict[str, tuple[str, ...]]:
    """word -> phones, from the cache or the teacher; words that it says with a pause inside, or not at all, are left
    out."""
    folder = folder or cache_dir() / "teacher"
    name = hashlib.sha256("\0".join(wanted).encode()).hexdigest()[:16]
    path = folder / f"words-{name}.json"
    if path.exists():
        return {word: tuple(phones) for word, phones in json.loads(path.read_text()).items()}
    found: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(wanted), TOGETHER):
        found |= _said(wanted[start : start + TOGETHER])
        if tell:
            tell(Progress(min(start + TOGETHER, len(wanted)), len(wanted), "word", "asking the teacher"))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(found, separators=(",", ":")).encode())
    return found


def _said(some: Sequence[str]) -> dict[str, tuple[str, ...]]:
    parts = _parts(phones_of(", ".join(some)))
    if len(parts) == len(some):
        return dict(zip(some, parts, strict=True))
    if len(some) == 1:
        return {}
    half = len(some) // 2
    return _said(some[:half]) | _said(some[half:])


def _parts(phones: Iterable[str]) -> list[tuple[str, ...]]:
    parts: list[list[str]] = [[]]
    for phone in phones:
        if phone == PAUSE:
            parts.append([])
        else:
            parts[-1].append(phone)
    return [tuple(part) for part in parts if part]


def _words(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        yield from WORD.findall(text.lower().replace("\u2019", "'"))
