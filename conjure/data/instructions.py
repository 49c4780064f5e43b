"""Conversations to learn following instructions from: exercises made here, instruction sets, stories to go on with.

A tenth of all is held out, by a hash of what is asked. Only answers carry loss. Conversation and row i are pure
functions of (seed, i).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.seeds import derive, rng
from conjure.data import fetch
from conjure.data.archives import files
from conjure.data.books import Document
from conjure.data.exercises import KINDS_OF_EXERCISE, Draw, Exercise, exercise, pick
from conjure.data.packing import IGNORED

OPEN = ("instruction", "story")
"""Kinds that have no one right answer."""
STORY = ("Go on with this story: {}", "Tell what happens next: {}", "Continue: {}")
LONGEST_STORY = 400
"""Characters of a passage that is gone on with, where its first sentence is not longer."""
_SENTENCE = re.compile(r"(?<=[.!?])[\"']? ")


def held_out(kind: str, key: str) -> bool:
    """Whether a problem belongs to the tenth that is never trained on."""
    return int.from_bytes(hashlib.sha256(f"{kind}\n{key}".encode()).digest()[:8], "big") % 10 == 0


def instructions(names: Sequence[str]) -> list[Exercise]:
    """Instructions and answers of these data sets: .json lists of {instruction, input, output}, .jsonl lines of
    {instruction, instances: [{input, output}]}."""
    found: dict[str, Exercise] = {}
    for name in names:
        folder = fetch.path(name)
        rows = [row for _, data in files(folder, "*instruction-data.json") for row in json.loads(data)]
        for _, data in files(folder, "*.jsonl"):
            tasks = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
            rows += [{"instruction": task["instruction"], **task["instances"][0]} for task in tasks]
        for row in rows:
            prompt = "\n".join(part.strip() for part in (row["instruction"], row["input"]) if part.strip())
            found.setdefault(prompt, Exercise("instruction", prompt, row["output"].strip(), prompt))
    if names and not found:
        raise ConjureError(f"the data sets {', '.join(names)} hold no instructions", hint="conjure data list")
    return list(found.values())


def story(document: Document, draw: Draw) -> Exercise:
    """A sentence or two of a book as the beginning, and what follows as the answer."""
    at = int(draw.integers(0, max(1, len(document.text) - 1500)))
    sentences = _SENTENCE.split(" ".join(document.text[at : at + 1500].split()))[1:-1]
    begun = int(draw.integers(1, 3))
    answer = ""
    for part in sentences[begun:]:
        if answer and len(answer) + len(part) >= LONGEST_STORY:
            break
        answer = f"{answer} {part}".strip()
    if not answer:  # no ends of sentences here: a list, a table of contents
        words = document.text[at : at + 1500].split()
        sentences, answer = [" ".join(words[1:20])], " ".join(words[20:60])
    prompt = pick(draw, STORY).format(" ".join(sentences[:begun]))
    return Exercise("story", prompt, answer, f"{document.name} {at}")


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Of the conversations; what is left are exercises."""

    instructions: float = 0.12
    stories: float = 0.06
    second: float = 0.25
    """Conversations with a second question."""

    def __post_init__(self) -> None:
        parts = (self.instructions, self.stories, self.second)
        if min(parts) < 0 or self.second > 1 or self.instructions + self.stories > 1:
            raise ConjureError("data.shares: expected fractions of 1 that leave room for each other")


class Lessons:
    """The endless stream of training questions, and those that are held out."""

    def __init__(self, asked: Sequence[Exercise], books: Sequence[Document], shares: Shares, seed: int) -> None:
        self.asked = [each for each in asked if not held_out(each.kind, each.key)]
        self.books, self.shares, self.seed = books, shares, seed

    def conversation(self, *index: int) -> list[Exercise]:
        """One question with its answer, or two."""
        draw = rng(derive(self.seed, "conversation", *index))
        lessons = [self._one(draw)]
        if draw.random() < self.shares.second and not lessons[0].system:
            lessons.append(self._one(draw))
        return lessons if len(lessons) == 1 else [each for each in lessons if not each.system]  # tools come first

    def _one(self, draw: Draw) -> Exercise:
        which = draw.random()
        if which < self.shares.instructions and self.asked:
            return pick(draw, self.asked)
        if which < self.shares.instructions + self.shares.stories and self.books:
            return story(pick(draw, self.books), draw)
        kind = pick(draw, KINDS_OF_EXERCISE)
        while True:
            made = exercise(kind, draw)
            if not held_out(made.kind, made.key):
                return made


def examination(kind: str, count: int) -> list[Exercise]:
    """At most `count` different held-out exercises of one kind, the same ones every time."""
    found: dict[str, Exercise] = {}
    for attempt in range(200 * count):
        made = exercise(kind, rng(derive(0, "examination", kind, attempt)))
        if held_out(made.kind, made.key):
            found.setdefault(made.prompt, made)
        if len(found) == count:
            break
    return list(found.values())


# -- as tokens --------------------------------------------------------------------------------------------------------

Piece = tuple[np.ndarray, np.ndarray]
"""ids and targets, IGNORED where nothing is to be learnt."""


@dataclass(frozen=True)
class Turns:
    """Ids of the marks that begin turns, and of the one that ends each."""

    system: int
    user: int
    assistant: int
    end: int


def tokens(lessons: Sequence[Exercise], encoded: Sequence[Sequence[int]], turns: Turns) -> Piece:
    """A conversation. `encoded` are the ids of system ("" has none), prompt and answer of each lesson, in turn; answers
    and the marks that end them carry loss."""
    ids: list[int] = []
    learnt: list[bool] = []
    for number, lesson in enumerate(lessons):
        system, prompt, answer = encoded[3 * number : 3 * number + 3]
        parts = [(turns.system, system, False)] if lesson.system else []
        parts += [(turns.user, prompt, False), (turns.assistant, answer, True)]
        for mark, inside, counts in parts:
            ids += [mark, *inside, turns.end]
            learnt += [False, *[counts] * (len(inside) + 1)]
    whole = np.array(ids, dtype=np.int64)
    return whole[:-1], np.where(np.array(learnt[1:]), whole[1:], IGNORED)


def filled(pieces: Sequence[Piece], length: int) -> list[list[Piece]]:
    """Rows of at most `length` ids, in order; what is longer than a row is left away."""
    rows: list[list[Piece]] = []
    room = 0
    for piece in pieces:
        if len(piece[0]) > length:
            continue
        if len(piece[0]) > room:
            rows.append([])
            room = length
        rows[-1].append(piece)
        room -= len(piece[0])
    return rows
