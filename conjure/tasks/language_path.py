"""A language in the name of a file: `-o talk.es.srt` asks for Spanish, `-o talk.es.wav` for Spanish that is spoken.

What is given is heard where it is a sound, translated, and spoken where a sound is wanted. The tag is a code of two
letters before the suffix. It asks for nothing where the input's own name has the same, where another task is named, and
where pictures or music come out: such names are names.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from conjure.codecs.language_names import LANGUAGES, is_language, name_of
from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Result
from conjure.core.protocol import Generative
from conjure.media.text import Text
from conjure.tasks.abilities import is_public
from conjure.tasks.table import Edge

CODES = frozenset(short for short, _, _ in LANGUAGES if len(short) == 2)
LAST = {"text": "translate", "audio": "speak"}
"""The kind that is wanted -> the task that the path ends with."""
CAPTIONS = ("srt", "vtt")
_TIMES = re.compile(r"(?:\d+:)?\d\d:\d\d[.,]\d{3} --> (?:\d+:)?\d\d:\d\d[.,]\d{3}.*")


@dataclass(frozen=True)
class Tongues:
    """What names say: the language that is wanted, and the one that is given, "" where its name has none."""

    target: str
    source: str = ""


def tag(name: str | PurePath) -> str:
    """The code in `talk.es.srt`; "" where there is none."""
    parts = PurePath(name).name.split(".")
    return parts[-2] if len(parts) > 2 and parts[0] and parts[-2] in CODES else ""


def tongues(
    kinds: Sequence[str], names: Sequence[str], wanted: str, output: str | Path | None, task: str | None
) -> Tongues | None:
    """What the names ask for, or None where they ask for no translation."""
    target = tag(output) if output is not None else ""
    if not target or len(kinds) != 1 or kinds[0] not in LAST or task not in (None, "translate", LAST.get(wanted, "")):
        return None
    source = tag(names[0]) if names else ""
    return None if wanted not in LAST or source == target else Tongues(target, source)


def stations(kind: str, wanted: str) -> list[tuple[str, str, str]]:
    """(kind that is read, kind that is made, task) of each step."""
    heard = [("audio", "text", "transcribe")] if kind == "audio" else []
    spoken = [("text", "audio", "speak")] if wanted == "audio" else []
    return [*heard, ("text", "text", "translate"), *spoken]


def given(edge: Edge, known: set[str], asked: Tongues, output: str | Path) -> dict[str, Any]:
    """The options of a step that the names settle; `known` are those it has."""
    if edge.task == "translate":
        settled = {"target": asked.target, "source": asked.source}
    else:
        suffix = PurePath(output).suffix[1:].lower()
        settled = {"format": suffix if suffix in CAPTIONS else "txt", "language": asked.source}
        settled = settled if edge.task == "transcribe" else {}
    return {name: value for name, value in settled.items() if value and name in known}


def refuse_strangers(edge: Edge, model: str, asked: Tongues) -> None:
    """`ConjureError`, before anything runs, where a model says which languages it knows and one that it must know is
    not among them."""
    known = spoken(edge, model) if model else frozenset()
    needed = {"transcribe": (asked.source,), "translate": (asked.source, asked.target), "speak": (asked.target,)}
    for code in needed[edge.task]:
        if code and known and name_of(code) not in known:
            hint = f"a public model may: --model org/name ({edge.task})"
            if edge.task == "speak":
                hint = f"name a voice that does, MMS has one for most languages: --model facebook/mms-tts-{_long(code)}"
            raise ConjureError(f"{model} knows {', '.join(sorted(known))}, not {name_of(code)}", hint=hint)


def spoken(edge: Edge, model: str) -> frozenset[str]:
    """The English names of the languages that a model says it knows; empty where it says nothing. What was trained here
    knows English, unless its config.json lists others."""
    path = shelf.find(model)
    if not is_public(path):
        return frozenset(map(name_of, _read(path / "config.json").get("languages") or ["en"]))
    said = _read(path / "tokenizer_config.json").get("language") if edge.task == "speak" else None
    return frozenset([name_of(said)] if isinstance(said, str) and is_language(said) else [])


def _long(code: str) -> str:
    return next(long[0] for short, long, _ in LANGUAGES if short == code)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    said = json.loads(path.read_text(encoding="utf-8"))
    return said if isinstance(said, dict) else {}


# -- captions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cues:
    """The lines of a file of captions; `places` are those that hold what is said, `texts` what they say."""

    lines: tuple[str, ...]
    places: tuple[int, ...]
    texts: tuple[str, ...]
    escaped: bool

    def saying(self, texts: Sequence[str]) -> str:
        """The file with other texts at the same times."""
        lines = list(self.lines)
        for place, text in zip(self.places, texts, strict=True):
            text = " ".join(text.split()).replace("-->", "->")
            lines[place] = html.escape(text, quote=False) if self.escaped else text
        return "\n".join(lines)


def cues(text: str) -> Cues | None:
    """SubRip or WebVTT taken apart, the lines of a caption joined; None where a text is neither."""
    old = text.lstrip("\ufeff").replace("\r\n", "\n").split("\n")
    first = next((line for line in old if line), "")
    escaped = first.startswith("WEBVTT")
    if not escaped and not (first.isdigit() or _TIMES.fullmatch(first)):
        return None
    lines: list[str] = []
    places: list[int] = []
    for line in old:
        if lines and line and _TIMES.fullmatch(lines[-1]):
            places.append(len(lines))
            lines.append(line)
        elif places and line and places[-1] == len(lines) - 1:
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    if not places:
        return None
    said = (html.unescape(lines[place]) if escaped else lines[place] for place in places)
    return Cues(tuple(lines), tuple(places), tuple(said), escaped)


def translated(task: Generative, text: Text, options: Any, seeds: Sequence[int]) -> Iterator[Event]:
    """The events of translating a text; of captions what they say, at the same times.

    Captions are lines of one text, which translations keep; where they did not, each is translated alone.
    """
    found = cues(str(text))
    if found is None:
        yield from task.generate([text], options, list(seeds))
        return
    result = yield from _quiet(task, "\n".join(found.texts), options, seeds)
    made = [str(each).split("\n") for each in result.media]
    if any(len(lines) != len(found.texts) for lines in made):
        made = [[] for _ in seeds]
        for said in found.texts:
            alone = yield from _quiet(task, said, options, seeds)
            for lines, each in zip(made, alone.media, strict=True):
                lines.append(str(each))
    yield Result([Text(found.saying(lines)) for lines in made], result.facts)


def _quiet(task: Generative, text: str, options: Any, seeds: Sequence[int]) -> Any:
    """The events but for pieces of text; returns the result."""
    result = None
    for event in task.generate([Text(text)], options, list(seeds)):
        if isinstance(event, Result):
            result = event
        elif not isinstance(event, Delta):
            yield event
    assert result is not None, "generate must end with a Result"
    return result
