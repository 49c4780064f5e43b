"""From written words to phones: a dictionary, and for words that are not in it rules for letters in their surroundings.

Both are learnt from a dictionary of pronunciations. Letters and phones are aligned by expectation maximisation, one
letter to none, one or two phones (as in Black, Lenzo and Pagel 1998, "Issues in building general letter to sound
rules"). A rule is a letter with some of its neighbours, nearest first, and the phones it stands for; the longest rule
that fits decides, so the rules of a letter are the leaves and branches of one decision tree. Only words that the rules
say otherwise are kept as a dictionary.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from conjure.codecs.spoken_text import LETTERS
from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic

PHONES = (
    "pau", "aa", "ae", "ah", "ao", "aw", "ax", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f", "g", "hh", "ih", "iy",
    "jh", "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w", "y", "z", "zh",
)  # fmt: skip
"""The phones of American English as flite names them, nearly those of ARPAbet; the pause first."""
FILE = "pronunciation.json"
SIGNS = "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
"""How a phone is written in the file: one sign each, in the order of `PHONES`."""
EDGE = "#"
REACH = 4
"""Letters that a rule may see on each side."""
RARE = 3
"""A rule needs this many examples."""
ROUNDS = 5
_LEARNT_FROM = 8000
"""Words that the alignment is estimated on; all are aligned by it."""
_SKIPPED = math.log(1e-6)
LETTER_NAMES = {
    "ay": "ey", "bee": "b iy", "see": "s iy", "dee": "d iy", "ee": "iy", "eff": "eh f", "gee": "jh iy",
    "aitch": "ey ch", "eye": "ay", "jay": "jh ey", "kay": "k ey", "ell": "eh l", "em": "eh m", "en": "eh n", "oh": "ow",
    "pee": "p iy", "cue": "k y uw", "are": "aa r", "ess": "eh s", "tee": "t iy", "you": "y uw", "vee": "v iy",
    "ex": "eh k s", "why": "w ay", "zee": "z iy",
}  # fmt: skip
"""Words by which `spoken_text` spells."""
_NAMES = {letter: tuple(LETTER_NAMES.get(name, "d ah b ax l y uw").split()) for letter, name in LETTERS.items()}
_VOWELS = frozenset("aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw".split())


class Pronunciation:
    """`of(word)` gives the phones of any word of letters a to z and apostrophes."""

    def __init__(self, rules: Mapping[str, str], exceptions: Mapping[str, str]) -> None:
        self.rules, self.exceptions = dict(rules), dict(exceptions)

    def of(self, word: str) -> tuple[str, ...]:
        """Never empty: what has no sound in itself is said letter by letter. `ConjureError` for other characters."""
        word = word.lower()
        if not re.fullmatch(r"[a-z']*[a-z][a-z']*", word):
            raise ConjureError(f"expected a word of letters, got {word[:40]!r}")
        if word in LETTER_NAMES:
            return tuple(LETTER_NAMES[word].split())
        if word in self.exceptions:
            return _phones(self.exceptions[word])
        if word.endswith("'s") and len(word) > 2:
            return _with_s(self.of(word[:-2]))
        said = self.by_rules(word)
        return said or tuple(phone for letter in word if letter != "'" for phone in _NAMES[letter])

    def by_rules(self, word: str) -> tuple[str, ...]:
        """By the rules alone; what two letters say twice in a row is said once where it is a consonant."""
        signs = ""
        for keys in _contexts(word):
            signs += next((self.rules[key] for key in reversed(keys) if key in self.rules), "")
        return _phones(signs)

    def of_words(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """Phones of words that follow each other: "a" is weak, and "the" is otherwise before a vowel."""
        found = [("ax",) if word == "a" else self.of(word) for word in words]
        for at, word in enumerate(words):
            if word == "the" and at + 1 < len(words):
                found[at] = ("dh", "iy") if found[at + 1][0] in _VOWELS else ("dh", "ax")
        return found

    @cached_property
    def known(self) -> int:
        """Words in the dictionary."""
        return len(self.exceptions)

    def save(self, folder: Path) -> None:
        data = {"format": 1, "phones": list(PHONES), "signs": SIGNS, "rules": self.rules, "exceptions": self.exceptions}
        write_atomic(folder / FILE, json.dumps(data, separators=(",", ":")).encode())

    @classmethod
    def load(cls, folder: Path) -> Pronunciation:
        path = Path(folder) / FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConjureError(f"expected {path}, found none", hint="fetch or train the model again") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConjureError(f"{path} is not JSON: {error}", hint="fetch or train the model again") from None
        if not isinstance(data, dict) or data.get("phones") != list(PHONES) or data.get("signs") != SIGNS:
            raise ConjureError(f"{path} is of another format", hint="it may come from a newer conjure")
        return cls(data["rules"], data["exceptions"])

    @classmethod
    def learnt(cls, sounds: Mapping[str, Sequence[str]]) -> Pronunciation:
        """From words and their phones. Words that cannot be aligned (more than two phones a letter) are exceptions."""
        signs = {word: "".join(_sign(phone) for phone in phones) for word, phones in sounds.items()}
        chances = _aligned_chances(signs)
        examples: defaultdict[str, list[tuple[list[str], str]]] = defaultdict(list)
        for word, said in signs.items():
            chunks = _align(word, said, chances)
            if chunks is not None:
                for keys, chunk in zip(_contexts(word), chunks, strict=True):
                    examples[keys[0]].append((keys, chunk))
        rules: dict[str, str] = {}
        for letter, some in examples.items():
            rules[letter] = _commonest(some)
            _grow(rules, some, 1, rules[letter])
        made = cls(rules, {})
        wrong = {word: said for word, said in signs.items() if _signs(made.by_rules(word)) != said}
        return cls(rules, {word: said for word, said in wrong.items() if word not in LETTER_NAMES})


def _phones(signs: str) -> tuple[str, ...]:
    return tuple(PHONES[SIGNS.index(each)] for each in signs)


def _signs(phones: Sequence[str]) -> str:
    return "".join(map(_sign, phones))


def _sign(phone: str) -> str:
    return SIGNS[PHONES.index(phone)]


def _with_s(phones: tuple[str, ...]) -> tuple[str, ...]:
    """With the ending 's."""
    if phones[-1] in ("s", "z", "sh", "zh", "ch", "jh"):
        return (*phones, "ax", "z")
    return (*phones, "s" if phones[-1] in ("p", "t", "k", "f", "th") else "z")


