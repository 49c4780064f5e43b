"""Small English for captions: articles, plurals, numbers, and a plain spelling of Unicode names."""

from __future__ import annotations

import re
import unicodedata

COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_IRREGULAR = {
    "person": "people", "man": "men", "woman": "women", "child": "children", "foot": "feet", "tooth": "teeth",
    "mouse": "mice", "goose": "geese", "wolf": "wolves", "leaf": "leaves", "loaf": "loaves", "knife": "knives",
    "ox": "oxen", "sheep": "sheep", "fish": "fish", "deer": "deer", "rice": "rice", "bread": "bread",
}
_AN = re.compile(r"^(?:[aeio]|u(?!n[aeiou]|s[eaiu]|k|t[ei])|hour|heir|honest)")
_PUNCTUATION = re.compile(r"[^\w+]+")


def spoken(name: str) -> str:
    """Lower case, plain letters, no punctuation: 'flag: Côte d’Ivoire' -> 'flag of cote divoire'."""
    name = re.sub(r"\bflag: ?", "flag of ", name)
    text = unicodedata.normalize("NFKD", name.replace("’", "").replace("'", ""))
    text = "".join(c for c in text if not unicodedata.combining(c)).lower()
    return " ".join(_PUNCTUATION.sub(" ", text.replace("#", " hash ").replace("*", " asterisk ").replace("&", " and "))
                    .replace("_", " ").split())


def article(phrase: str) -> str:
    """'an' before a vowel as it sounds: 'an hourglass', 'a unicorn'."""
    return "an" if _AN.match(phrase) else "a"


def plural(noun: str) -> str:
    """'box' -> 'boxes', 'woman' -> 'women'; the last word carries it. What ends in a single s is taken for a plural."""
    head, _, last = noun.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("man") and not last.endswith("human"):
        last = last[:-3] + "men"
    elif re.search(r"(s|x|z|ch|sh)$", last):
        last = last if last.endswith("s") and not last.endswith("ss") else last + "es"
    elif re.search(r"[^aeiou]y$", last):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".strip()


def synonyms(names: list[str], keywords: list[tuple[str, ...]], reserved: frozenset[str]) -> list[tuple[str, ...]]:
    """For each pictogram, the keywords that mean it rather than another.

    A keyword belongs to the pictogram that it describes most narrowly: the one with the fewest keywords, the earliest
    among equals. A name always belongs to its own pictogram, and words of the grammar (`reserved`) are never names.
    """
    own = {spoken(n) for n in names}
    own |= {plural(n) for n in own}
    best: dict[str, int] = {}
    for i, words in enumerate(keywords):
        for word in map(spoken, words):
            if word and word not in own and word not in reserved:
                rival = best.get(word)
                if rival is None or len(words) < len(keywords[rival]):
                    best[word] = i
    found: list[list[str]] = [[] for _ in names]
    for word, i in best.items():
        found[i].append(word)
    return [tuple(f) for f in found]
