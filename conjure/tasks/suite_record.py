"""Answers on disk as they come, so that an examination that was killed goes on where it stopped.

FOLDER/SUITE.jsonl: first a line that says whose answers these are, then one for each item: its number, the digest of
what was asked, the answers, and how they score.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.core.provenance import digest, digest_file
from conjure.data.few_shot import Item
from conjure.metrics.harness import Scored

Answer = Scored | float | str
"""To a continuation, to a whole text, to a prompt."""


def identity(folder: Path) -> str:
    """One digest of all that makes a model answer as it does: weights, configuration, tokenizer."""
    if folder.is_file():
        return digest_file(folder)
    suffixes = (".safetensors", ".gguf", ".json", ".model", ".txt")
    found = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in suffixes)
    return digest("".join(f"{path.name}\0{digest_file(path)}\n" for path in found).encode())


def asked(item: Item) -> str:
    """The digest of an item's requests: another prompt, example or wording gives another."""
    return hashlib.sha256(json.dumps(item.requests, ensure_ascii=True).encode()).hexdigest()[:32]


class Record:
    """The answers of one suite in one file. `head` says whose they are; a file with another one is refused."""

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
        self.answers: dict[str, list[Answer]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _lines(path)
        if lines and lines[0] != dict(head):
            was, now = json.dumps(lines[0]), json.dumps(dict(head))
            raise ConjureError(
                f"{path}: holds answers of another examination: {was}, expected {now}", hint="choose another folder"
            )
        for line in lines[1:]:
            self.answers[line["asked"]] = [_answer(each) for each in line["answers"]]
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in [dict(head), *lines[1:]]).encode())

    def add(self, entries: Iterable[tuple[Item, Sequence[Answer], Mapping[str, Any]]]) -> None:
        """Items with their answers and scores; they are on the disk when this returns."""
        text = ""
        for item, answers, scores in entries:
            key = asked(item)
            self.answers[key] = list(answers)
            line = {"item": item.index, "asked": key, "answers": answers, "scores": scores}
            text += json.dumps(line) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def _lines(path: Path) -> list[dict[str, Any]]:
    """What the file holds, without a last line that was cut off."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def _answer(value: Any) -> Answer:
    return Scored(*value) if isinstance(value, list) else value