def _contexts(word: str) -> list[list[str]]:
    """Of each letter the rules that could say it, from the letter alone to all neighbours: right, left, right, ..."""
    padded = EDGE * REACH + word + EDGE * REACH
    found = []
    for at in range(REACH, REACH + len(word)):
        keys = [padded[at]]
        for reach in range(1, REACH + 1):
            keys.append(keys[-1] + padded[at + reach])
            keys.append(keys[-1] + padded[at - reach])
        found.append(keys)
    return found


def _commonest(examples: Sequence[tuple[list[str], str]]) -> str:
    counts = Counter(chunk for _, chunk in examples)
    return min(counts, key=lambda chunk: (-counts[chunk], chunk))


def _grow(rules: dict[str, str], examples: Sequence[tuple[list[str], str]], depth: int, said: str) -> None:
    """Adds the rules of the next neighbour where they say something else than what holds without it."""
    if depth > 2 * REACH or all(chunk == said for _, chunk in examples):
        return
    branches: defaultdict[str, list[tuple[list[str], str]]] = defaultdict(list)
    for each in examples:
        branches[each[0][depth]].append(each)
    for key, some in branches.items():
        if len(some) < RARE:
            continue
        here = _commonest(some)
        if here != said:
            rules[key] = here
        _grow(rules, some, depth + 1, here)


Chances = dict[str, dict[str, float]]


def _aligned_chances(signs: Mapping[str, str]) -> Chances:
    """letter -> log-probabilities of what it stands for, by hard expectation maximisation from co-occurrence."""
    every = [(word, said) for word, said in signs.items() if len(said) <= 2 * len(word)]
    some = every[:: max(1, len(every) // _LEARNT_FROM)]
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for word, said in some:  # at first phones near the diagonal belong to a letter
        for at, letter in enumerate(word):
            middle = at * len(said) / len(word)
            for place in range(max(0, int(middle) - 1), min(len(said), int(middle) + 2)):
                counts[letter][said[place]] += 1
            counts[letter][""] += 1
    chances = _logs(counts)
    for _ in range(ROUNDS):
        counts = defaultdict(Counter)
        for word, said in some:
            for letter, chunk in zip(word, _align(word, said, chances) or (), strict=False):
                counts[letter][chunk] += 1
        chances = _logs(counts)
    return chances


def _logs(counts: Mapping[str, Counter[str]]) -> Chances:
    return {letter: {chunk: math.log(count / each.total()) for chunk, count in each.items()}
            for letter, each in counts.items()}  # fmt: skip


def _align(word: str, said: str, chances: Chances) -> list[str] | None:
    """The likeliest way to share the phones out among the letters, none, one or two each; None where there is none."""
    if len(said) > 2 * len(word):
        return None
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for letter in word:
        known, column = chances.get(letter, {}), dict[int, tuple[float, int]]()
        for place, (score, _) in best[-1].items():
            for size in (0, 1, 2):
                if place + size > len(said):
                    break
                # Two phones of one letter are rare, and as likely as their first until they were seen.
                chunk = said[place : place + size]
                new = score + known.get(chunk, _SKIPPED * (1.5 if size == 2 else 1))
                if place + size not in column or new > column[place + size][0]:
                    column[place + size] = (new, size)
        best.append(column)
    if len(said) not in best[-1]:
        return None
    chunks, place = [], len(said)
    for column in reversed(best[1:]):
        size = column[place][1]
        chunks.append(said[place - size : place])
        place -= size
    return chunks[::-1]
